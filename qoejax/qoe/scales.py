"""MOS scales: ordinal bins on [1, 5], and what their probabilities say. JAX.

A MOS head predicts logits over M ordinal bins whose centres are evenly spaced from 1 to 5. Its mean
is the forecast, its spread the uncertainty of that forecast, its quantiles an interval.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LOW = 1.0
"""Worst opinion of the absolute category rating scale (ITU-T P.800, annex B)."""
HIGH = 5.0
"""Best opinion of the same scale."""


def centres(bins: int) -> Float[Array, " M"]:
    """Centres of ``bins`` ordinal bins, evenly spaced over [1, 5], ends included.

    Raises:
        ValueError: if ``bins`` is below 2, where no spacing exists.
    """
    if bins < 2:
        raise ValueError(f"MOS bins: expected at least 2, got {bins}")
    return jnp.linspace(LOW, HIGH, bins, dtype=jnp.float32)


def two_hot(mos: Float[Array, "..."], bins: int) -> Float[Array, "... M"]:
    """Target probabilities whose mean is ``mos`` and that touch at most two neighbouring bins.

    Args:
        mos: opinion scores; values outside [1, 5] count as the nearest end.
        bins: M, at least 2.

    Returns:
        Non-negative weights that sum to one over the last axis.
    """
    grid = centres(bins)
    step = (HIGH - LOW) / (bins - 1)
    clipped = jnp.clip(mos, LOW, HIGH)[..., None]
    distance = jnp.abs(clipped - jnp.broadcast_to(grid, (*clipped.shape[:-1], bins))) / step
    return jnp.maximum(1.0 - distance, 0.0)


def mean(logits: Float[Array, "... M"]) -> Float[Array, "..."]:
    """Expected MOS in [1, 5] of bin logits; the softmax over the last axis is taken inside."""
    probabilities = jax.nn.softmax(logits, axis=-1)
    return probabilities @ centres(logits.shape[-1]).astype(logits.dtype)


def spread(logits: Float[Array, "... M"]) -> Float[Array, "..."]:
    """Standard deviation, in MOS, of the opinion that bin logits describe; softmax inside."""
    probabilities = jax.nn.softmax(logits, axis=-1)
    grid = centres(logits.shape[-1]).astype(logits.dtype)
    gap = jnp.broadcast_to(grid, logits.shape) - mean(logits)[..., None]
    variance = jnp.sum(probabilities * jnp.square(gap), axis=-1)
    # The floor keeps the gradient finite where all mass sits in one bin.
    return jnp.sqrt(jnp.maximum(variance, 1e-12))
