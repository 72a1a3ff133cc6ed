"""Embeddings of numerical features: every scalar becomes a small vector of its own. JAX.

After Gorishniy, Rubachev and Babenko, "On Embeddings for Numerical Features in Tabular Deep
Learning", NeurIPS 2022. Each kind has the same signature and stands in ``EMBEDDINGS``; features
are expected standardised (or mapped to a normal shape by quantiles).
"""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float


def _per_feature(module: nn.Module, h: Array, size: int, dtype: DTypeLike) -> Array:
    """A ReLU layer with its own weights for each feature: ``[..., F, A] -> [..., F, size]``."""
    features, inner = h.shape[-2:]
    scale = 1 / math.sqrt(inner)

    def uniform(key: Array, shape: tuple[int, ...]) -> Array:
        return jax.random.uniform(key, shape, minval=-scale, maxval=scale)

    kernel = module.param("kernel", uniform, (features, inner, size)).astype(dtype)
    bias = module.param("bias", uniform, (features, size)).astype(dtype)
    out = jnp.einsum("...fa,fae->...fe", h.astype(dtype), kernel)
    return nn.relu(out + jnp.broadcast_to(bias, out.shape))


def _sine_series(degree: int) -> tuple[float, ...]:
    """Coefficients of the odd powers of t in sin(2πt), least squares on a quarter turn."""
    t = np.cos(np.pi * (np.arange(256) + 0.5) / 512) / 4  # Chebyshev nodes: nearly minimax
    powers = t[:, None] ** np.arange(1, degree + 1, 2)
    wanted = np.sin(2 * np.pi * t)
    return tuple(np.linalg.lstsq(powers / wanted[:, None], np.ones_like(t))[0].tolist())


SINE = _sine_series(9)  # relative error below 6e-9: float32 rounds more


def _sine(t: Array) -> Array:
    """sin(2πt) for t in [-1/4, 1/4]."""
    square, value = jnp.square(t), jnp.full_like(t, SINE[-1])
    for coefficient in reversed(SINE[:-1]):
        value = value * square + coefficient
    return value * t


@jax.custom_jvp
def waves(turns: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Sine and cosine of 2π times ``turns``, float32.

    The library's are a scalar call each on CPU, a third of the hybrid's step; these are a few
    vector instructions, and exact in the reduction of their argument.
    """
    t = turns - jnp.round(turns)
    size = jnp.abs(t)
    folded = jnp.where(size > 0.25, jnp.where(t > 0, 0.5, -0.5) - t, t)
    return _sine(folded), _sine(0.25 - size)


@waves.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Any, Any]:
    sine, cosine = waves(*primals)
    speed = 2 * math.pi * tangents[0]
    return (sine, cosine), (cosine * speed, -sine * speed)


class Raw(nn.Module):
    """The scalar itself: ``[..., F] -> [..., F, 1]``."""

    size: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch F"]) -> Float[Array, "*batch F 1"]:
        """Adds the axis."""
        return x[..., None].astype(self.dtype)


class Affine(nn.Module):
    """``relu(w_f x + b_f)``, with hinges spread over the range of a standardised feature."""

    size: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch F"]) -> Float[Array, "*batch F E"]:
        """Embeds each feature."""
        return _per_feature(self, x[..., None], self.size, self.dtype)


class Piecewise(nn.Module):
    """Piecewise-linear encoding over ``knots`` normal quantiles, then a layer per feature.

    Component t rises from 0 to 1 between two neighbouring knots; the outer two go on beyond
    them. On a feature mapped to a normal shape by quantiles this is the paper's quantile-based
    encoding. Knots are constants: the same for every client, never averaged.
    """

    size: int
    dtype: DTypeLike = jnp.float32
    knots: int = 17

    @nn.compact
    def __call__(self, x: Float[Array, "*batch F"]) -> Float[Array, "*batch F E"]:
        """Embeds each feature."""
        normal = NormalDist()
        edges = [normal.inv_cdf((i + 0.5) / self.knots) for i in range(self.knots)]
        low, high = jnp.asarray(edges[:-1]), jnp.asarray(edges[1:])
        shape = (*x.shape, self.knots - 1)
        ramp = (x[..., None] - jnp.broadcast_to(low, shape)) / jnp.broadcast_to(high - low, shape)
        inner = jnp.arange(self.knots - 1)
        floor = jnp.where(inner > 0, 0.0, -jnp.inf)
        ceiling = jnp.where(inner < self.knots - 2, 1.0, jnp.inf)
        ramp = jnp.clip(ramp, jnp.broadcast_to(floor, shape), jnp.broadcast_to(ceiling, shape))
        return _per_feature(self, ramp, self.size, self.dtype)


class Periodic(nn.Module):
    """``relu(W [sin 2πc_f x, cos 2πc_f x] + b)`` with learned frequencies (the paper's PLR).

    ``sigma`` is the spread of the initial frequencies. Angles are taken in float32.
    """

    size: int
    dtype: DTypeLike = jnp.float32
    frequencies: int = 8
    sigma: float = 0.3

    @nn.compact
    def __call__(self, x: Float[Array, "*batch F"]) -> Float[Array, "*batch F E"]:
        """Embeds each feature."""
        c = self.param(
            "frequency", nn.initializers.normal(self.sigma), (x.shape[-1], self.frequencies)
        )
        shape = (*x.shape, self.frequencies)
        turns = jnp.broadcast_to(x[..., None], shape) * jnp.broadcast_to(c, shape)
        return _per_feature(self, jnp.concatenate(waves(turns), -1), self.size, self.dtype)


EMBEDDINGS: dict[str, Callable[..., nn.Module]] = {
    "none": Raw,
    "affine": Affine,
    "piecewise": Piecewise,
    "periodic": Periodic,
}
"""By name; each is built as ``EMBEDDINGS[name](size=, dtype=, name=)``."""
