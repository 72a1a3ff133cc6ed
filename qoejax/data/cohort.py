"""Clients of a round, and the batches they draw, by index (JAX, jittable; ``stage`` is NumPy).

Rows are staged once, sorted by client, so a client is an (offset, count) pair and a batch is a few
row numbers. Every order, of clients in a round and of rows in an epoch, comes from a keyed
permutation that is computed point by point: nothing is stored, nothing is sorted, and one compiled
program serves every size. Not cryptographic: where a privacy guarantee rests on who is drawn,
records come from ``poisson`` instead.
"""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Array, Bool, Float, Int, Int32, Integer, Key, UInt32

from qoejax.data.errors import DataError
from qoejax.types import Cohort, Examples

OVERFLOW = 1e-9
"""Chance that a Poisson draw is larger than the places it has, and thus left empty."""

ROUNDS = 12  # at 8, pairs of images of n = 5 are 3 % from uniform; at 12, within 0.6 %


def permute(
    key: Key[Array, ""], index: Int[Array, " B"], n: int | Integer[Array, ""]
) -> Int32[Array, " B"]:
    """Images of ``index`` under a random permutation of 0..n-1, given by ``key`` and ``n`` alone.

    A Feistel network over pairs (x // b, x % b) with a * b just above n, walked along its cycle
    until it lands below n (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002,
    sections 4 and 5). As a * b - n < a, which is about sqrt(n), a second walk is rare. Values of
    ``index`` outside the range are clamped into it, and an ``n`` below 1 counts as 1.
    """
    size = jnp.maximum(jnp.asarray(n), 1).astype(jnp.uint32)
    rows = _ceil_sqrt(size)
    columns = (size + rows - 1) // rows
    words = jax.random.bits(jax.random.fold_in(key, size), (ROUNDS,), jnp.uint32)

    def walk(x: UInt32[Array, " B"]) -> UInt32[Array, " B"]:
        high, low = x // columns, x % columns
        for r in range(0, ROUNDS, 2):
            high = _shift(high, low, words[r], rows)
            low = _shift(low, high, words[r + 1], columns)
        return high * columns + low

    def step(
        state: tuple[UInt32[Array, " B"], Bool[Array, " B"]],
    ) -> tuple[UInt32[Array, " B"], Bool[Array, " B"]]:
        x, unfinished = state
        x = jnp.where(unfinished, walk(x), x)
        return x, x >= size

    start = jnp.minimum(jnp.maximum(index, 0).astype(jnp.uint32), size - 1)
    image, _ = jax.lax.while_loop(lambda s: jnp.any(s[1]), step, (start, start < size))
    return image.astype(jnp.int32)


def sample(
    key: Key[Array, ""], population: int | Integer[Array, ""], size: int
) -> Int32[Array, " K"]:
    """``size`` different client ids out of 0..population-1, uniformly, in random order.

    Fold the round into ``key`` first: equal keys give equal cohorts. A smaller sample of the same
    key is a prefix of a larger one.
    """
    if isinstance(population, int) and not 0 < size <= population:
        raise DataError(f"cannot sample {size} of {population} clients without replacement.")
    return permute(key, jnp.arange(size, dtype=jnp.int32), population)


def cyclic(
    key: Key[Array, ""], number: Int[Array, ""], population: int, size: int
) -> Int32[Array, " K"]:
    """Clients of round ``number`` where all take turns: -1 where the last group is short.

    ``key`` shuffles the clients into ceil(population / size) groups once and for all; fold no round
    into it. Each client is asked once in as many rounds as there are groups.
    """
    groups = -(-population // size)
    place = (number % groups) * size + jnp.arange(size, dtype=jnp.int32)
    return jnp.where(place < population, permute(key, place, population), -1)


def places(expected: float | int, multiple: int = 1) -> int:
    """Places that a Poisson draw of ``expected`` records fits in but for chance ``OVERFLOW``."""
    size = int(scipy.stats.poisson.isf(OVERFLOW, expected)) + 1
    return -(-size // multiple) * multiple


def poisson(
    key: Key[Array, ""],
    count: int | Integer[Array, ""],
    rate: float | Float[Array, ""],
    size: int,
) -> tuple[Int32[Array, " B"], Bool[Array, " B"]]:
    """Each of 0..count-1 with chance ``rate``, independently: (numbers in order, valid) [B].

    The gaps between those drawn are geometric, so the cost is that of B = ``size`` numbers,
    whatever the count, which must be below 2**24. A draw of more than ``size`` is left empty:
    whether that happens depends on no record, hence the privacy of Poisson sampling is untouched
    where neighbours differ by a null record. ``size`` >= ``count`` always fits.
    """
    limit = jnp.asarray(count, jnp.int32)
    uniform = jax.random.uniform(key, (size + 1,), minval=np.finfo(np.float32).tiny)
    gap = jnp.floor(jnp.log(uniform) / jnp.log1p(-jnp.asarray(rate, jnp.float32)))
    gap = jnp.minimum(gap, limit.astype(jnp.float32)).astype(jnp.int32) + 1
    place = jax.lax.associative_scan(lambda a, b: jnp.minimum(a + b, limit + 1), gap) - 1
    valid = (place[:size] < limit) & (place[size] >= limit)
    return jnp.where(valid, place[:size], 0), valid


def steps_per_epoch(count: Int[Array, "*K"], batch_size: int) -> Int[Array, "*K"]:
    """ceil(count / batch_size): the steps in which each row is drawn once."""
    return (count + (batch_size - 1)) // batch_size


def batch_index(
    key: Key[Array, ""], count: Int[Array, ""], step: Int[Array, ""], batch_size: int
) -> tuple[Int32[Array, " B"], Bool[Array, " B"]]:
    """Rows of a client's batch number ``step``: (index relative to its offset, valid).

    An epoch is ceil(count / B) steps and draws each row exactly once; its last batch is partly
    invalid where B does not divide the count. Each epoch has its own order. ``index`` is always in
    0..count-1, so that invalid slots may be gathered (and weighted 0). A client without rows gets
    index 0, all invalid. Fold the client into ``key`` first; ``step`` may run on over rounds.
    """
    per_epoch = jnp.maximum(steps_per_epoch(count, batch_size), 1)
    epoch, within = step // per_epoch, step % per_epoch
    place = within * batch_size + jnp.arange(batch_size, dtype=count.dtype)
    index = permute(jax.random.fold_in(key, epoch), place, count)
    return index, place < count


def cohort(
    client_ids: Int[Array, " K"],
    offset: Int[Array, " P"],
    count: Int[Array, " P"],
    *,
    batch_size: int,
    epochs: int | None = None,
    steps: int | None = None,
    weight: Literal["examples", "uniform"] = "examples",
) -> Cohort:
    """The sampled clients as ranges, each with its number of local steps and its weight.

    Exactly one of ``epochs`` (unequal steps: ceil(count / B) an epoch) and ``steps`` (equal steps)
    must be given. ``weight`` is the client's number of examples (FedAvg) or 1. A client id of -1
    is padding: no rows, no steps, weight 0.
    """
    if (epochs is None) == (steps is None):
        raise ValueError("give exactly one of epochs and steps for a cohort's local work")
    if weight not in ("examples", "uniform"):
        raise ValueError(f"cohort weight must be 'examples' or 'uniform', not {weight!r}")
    real = client_ids >= 0
    slot = jnp.where(real, client_ids, 0)
    rows = jnp.where(real, count[slot], 0)
    if steps is not None:
        local = jnp.where(real, steps, 0).astype(jnp.int32)
    else:
        local = (epochs or 0) * steps_per_epoch(rows, batch_size)
    share = rows if weight == "examples" else real
    return Cohort(
        client_id=client_ids,
        offset=jnp.where(real, offset[slot], 0),
        count=rows,
        steps=local,
        weight=share.astype(jnp.float32),
    )


def stage(
    examples: Examples, parts: Sequence[Integer[np.ndarray, " _"]]
) -> tuple[Examples, Int32[np.ndarray, " P"], Int32[np.ndarray, " P"]]:
    """Host rows in client order, with each client's offset and count.

    Rows of no client are left out. The result is NumPy, so that the caller chooses the device or
    sharding it is put on.

    Raises:
      DataError: a client without rows, a row out of range or held twice; names the client.
    """
    rows = len(examples.label)
    if not parts:
        raise DataError("no clients to stage: expected at least one list of rows.")
    for client, part in enumerate(parts):
        if len(part) == 0:
            raise DataError(f"client {client} has no rows; every client needs at least one.")
        if part.min() < 0 or part.max() >= rows:
            raise DataError(f"client {client} holds a row outside 0..{rows - 1}.")
    count = np.array([len(part) for part in parts], np.int64)
    order = np.concatenate(parts)
    twice = np.flatnonzero(np.bincount(order, minlength=rows) > 1)
    if len(twice):
        holders = np.repeat(np.arange(len(parts)), count)[order == twice[0]]
        raise DataError(f"row {twice[0]} is held twice, by clients {holders[0]} and {holders[1]}.")
    staged = jax.tree.map(lambda leaf: np.asarray(leaf)[order], examples)
    offset = np.cumsum(count) - count
    return staged, offset.astype(np.int32), count.astype(np.int32)


def _ceil_sqrt(n: UInt32[Array, ""]) -> UInt32[Array, ""]:
    """Exact for 1 <= n < 2**31 whatever the device's square root rounds to."""
    low = jnp.maximum(jnp.sqrt(n.astype(jnp.float32)).astype(jnp.uint32), 2) - 1
    for _ in range(3):
        low = jnp.where(low * low < n, low + 1, low)
    return low


def _shift(
    half: UInt32[Array, " B"],
    other: UInt32[Array, " B"],
    word: UInt32[Array, ""],
    modulus: UInt32[Array, ""],
) -> UInt32[Array, " B"]:
    """One Feistel round: half + F(other), modulo ``modulus`` (at most 2**16)."""
    mixed = other ^ word
    mixed = (mixed ^ (mixed >> 16)) * np.uint32(0x7FEB352D)  # lowbias32, C. Wellons 2018
    mixed = (mixed ^ (mixed >> 15)) * np.uint32(0x846CA68B)
    mixed = mixed ^ (mixed >> 16)
    # floor(mixed * modulus / 2**32) in 32-bit arithmetic: even, and cheaper than a remainder.
    coarse = (mixed >> 16) * modulus + (((mixed & 0xFFFF) * modulus) >> 16)
    moved = half + (coarse >> 16)
    return jnp.where(moved >= modulus, moved - modulus, moved)
