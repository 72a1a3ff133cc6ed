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
from jaxtyping import Array, Float, Int, Int32, Key, UInt32

from qoejax.fed.promotion import lenient

_BETA = np.exp(-0.5)
"""Bounds the chance that one try of ``round_within`` is rejected (Kairouz et al. 2021, 4.1)."""


_DRAWN = 2.0**22
"""Largest mean of a Poisson variable that is drawn in float32 without losing whole numbers."""


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


def fit(clip: float, noise: float, size: int, clients: int, at_most: int) -> Grid:
    """The finest grid, of steps clip / 2**n, for sums of ``at_most`` clients in 32 bits.

    No finer than float32 can draw: it has all whole numbers up to 2**24, and draws of a Poisson
    variable of mean 2**22 stay below that.

    Raises:
      ValueError: there is none; says what to change.
    """
    for n in range(20, -1, -1):
        grid = Grid(clip, clip * 2.0**-n, size, clients, noise)
        if variance(grid) / 2 <= _DRAWN and _needed(grid, at_most) < 2 ** (grid.bits - 1):
            return grid
    raise ValueError(
        f"noise {noise} for {clients} clients and sums of {at_most} do not fit in 32 bits"
    )


def _needed(grid: Grid, at_most: int) -> float:
    spread = (variance(grid) * at_most) ** 0.5
    return at_most * norm_bound(grid) + 7 * spread


def check(grid: Grid, at_most: int) -> None:
    """Raises a ValueError where sums of ``at_most`` clients could wrap around, or a bound is none.

    A sum wraps with a chance below 1e-9: its largest number stays within the norm bound of all
    clients plus 7 standard deviations of their noise.
    """
    for name in ("clip", "step", "size", "clients", "noise"):
        if not getattr(grid, name) > 0:
            raise ValueError(f"{name} is {getattr(grid, name)}: expected above 0")
    needed = _needed(grid, at_most)
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


def mean(summed: UInt32[Array, "*D"], grid: Grid, clients: float) -> Float[Array, "*D"]:
    """The mean delta of a sum of shares, divided by the expected number of clients."""
    empty = 32 - grid.bits
    signed = jax.lax.bitcast_convert_type(summed << empty, jnp.int32) >> empty
    return signed.astype(jnp.float32) * jnp.float32(grid.step / clients)


def words(
    rows: Float[Array, "K D"], client_id: Int[Array, " K"], key: Key[Array, ""], grid: Grid
) -> UInt32[Array, "K D+1"]:
    """What each client adds to a masked sum: its share, and 1, by which the sum is counted."""

    def one(row: Array, client: Array) -> Array:
        return share(row, jax.random.fold_in(key, client), grid)

    shares = jax.vmap(one)(rows, client_id)
    return jnp.concatenate([shares, jnp.ones((len(rows), 1), jnp.uint32)], axis=1)


def means(sums: UInt32[Array, "G N"], grid: Grid) -> tuple[Float[Array, "G D"], Float[Array, " G"]]:
    """Mean deltas of masked sums, and how many clients are in each; 0 for a sum of nobody."""
    count = sums[:, -1].astype(jnp.float32)
    scale = 1 / jnp.where(count > 0, count, 1.0)
    return mean(sums[:, :-1], grid, 1.0) * scale[:, None], count


def shortened(rows: Float[Array, "K D"], grid: Grid) -> Int[Array, " K"]:
    """1 for each row that is longer than ``clip``."""
    return (jnp.linalg.norm(rows, axis=1) > jnp.asarray(grid.clip, rows.dtype)).astype(jnp.int32)


def _modulo(words: UInt32[Array, "*D"], bits: int) -> UInt32[Array, "*D"]:
    return words & np.uint32(2**bits - 1)
