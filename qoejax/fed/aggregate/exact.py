"""Means whose sums are exact, hence the same to the bit for any order of the clients. JAX.

Sums of floating-point numbers depend on their order and grouping; sums of integers do not. So every
term becomes two integers, and only their sums become a number again.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from qoejax.fed.aggregate.base import Aggregator, stateless
from qoejax.types import Params

_LEAST = -90
"""Exponent below which numbers share one scale, so that its inverse stays a float32."""


def exact_sum(weight: Float[Array, " K"], values: Float[Array, "K ..."]) -> Float[Array, "..."]:
    """Sum over K of ``weight`` times value, the same to the bit in any order; float32.

    Each product is rounded to float32. With 2**e just above the largest of the K products at one
    place, all of that place are written as ``(high + low / 2**b) * 2**(e - b)``, where b is 31 less
    the bits of K. Both integers are at most 2**b, so that no sum over K reaches 2**31 whatever the
    values; a product loses less than 2**(e - 2 b), and nothing if K < 2**19 and it is within
    2**(2 b - 24) of the largest (for 100 clients 2**24). The result is rounded to float32 twice.
    Scales are powers of two: they round nothing, so it does not matter how this is compiled.
    """
    count = values.shape[0]
    bits = 31 - count.bit_length()
    if bits < 1:
        raise ValueError(f"{count} clients: their exact sum needs more than 32 bits")
    values = values.astype(jnp.float32)
    empty = jnp.zeros(values.shape[1:], jnp.float32)

    def widen(top: Array, term: tuple[Array, Array]) -> tuple[Array, None]:
        return jnp.maximum(top, jnp.abs(term[0] * term[1])), None

    # Scans, since XLA's reductions over the leading axis are some 40 times slower on CPU.
    top, _ = jax.lax.scan(widen, empty, (weight, values))
    exponent = jnp.maximum(jnp.frexp(top)[1], _LEAST)
    up = jnp.ldexp(jnp.ones_like(empty), bits - exponent)

    def add(sums: tuple[Array, Array], term: tuple[Array, Array]) -> tuple[Any, None]:
        scaled = term[0] * term[1] * up
        high = jnp.round(scaled)
        low = jnp.round((scaled - high) * 2.0**bits)
        return (sums[0] + high.astype(jnp.int32), sums[1] + low.astype(jnp.int32)), None

    zero = jnp.zeros(values.shape[1:], jnp.int32)
    (high, low), _ = jax.lax.scan(add, (zero, zero), (weight, values))
    total = high.astype(jnp.float32) + low.astype(jnp.float32) * 2.0**-bits
    return total * jnp.ldexp(jnp.ones_like(empty), exponent - bits)


def _mean(deltas: Params, weight: Float[Array, " K"]) -> Params:
    total = exact_sum(jnp.ones_like(weight), weight)
    share = jnp.where(total > 0, total, 1.0)
    return jax.tree.map(lambda d: (exact_sum(weight, d) / share).astype(d.dtype), deltas)


def exact_weighted_mean() -> Aggregator:
    """``means.weighted_mean``, in any order of the clients the same to the bit."""
    return stateless(lambda deltas, weight, key: _mean(deltas, weight))


def exact_mean() -> Aggregator:
    """``means.mean``, in any order of the clients the same to the bit."""
    return stateless(
        lambda deltas, weight, key: _mean(deltas, jnp.greater(weight, 0).astype(jnp.float32))
    )
