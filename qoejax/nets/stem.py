"""Convolution along the features of a record, as patches and one matmul. JAX.

On CPU, XLA's convolution inside ``scan`` or ``vmap`` over clients is the slow path (one grouped
convolution a layer, and a slow gradient); a concatenation of strided slices and one matmul give
the same numbers several times faster, from parameters of the same shape.
"""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float


def pad_amounts(length: int, kernel: int, stride: int, padding: str) -> tuple[int, int]:
    """Zeros before and after, by the rule of ``lax.padtype_to_pads``.

    Raises:
        ValueError: The padding is neither "SAME" nor "VALID", or the kernel does not fit.
    """
    if padding == "SAME":
        total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
        return total // 2, total - total // 2
    if padding != "VALID":
        raise ValueError(f"padding {padding!r} of a convolution: expected 'SAME' or 'VALID'")
    if length < kernel:
        raise ValueError(f"a kernel of {kernel} does not fit {length} features without padding")
    return 0, 0


def patches(
    x: Float[Array, "*batch L A"], kernel: int, stride: int, padding: str
) -> Float[Array, "*batch N KA"]:
    """The windows a convolution sees, each as one vector, tap-major."""
    length = x.shape[-2]
    low, high = pad_amounts(length, kernel, stride, padding)
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(low, high), (0, 0)])
    count = (length + low + high - kernel) // stride + 1
    if kernel == stride:  # windows tile the record
        return x[..., : count * stride, :].reshape(*x.shape[:-2], count, kernel * x.shape[-1])
    last = (count - 1) * stride + 1
    return jnp.concatenate([x[..., i : i + last : stride, :] for i in range(kernel)], -1)


class PatchConv(nn.Module):
    """``nn.Conv(features, (kernel,), strides=(stride,), padding=padding)`` without ``lax.conv``.

    Parameters have the names and shapes of ``nn.Conv``: kernel ``(kernel, cin, cout)``, bias
    ``(cout,)``, so weights are interchangeable.
    """

    features: int
    kernel: int
    stride: int = 1
    padding: str = "SAME"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch L A"]) -> Float[Array, "*batch N D"]:
        """Convolves the second to last axis."""
        cin = x.shape[-1]
        shape = (self.kernel, cin, self.features)
        weights = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        windows = patches(x.astype(self.dtype), self.kernel, self.stride, self.padding)
        flat = weights.reshape(self.kernel * cin, self.features).astype(self.dtype)
        out = windows @ flat
        return out + jnp.broadcast_to(bias.astype(self.dtype), out.shape)


class Stem(nn.Module):
    """Two convolutions along the features: ``[..., F, A] -> [..., N, width]``, N about F/4."""

    width: int
    kernel: int = 3
    stride: int = 2
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch F A"]) -> Float[Array, "*batch N D"]:
        """Features to tokens."""
        make = {"kernel": self.kernel, "stride": self.stride, "dtype": self.dtype}
        h = nn.relu(PatchConv(self.width // 2, name="conv0", **make)(x))
        return nn.relu(PatchConv(self.width, name="conv1", **make)(h))


class FeatureTokens(nn.Module):
    """No convolution: every feature becomes a token by weights of its own, ``[..., F, width]``.

    The tokenizer of the FT-Transformer (Gorishniy et al., NeurIPS 2021). ``kernel`` and ``stride``
    are not used.
    """

    width: int
    kernel: int = 1
    stride: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch F A"]) -> Float[Array, "*batch F D"]:
        """Features to tokens."""
        shape = (*x.shape[-2:], self.width)
        initial = nn.initializers.lecun_normal(in_axis=1, batch_axis=0)
        kernel = self.param("kernel", initial, shape).astype(self.dtype)
        out = jnp.einsum("...fa,fad->...fd", x.astype(self.dtype), kernel)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-2], self.width))
        return out + jnp.broadcast_to(bias.astype(self.dtype), out.shape)


STEMS: dict[str, Callable[..., nn.Module]] = {"conv": Stem, "tokens": FeatureTokens}
"""By name; each is built as ``STEMS[name](width=, kernel=, stride=, dtype=, name=)``."""
