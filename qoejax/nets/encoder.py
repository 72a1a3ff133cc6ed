"""Pre-LN transformer blocks over one axis, and dropout by bytes. JAX.

Statistics of LayerNorm and softmax are float32 whatever the blocks compute in.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"relu": nn.relu, "gelu": nn.gelu}


Noise = UInt8[Array, "..."] | None
"""Random bytes in the shape of what they drop from; None drops nothing."""


def draw_noise(
    module: nn.Module, rate: float, train: bool, shapes: Sequence[tuple[Any, ...]]
) -> list[Noise]:
    """What ``drop`` needs at several places of a net, of one draw of the stream ``"dropout"``.

    On CPU a draw costs more than its bytes: deriving its key and starting its loop. Four bytes are
    cut from a word, since ``jax.random.bits`` spends a whole Threefry block on each byte. Sizes may
    be symbolic (``jax.export``) where nothing is drawn.
    """
    if not train or round(rate * 256) == 0:
        return [None] * len(shapes)
    sizes = [math.prod(shape) for shape in shapes]
    words = jax.random.bits(module.make_rng("dropout"), (-(-sum(sizes) // 4),), jnp.uint32)
    flat = jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)
    starts = [0, *itertools.accumulate(sizes)]
    return [flat[i : i + n].reshape(s) for i, n, s in zip(starts, sizes, shapes, strict=False)]


def drop(x: Float[Array, "*shape"], noise: Noise, rate: float) -> Float[Array, "*shape"]:
    """Dropout decided by one random byte an element.

    The rate is rounded to a multiple of 1/256 and kept values are scaled by the rounded rate, so
    the mean is kept exactly.
    """
    if noise is None:
        return x
    dropped = round(rate * 256)
    scale = jnp.asarray(256 / (256 - dropped), x.dtype)
    return jnp.where(noise >= dropped, x * scale, jnp.zeros_like(x))


class Dropout(nn.Module):
    """``drop`` with a draw of its own."""

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "*shape"], train: bool) -> Float[Array, "*shape"]:
        """Drops elements when training, at the cost of the stream ``"dropout"``."""
        return drop(x, draw_noise(self, self.rate, train, [x.shape])[0], self.rate)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalise(
    x: Float[Array, "*batch D"], scale: Float[Array, " D"], bias: Float[Array, " D"], epsilon: float
) -> Float[Array, "*batch D"]:
    """Layer normalisation of the last axis (Ba, Kiros and Hinton 2016), with its own gradient.

    All sums are products with a constant vector: on CPU, XLA's reductions along a short last axis,
    and over the batch in the gradient, cost more than the matmuls around them. Reverse mode only.
    """
    return _forward(x, scale, bias, epsilon)[0]


def _row_mean(x: Array) -> Array:
    mean = x @ jnp.full(x.shape[-1], 1 / x.shape[-1], x.dtype)
    return jnp.broadcast_to(mean[..., None], x.shape)


def _forward(x: Array, scale: Array, bias: Array, epsilon: float) -> tuple[Array, tuple]:
    centred = x - _row_mean(x)
    inverse = jax.lax.rsqrt(_row_mean(jnp.square(centred)) + epsilon)
    unit = centred * inverse
    out = unit * jnp.broadcast_to(scale, x.shape) + jnp.broadcast_to(bias, x.shape)
    return out, (unit, inverse, scale)


def _backward(epsilon: float, saved: tuple, grad: Array) -> tuple[Array, Array, Array]:
    unit, inverse, scale = saved
    own = grad * jnp.broadcast_to(scale, grad.shape)
    to_x = (own - _row_mean(own) - unit * _row_mean(own * unit)) * inverse
    rows = grad.reshape(-1, grad.shape[-1])
    ones = jnp.ones(len(rows), grad.dtype)
    return to_x, ones @ (rows * unit.reshape(rows.shape)), ones @ rows


normalise.defvjp(_forward, _backward)


class LayerNorm(nn.Module):
    """``nn.LayerNorm``, whose half-precision form mixes dtypes that strict promotion refuses."""

    dtype: DTypeLike = jnp.float32
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        """Normalises the last axis, in float32."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        out = normalise(x.astype(jnp.float32), scale, bias, self.epsilon)
        return out.astype(self.dtype)


def attend(
    q: Float[Array, "*batch N H A"],
    k: Float[Array, "*batch N H A"],
    v: Float[Array, "*batch N H A"],
    *,
    causal: bool,
) -> Float[Array, "*batch N H A"]:
    """Scaled dot-product attention; causal: position n sees positions 0..n.

    Where N lacks one to a multiple of four, a place that nobody sees is added: on CPU the products
    of 3 tokens and their gradients cost half as much again as those of 4 (``bench.attention``).
    """
    n = q.shape[-3]
    if n % 4 == 3:
        q, k, v = (
            jnp.pad(t, [(0, 0)] * (t.ndim - 3) + [(0, 1), (0, 0), (0, 0)]) for t in (q, k, v)
        )
    scores = jnp.einsum("...qha,...kha->...hqk", q, k, preferred_element_type=jnp.float32)
    scores = scores / math.sqrt(q.shape[-1])
    places = scores.shape[-1]
    seen = jnp.tri(places, dtype=bool) if causal else jnp.arange(places) < n
    if causal or places > n:
        scores = jnp.where(jnp.broadcast_to(seen, scores.shape), scores, -jnp.inf)
    probs = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("...hqk,...kha->...qha", probs, v)[..., :n, :, :]


class Attention(nn.Module):
    """Multi-head self-attention over the second to last axis, q, k and v from one matmul."""

    heads: int
    causal: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch N D"]) -> Float[Array, "*batch N D"]:
        """Attends over N.

        Raises:
            ValueError: D is not a multiple of ``heads``.
        """
        width = x.shape[-1]
        if width % self.heads:
            raise ValueError(f"width {width} is not a multiple of heads {self.heads}")
        split = (*x.shape[:-1], self.heads, width // self.heads)
        qkv = jnp.split(nn.Dense(3 * width, dtype=self.dtype, name="qkv")(x), 3, axis=-1)
        q, k, v = (part.reshape(split) for part in qkv)
        out = attend(q, k, v, causal=self.causal).reshape(x.shape)
        return nn.Dense(width, dtype=self.dtype, name="out")(out)


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``."""

    heads: int
    mlp: int
    dropout: float = 0.0
    causal: bool = False
    activation: str = "relu"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*batch N D"], noise: Sequence[Noise] = (None, None)
    ) -> Float[Array, "*batch N D"]:
        """Runs the block; ``noise`` is for what each half adds, of the shape of ``x``."""
        width, act = x.shape[-1], ACTIVATIONS[self.activation]
        h = LayerNorm(dtype=self.dtype, name="norm_attention")(x)
        h = Attention(self.heads, self.causal, self.dtype, name="attention")(h)
        x = x + drop(h, noise[0], self.dropout)
        h = LayerNorm(dtype=self.dtype, name="norm_mlp")(x)
        h = act(nn.Dense(self.mlp, dtype=self.dtype, name="up")(h))
        h = nn.Dense(width, dtype=self.dtype, name="down")(h)
        return x + drop(h, noise[1], self.dropout)
