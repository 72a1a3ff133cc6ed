"""Hidden quantities and the ranges they are drawn from; normal numbers that compile fast. JAX."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
from jaxtyping import Array, Float, Key


class Range(NamedTuple):
    """Where a hidden quantity is drawn from: uniform, or log-uniform if ``log``."""

    low: float
    high: float
    log: bool = False


def draw(key: Key[Array, ""], ranges: Mapping[str, Range]) -> dict[str, Float[Array, ""]]:
    """One value from each range, independent of each other, in one call of the generator."""
    unit = jax.random.uniform(key, (len(ranges),))
    return {
        name: r.low * (r.high / r.low) ** unit[i] if r.log else r.low + (r.high - r.low) * unit[i]
        for i, (name, r) in enumerate(ranges.items())
    }


def normal(key: Key[Array, ""], rows: int, columns: int) -> Float[Array, "{rows} {columns}"]:
    """Standard normal numbers.

    They are drawn in one row and then folded: XLA compiles that for CPUs several times faster than
    a two-dimensional draw, and the barrier keeps it from drawing anew for every reader.
    """
    flat = jax.random.normal(key, (rows * columns,))
    return jax.lax.optimization_barrier(flat).reshape(rows, columns)
