"""Who is asked in a round. JAX.

Each rule is ``(key, number, *, population, expected, room) -> ids``: ``key`` is the run's own,
``expected`` the number of clients wanted, ``room`` the number of ids, of which -1 is nobody.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from qoejax.data import cohort
from qoejax.fed.round import round_keys

CYCLE = np.iinfo(np.int32).max
"""Folded into the run's key, where no round's number can be, for what holds over all rounds."""


def uniform(
    key: Key[Array, ""], number: Int[Array, ""], *, population: int, expected: int, room: int
) -> Int[Array, " K"]:
    """So many different clients, all sets alike; everyone in order where that is everyone."""
    if expected == population:
        return jnp.arange(population, dtype=jnp.int32)
    return cohort.sample(round_keys(key, number).cohort, population, expected)


def poisson(
    key: Key[Array, ""], number: Int[Array, ""], *, population: int, expected: int, room: int
) -> Int[Array, " K"]:
    """Each client by its own coin: what amplification by sampling assumes."""
    draw = round_keys(key, number).cohort
    ids, drawn = cohort.poisson(draw, population, expected / population, room)
    return jnp.where(drawn, ids, -1)


def cyclic(
    key: Key[Array, ""], number: Int[Array, ""], *, population: int, expected: int, room: int
) -> Int[Array, " K"]:
    """Fixed groups in turn: what DP-FTRL assumes."""
    return cohort.cyclic(jax.random.fold_in(key, CYCLE), number, population, expected)


SAMPLINGS: dict[str, Callable[..., Int[Array, " K"]]] = {
    "uniform": uniform,
    "poisson": poisson,
    "cyclic": cyclic,
}


def room(sampling: str, population: int, expected: int) -> int:
    """Ids that a rule gives."""
    return min(population, cohort.places(expected)) if sampling == "poisson" else expected
