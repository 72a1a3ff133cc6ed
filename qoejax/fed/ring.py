"""Updates as integers modulo 2**32, whose sums say nothing of a single one once masked. JAX.

A client of weight w clips its message, scales it by w / heaviest, rounds it, and appends w itself,
so that the sum alone gives the weighted mean:

    q = rint(clip(x, -c, c) * (w / heaviest) * 2**bits)   and   w      (mod 2**32)
    mean = sum(q) / 2**bits * heaviest / sum(w)

Addition wraps and is exact, in any order. Without clipping a coordinate of the mean is off by at
most ``error``: 2**-(bits + 1) a client, times n heaviest / sum(w), from rounding, and
2**-21 max |x| from float32 arithmetic (at most eight roundings of 2**-24: 1 / heaviest, two
products, and the way back).
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from qoejax.fed import chacha

FINEST = 24
"""Most fractional bits: float32 has no more."""


class Ring(NamedTuple):
    """How numbers become integers.

    Attributes:
      clip: Largest absolute value of a coordinate.
      bits: Fractional bits.
      heaviest: Largest weight of a client; weights are whole numbers.
      clients: Most clients of one sum.
      uniform: Whether every client weighs 1, whatever the cohort says.
    """

    clip: float
    bits: int
    heaviest: float
    clients: int
    uniform: bool = False


def fit(clip: float, heaviest: float, clients: int, uniform: bool = False) -> Ring:
    """The finest ring in which ``clients`` messages cannot wrap around.

    Raises:
      ValueError: a bound that is none, or for which there is no such ring.
    """
    if not (0 < clip < math.inf and 1 <= heaviest < math.inf and clients >= 1):
        raise ValueError(
            f"expected clip above 0, heaviest and clients from 1, got {clip}, {heaviest}, {clients}"
        )
    fitting = (b for b in range(FINEST, -1, -1) if clients * (clip * 2.0**b + 0.5) < 2**31)
    bits = next(fitting, None)
    if bits is None or clients * heaviest >= 2**31:
        raise ValueError(
            f"sums of {clients} clients with clip {clip} and weights up to {heaviest} do not fit "
            "in 32 bits: take a smaller clip, fewer clients, or uniform weights"
        )
    return Ring(clip, bits, heaviest, clients, uniform)


def error(ring: Ring, clients: int, weight: float, largest: float) -> float:
    """Bound on a coordinate of the mean of ``clients``, of sum of weights ``weight``.

    ``largest`` is the largest absolute value of a coordinate, at most ``clip``; see the module's
    text for the terms.
    """
    return clients * 2.0 ** -(ring.bits + 1) * ring.heaviest / weight + 2.0**-21 * largest


def flatten(messages: Any) -> Float[Array, "K D"]:
    """Messages [K, *] as rows, in tree order."""
    rows = [leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(messages)]
    return jnp.concatenate(rows, axis=1)


def unflatten(rows: Float[Array, "G D"], like: Any) -> Any:
    """Inverse of ``flatten`` for any number of rows; ``like`` is one message."""
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
    parts = jnp.split(rows, ends, axis=1)
    shaped = [
        part.reshape(-1, *leaf.shape).astype(leaf.dtype)
        for part, leaf in zip(parts, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, shaped)


def quantise(
    rows: Float[Array, "K D"], weight: Float[Array, " K"], ring: Ring
) -> UInt32[Array, "K D+1"]:
    """What each client adds to the sum; what is not finite counts as 0 and must not be sent."""
    clip = jnp.asarray(ring.clip, rows.dtype)
    weight = jnp.ones_like(weight) if ring.uniform else weight
    # A product, which XLA would make of a division by a constant: hosts must agree to the bit.
    share = (weight * jnp.float32(1 / ring.heaviest)).astype(rows.dtype)
    finite = jnp.where(jnp.isfinite(rows), rows, 0)
    scaled = jnp.clip(finite, -clip, clip) * share[:, None]
    whole = jnp.rint(scaled * jnp.asarray(2.0**ring.bits, rows.dtype)).astype(jnp.int32)
    last = jnp.rint(weight).astype(jnp.int32)
    return jax.lax.bitcast_convert_type(jnp.concatenate([whole, last[:, None]], axis=1), jnp.uint32)


def clipped(rows: Float[Array, "K D"], ring: Ring) -> Int[Array, " K"]:
    """How many coordinates of each row are beyond ``clip``."""
    return (jnp.abs(rows) > jnp.asarray(ring.clip, rows.dtype)).sum(axis=1)


def total(words: UInt32[Array, "K N"], counted: Bool[Array, " K"]) -> UInt32[Array, " N"]:
    """The sum of the counted: what secure aggregation computes, in the clear."""
    return jnp.where(counted[:, None], words, jnp.uint32(0)).sum(axis=0, dtype=jnp.uint32)


def mean(sums: UInt32[Array, "G N"], ring: Ring) -> tuple[Float[Array, "G D"], Float[Array, " G"]]:
    """Weighted means and sums of weights; both 0 for a sum of nobody."""
    weight = sums[:, -1].astype(jnp.float32)
    scale = jnp.float32(ring.heaviest * 2.0**-ring.bits) / jnp.where(weight > 0, weight, 1.0)
    signed = jax.lax.bitcast_convert_type(sums[:, :-1], jnp.int32).astype(jnp.float32)
    return jnp.where(weight[:, None] > 0, signed * scale[:, None], 0.0), weight


class Edges(NamedTuple):
    """Pairs of clients that share a mask: one adds what the other takes away."""

    plus: Int[Array, " E"]
    minus: Int[Array, " E"]
    key: UInt32[Array, "E 8"]


def mask(
    words: UInt32[Array, "K N"], own: UInt32[Array, "K 8"], edges: Edges
) -> UInt32[Array, "K N"]:
    """Everybody's masked vectors: plus its own keystream and those of its edges.

    One edge after the other: memory is that of the vectors.
    """
    length = words.shape[1]

    def blind(_: None, item: tuple[Array, Array]) -> tuple[None, Array]:
        row, key = item
        return None, row + chacha.keystream(key, length)

    def pair(masked: Array, edge: Edges) -> tuple[Array, None]:
        stream = chacha.keystream(edge.key, length)
        return masked.at[edge.plus].add(stream).at[edge.minus].add(-stream), None

    blinded = jax.lax.scan(blind, None, (words, own))[1]
    return jax.lax.scan(pair, blinded, edges)[0]


def unmask(
    masked: UInt32[Array, "K N"],
    own: UInt32[Array, "K 8"],
    edges: Edges,
    counted: Bool[Array, " K"],
) -> UInt32[Array, " N"]:
    """The sum of the counted clients, less their own masks and those of edges to the others."""
    length = masked.shape[1]
    zero = jnp.uint32(0)

    def blind(sum_: Array, item: tuple[Array, Array]) -> tuple[Array, None]:
        key, here = item
        return sum_ - jnp.where(here, chacha.keystream(key, length), zero), None

    def pair(sum_: Array, edge: Edges) -> tuple[Array, None]:
        stream = chacha.keystream(edge.key, length)
        plus, minus = counted[edge.plus], counted[edge.minus]
        sum_ = sum_ - jnp.where(plus & ~minus, stream, zero)
        return sum_ + jnp.where(minus & ~plus, stream, zero), None

    opened = jax.lax.scan(blind, total(masked, counted), (own, counted))[0]
    return jax.lax.scan(pair, opened, edges)[0]
