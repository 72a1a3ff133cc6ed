"""Pre-LN transformer blocks over one axis, and dropout that is cheap on CPU. JAX.

Statistics of LayerNorm and softmax are float32 whatever the blocks compute in.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key, UInt32

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"relu": nn.relu, "gelu": nn.gelu}


def words(key: Key[Array, ""], shape: tuple[int, ...]) -> UInt32[Array, "*shape"]:
    """A random word for every element, as a hash of its number and of two words of ``key``.

    A cipher call an element, as ``jax.random.bits`` has it, is most of a small net's step on CPU;
    this is two rounds of an integer hash, which XLA fuses into what reads it. Not cryptographic.
    """
    first, second = jax.random.bits(key, (2,), jnp.uint32)
    number = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    return _mix(_mix(number * np.uint32(0x9E3779B9) + first) ^ second)


def _mix(x: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """lowbias32, C. Wellons 2018."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


class Dropout(nn.Module):
    """``nn.Dropout``, whose random numbers cost a twentieth on CPU (``words``)."""

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "*shape"], train: bool) -> Float[Array, "*shape"]:
        """Drops elements when training, at the cost of the stream ``"dropout"``."""
        if not train or self.rate == 0:
            return x
        dropped = words(self.make_rng("dropout"), x.shape) < np.uint32(self.rate * 2**32)
        return jnp.where(dropped, jnp.zeros_like(x), x * jnp.asarray(1 / (1 - self.rate), x.dtype))


class LayerNorm(nn.Module):
    """``nn.LayerNorm``, whose half-precision form mixes dtypes that strict promotion refuses."""

    dtype: DTypeLike = jnp.float32
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        """Normalises the last axis, in float32."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        wide = x.astype(jnp.float32)
        centred = wide - wide.mean(-1, keepdims=True)
        variance = jnp.square(centred).mean(-1, keepdims=True)
        out = centred * jax.lax.rsqrt(variance + self.epsilon)
        out = out * jnp.broadcast_to(scale, x.shape) + jnp.broadcast_to(bias, x.shape)
        return out.astype(self.dtype)


def attend(
    q: Float[Array, "*batch N H A"],
    k: Float[Array, "*batch N H A"],
    v: Float[Array, "*batch N H A"],
    *,
    causal: bool,
) -> Float[Array, "*batch N H A"]:
    """Scaled dot-product attention; causal: position n sees positions 0..n."""
    scores = jnp.einsum("...qha,...kha->...hqk", q, k, preferred_element_type=jnp.float32)
    scores = scores / math.sqrt(q.shape[-1])
    if causal:
        seen = jnp.tri(scores.shape[-1], dtype=bool)
        scores = jnp.where(jnp.broadcast_to(seen, scores.shape), scores, -jnp.inf)
    probs = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("...hqk,...kha->...qha", probs, v)


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
    def __call__(self, x: Float[Array, "*batch N D"], train: bool) -> Float[Array, "*batch N D"]:
        """Runs the block; ``train`` turns dropout on."""
        width, act = x.shape[-1], ACTIVATIONS[self.activation]
        h = LayerNorm(dtype=self.dtype, name="norm_attention")(x)
        h = Attention(self.heads, self.causal, self.dtype, name="attention")(h)
        x = x + Dropout(self.dropout, name="drop_attention")(h, train)
        h = LayerNorm(dtype=self.dtype, name="norm_mlp")(x)
        h = act(nn.Dense(self.mlp, dtype=self.dtype, name="up")(h))
        h = nn.Dense(width, dtype=self.dtype, name="down")(h)
        return x + Dropout(self.dropout, name="drop_mlp")(h, train)
