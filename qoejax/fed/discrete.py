"""Noise that clients add themselves, on integers, ready for secure aggregation. JAX.

A client clips its delta, rounds it to a grid and adds its share of Skellam noise; the sum of all
clients' integers, modulo a power of two, is all that anybody sees (Agarwal et al. 2021). A sum of
Skellam shares is a Skellam variable, so the guarantee is that of the noise of all clients together,
and holds against the server. Noise of clients that drop out is missing: shares are sized for the
clients that finish at least.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax_privacy.clipping import clip_pytree
from jaxtyping import Array, Float, Int32, Key, UInt32

from qoejax.fed.promotion import lenient

_BETA = np.exp(-0.5)
"""Bounds the chance that one try of ``round_within`` is rejected (Kairouz et al. 2021, 4.1)."""


class Grid(NamedTuple):
    """How deltas of ``size`` numbers become integers.

    Attributes:
      clip: Largest Euclidean norm of a delta.
      step: Distance of two neighbours on the grid, in the delta's unit.
      size: Numbers of a delta.
      clients: Those that finish at least; the noise of that many is the noise that counts.
      noise: Standard deviation of the noise of that many, over ``clip``.
      bits: Sums are modulo 2**bits.
    """

    clip: float
    step: float
    size: int
    clients: int
    noise: float
    bits: int = 32


def check(grid: Grid, at_most: int) -> None:
    """Raises a ValueError where sums of ``at_most`` clients could wrap around, or a bound is none.

    A sum wraps with a chance below 1e-9: its largest number stays within the norm bound of all
    clients plus 7 standard deviations of their noise.
    """
    for name in ("clip", "step", "size", "clients", "noise"):
        if not getattr(grid, name) > 0:
            raise ValueError(f"{name} is {getattr(grid, name)}: expected above 0")
    spread = (variance(grid) * at_most) ** 0.5
    needed = at_most * norm_bound(grid) + 7 * spread
    if not grid.bits <= 32 or needed >= 2 ** (grid.bits - 1):
        raise ValueError(
            f"bits is {grid.bits}: sums of {at_most} clients need {np.log2(needed) + 1:.1f}, "
            "and 32 are the most; take a larger step"
        )


def norm_bound(grid: Grid) -> float:
    """Largest Euclidean norm of a rounded delta, in steps (Kairouz et al. 2021, section 4.1)."""
    length, root = grid.clip / grid.step, grid.size**0.5
    square = length**2 + grid.size / 4 + (2 * np.log(1 / _BETA)) ** 0.5 * (length + root / 2)
    return float(min(length + root, square**0.5))


def variance(grid: Grid) -> float:
    """Variance of one client's share of the noise, in squared steps."""
    return (grid.noise * grid.clip / grid.step) ** 2 / grid.clients


def round_within(
    key: Key[Array, ""], values: Float[Array, " D"], bound: float
) -> Int32[Array, " D"]:
    """Values up or down to integers, unbiased but for being drawn again until within ``bound``."""

    def attempt(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        key, draw = jax.random.split(carry[0])
        return key, jnp.floor(values + jax.random.uniform(draw, values.shape))

    def too_long(carry: tuple[Array, Array]) -> Array:
        return jnp.linalg.norm(carry[1]) > bound

    return jax.lax.while_loop(too_long, attempt, attempt((key, values)))[1].astype(jnp.int32)


def skellam(key: Key[Array, ""], size: int, variance: float) -> Int32[Array, " D"]:
    """The difference of two Poisson variables, each of half the variance."""
    up, down = jax.random.split(key)
    half = variance / 2
    return jax.random.poisson(up, half, (size,)) - jax.random.poisson(down, half, (size,))


def share(delta: Float[Array, " D"], key: Key[Array, ""], grid: Grid) -> UInt32[Array, " D"]:
    """What one client hands to secure aggregation: clipped, rounded, with its noise, modulo.

    A delta that is not finite counts as 0 where it is not.
    """
    rounding, noise = jax.random.split(key)
    clipped, _ = lenient(clip_pytree)(delta, grid.clip)
    whole = round_within(rounding, clipped / jnp.asarray(grid.step, delta.dtype), norm_bound(grid))
    noisy = whole + skellam(noise, grid.size, variance(grid))
    return _modulo(noisy.astype(jnp.uint32), grid.bits)


def total(shares: UInt32[Array, "K D"], bits: int) -> UInt32[Array, " D"]:
    """The sum modulo 2**bits: what secure aggregation computes, in the clear."""
    return _modulo(shares.sum(axis=0, dtype=jnp.uint32), bits)


def mean(summed: UInt32[Array, " D"], grid: Grid, clients: float) -> Float[Array, " D"]:
    """The mean delta of a sum of shares, divided by the expected number of clients."""
    empty = 32 - grid.bits
    signed = jax.lax.bitcast_convert_type(summed << empty, jnp.int32) >> empty
    return signed.astype(jnp.float32) * jnp.float32(grid.step / clients)


def _modulo(words: UInt32[Array, "*D"], bits: int) -> UInt32[Array, "*D"]:
    return words & np.uint32(2**bits - 1)
