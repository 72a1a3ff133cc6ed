"""The shared bottleneck: one first-in first-out queue with a finite buffer, in slots. JAX.

Functions take one episode; callers ``vmap`` them. Amounts are in any one unit (bytes here).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

SLOT_S = 0.01

SLOTS = 100
"""Slots of one second."""


class Served(NamedTuple):
    """What the queue did in each of S slots.

    Attributes:
        backlog: amount waiting at the end of the slot.
        loss: share of the slot's arrivals that found the buffer full, in [0, 1].
    """

    backlog: Float[Array, " S"]
    loss: Float[Array, " S"]


def fifo(
    arrivals: Float[Array, " S"],
    service: Float[Array, " S"],
    buffer: Float[Array, ""],
    waiting: Float[Array, ""] | None = None,
) -> Served:
    """A slotted fluid queue.

    With arrivals A and service c in a slot, backlog q and buffer B: q' = clip(q + A - c, 0, B), and
    what exceeds B is lost. So arrivals = served + lost + change of backlog, exactly.

    Args:
        arrivals: amount offered in each slot, non-negative.
        service: amount that can be served in each slot, non-negative.
        buffer: amount that may wait, non-negative.
        waiting: backlog before the first slot, at most the buffer; None for an empty queue.
    """

    def slot(backlog: Array, now: tuple[Array, Array]) -> tuple[Array, Served]:
        offered, able = now
        excess = backlog + offered - able
        lost = jnp.maximum(excess - buffer, 0.0)
        left = jnp.clip(excess, 0.0, buffer)
        return left, Served(left, lost / jnp.maximum(offered, 1e-30))

    first = jnp.zeros_like(buffer) if waiting is None else waiting
    _, served = jax.lax.scan(slot, first, (arrivals, service))
    return served
