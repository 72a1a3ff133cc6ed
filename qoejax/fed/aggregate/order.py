"""Exact order statistics of every coordinate over clients, without sorting. JAX.

A float32 becomes a uint32 of the same order; the bits of the wanted value are then found from the
top, each by counting how many clients lie below it, until no other client's value has the same
bits. That is some 26 passes of compare-and-count over a block that stays in the cache, at most 32,
and no copy of the deltas: XLA's sort along the leading axis is ten times slower on CPU
(``experiments.bench.rules``).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from qoejax.types import Params

BLOCK = 2048
"""Coordinates at a time: 100 clients of a block are 800 kB, inside an L2 cache."""

_TOP = 0x80000000
_LAST = 0xFFFFFFFF


def ordered(values: Float[Array, "K N"], present: Bool[Array, " K"]) -> UInt32[Array, "K N"]:
    """Keys in the order of the values (-0 before 0); those of absent clients come last."""
    bits = jax.lax.bitcast_convert_type(values.astype(jnp.float32), jnp.uint32)
    keys = jnp.where(bits >= jnp.uint32(_TOP), ~bits, bits | jnp.uint32(_TOP))
    return jnp.where(present[:, None], keys, jnp.uint32(_LAST))


def restored(keys: UInt32[Array, "*N"]) -> Float[Array, "*N"]:
    """Inverse of ``ordered``."""
    bits = jnp.where(keys >= jnp.uint32(_TOP), keys & jnp.uint32(_TOP - 1), ~keys)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


def below(keys: UInt32[Array, "K N"], bound: UInt32[Array, "R N"]) -> Int[Array, "R N"]:
    """How many keys of each coordinate are less than each of R bounds."""
    return jax.lax.platform_dependent(keys, bound, cpu=_below_in_turn, default=_below_at_once)


def _below_in_turn(keys: Array, bound: Array) -> Array:
    # One client after the other, the counts in registers: two to four times as fast on CPU.
    def add(count: Array, row: Array) -> tuple[Array, None]:
        return count + (row[None] < bound).astype(jnp.int32), None

    return jax.lax.scan(add, jnp.zeros(bound.shape, jnp.int32), keys)[0]


def _below_at_once(keys: Array, bound: Array) -> Array:
    return (keys[:, None] < bound[None]).sum(axis=0, dtype=jnp.int32)


class Ranked(NamedTuple):
    """Keys of each coordinate by rank; how many others are less, and how many not greater."""

    keys: UInt32[Array, "R N"]
    under: Int[Array, "R N"]
    within: Int[Array, "R N"]


def statistics(keys: UInt32[Array, "K N"], ranks: Int[Array, " R"]) -> Ranked:
    """For each coordinate, the keys that are preceded by ``ranks`` others when sorted."""

    def open_(carry: tuple[Array, Ranked]) -> Array:
        i, found = carry
        return (i < 32) & (found.within - found.under > 1).any()

    def bit(carry: tuple[Array, Ranked]) -> tuple[Array, Ranked]:
        i, found = carry
        tried = found.keys | (jnp.uint32(_TOP) >> i.astype(jnp.uint32))
        less = below(keys, tried)
        up = less <= ranks[:, None]
        later, earlier = Ranked(tried, less, found.within), Ranked(found.keys, found.under, less)
        return i + 1, jax.tree.map(lambda a, b: jnp.where(up, a, b), later, earlier)

    shape = (ranks.shape[0], keys.shape[1])
    none, every = jnp.zeros(shape, jnp.int32), jnp.full(shape, keys.shape[0], jnp.int32)
    first = jnp.int32(0), Ranked(jnp.zeros(shape, jnp.uint32), none, every)
    found = jax.lax.while_loop(open_, bit, first)[1]

    # The one key with the bits that were found, or those bits where several are equal.
    return found._replace(keys=_least_from(keys, found.keys))


def _least_from(keys: UInt32[Array, "K N"], bound: UInt32[Array, "R N"]) -> UInt32[Array, "R N"]:
    """The least key of each coordinate that is not below each of R bounds."""
    last = jnp.uint32(_LAST)

    # A scan, since XLA's reductions over the leading axis are some 40 times slower on CPU.
    def least(key: Array, row: Array) -> tuple[Array, None]:
        return jnp.minimum(key, jnp.where(row[None] >= bound, row[None], last)), None

    return jax.lax.scan(least, jnp.full(bound.shape, last), keys)[0]


def median(values: Float[Array, "K N"], present: Bool[Array, " K"]) -> Float[Array, " N"]:
    """Of the present clients: the middle value, or the mean of the middle two; 0 without any."""
    n = present.sum(dtype=jnp.int32)
    keys = ordered(values, present)
    low, _, within = statistics(keys, (n - 1)[None] // 2)
    above = _least_from(keys, low + jnp.uint32(1))
    low, high = restored(low[0]), restored(jnp.where(within > n // 2, low, above)[0])
    return jnp.where(n > 0, low + (high - low) / 2, 0.0)


def trimmed_mean(
    values: Float[Array, "K N"], present: Bool[Array, " K"], cut: Int[Array, ""]
) -> Float[Array, " N"]:
    """Mean of the present clients' values without the ``cut`` largest and smallest; 0 without any.

    ``2 cut`` is less than the number of present clients.
    """
    n = present.sum(dtype=jnp.int32)
    keys = ordered(values, present)
    ends, under, within = statistics(keys, jnp.stack([cut, n - 1 - cut]))
    inner = jnp.where((keys > ends[:1]) & (keys < ends[1:]), values, 0.0)
    # How often each end stays: what is not beyond it, less what was cut on that side.
    lows = (within[0] - cut).astype(jnp.float32)
    highs = (n - cut - under[1]).astype(jnp.float32)
    low, high = restored(ends)
    total = _sum(inner) + lows * low + highs * high
    kept = jnp.maximum(n - 2 * cut, 1).astype(jnp.float32)
    return jnp.where(n > 0, jnp.where(low == high, low, total / kept), 0.0)


def mean_around_median(
    values: Float[Array, "K N"], present: Bool[Array, " K"], keep: Int[Array, ""]
) -> Float[Array, " N"]:
    """Mean of the ``keep`` values nearest to the median; values equally far share the last places.

    0 without any client.
    """
    gaps = ordered(jnp.abs(values - median(values, present)[None]), present)
    bound, (nearer,), _ = statistics(gaps, (keep - 1)[None])
    tied = gaps == bound
    places = (keep - nearer).astype(jnp.float32)
    ties = _sum(tied.astype(jnp.float32))
    total = _sum(jnp.where(gaps < bound, values, 0.0))
    total += _sum(jnp.where(tied, values, 0.0)) * places / jnp.maximum(ties, 1.0)
    return jnp.where(present.any(), total / jnp.maximum(keep, 1).astype(jnp.float32), 0.0)


def by_coordinate(
    fn: Callable[[Float[Array, "K N"]], Float[Array, " N"]], deltas: Params
) -> Params:
    """``fn`` of every coordinate's K values, ``BLOCK`` coordinates at a time.

    Small leaves are put together first, since each separate one costs compile time.
    """
    leaves, structure = jax.tree.flatten(deltas)
    flat = [leaf.reshape(leaf.shape[0], -1) for leaf in leaves]
    out: list[Array] = []
    for group in _groups([leaf.shape[1] for leaf in flat]):
        rows = [flat[i] for i in group]
        joined = _blocks(fn, rows[0] if len(rows) == 1 else jnp.concatenate(rows, axis=1))
        sizes = [row.shape[1] for row in rows]
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        out += [joined[a : a + n] for a, n in zip(starts, sizes, strict=True)]
    shaped = [
        o.reshape(leaf.shape[1:]).astype(leaf.dtype) for o, leaf in zip(out, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, shaped)


def _sum(values: Float[Array, "K N"]) -> Float[Array, " N"]:
    return jnp.tensordot(jnp.ones(values.shape[0]), values, 1, precision="highest")


def _groups(sizes: list[int]) -> list[list[int]]:
    """Neighbouring leaves, taken together until they fill two blocks."""
    groups, filled = [[]], 0
    for i, size in enumerate(sizes):
        if groups[-1] and filled + size > 2 * BLOCK:
            groups.append([])
            filled = 0
        groups[-1].append(i)
        filled += size
    return groups


def _blocks(fn: Callable[[Array], Array], values: Float[Array, "K N"]) -> Float[Array, " N"]:
    clients, n = values.shape
    if n <= BLOCK:
        return fn(values)

    def body(i: Array, out: Array) -> Array:
        # The last block starts early enough to be whole; its overlap is computed twice, alike.
        start = jnp.minimum(i * BLOCK, n - BLOCK)
        block = jax.lax.dynamic_slice(values, (jnp.int32(0), start), (clients, BLOCK))
        return jax.lax.dynamic_update_slice(out, fn(block), (start,))

    return jax.lax.fori_loop(0, -(-n // BLOCK), body, jnp.zeros(n, jnp.float32))
