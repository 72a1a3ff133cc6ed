"""Rules that look at each coordinate on its own. JAX."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from qoejax.fed.aggregate import order
from qoejax.fed.aggregate.base import Aggregator, check_byzantine, stateless
from qoejax.types import Params


def coordinate_median(byzantine: int = 0) -> Aggregator:
    """Median of every coordinate, every client counting the same (Yin et al. 2018, definition 1).

    Breaks down at one half: needs 2 f + 1 clients for f Byzantine ones.
    """
    check_byzantine(byzantine)

    def rule(deltas: Params, weight: Float[Array, " K"], key: Array) -> Params:
        del key
        present = weight > 0
        return order.by_coordinate(lambda values: order.median(values, present), deltas)

    return stateless(rule, 2 * byzantine + 1)


def trimmed_mean(byzantine: int = 0) -> Aggregator:
    """Mean of every coordinate without its f largest and f smallest values (Yin et al. 2018).

    Their definition 2 with beta = f / n; every client counts the same. Breaks down at f of n, which
    is at most one half: needs 2 f + 1 clients.
    """
    check_byzantine(byzantine)

    def rule(deltas: Params, weight: Float[Array, " K"], key: Array) -> Params:
        del key
        present = weight > 0
        most = jnp.maximum(present.sum(dtype=jnp.int32) - 1, 0) // 2
        cut = jnp.minimum(byzantine, most)
        return order.by_coordinate(lambda values: order.trimmed_mean(values, present, cut), deltas)

    return stateless(rule, 2 * byzantine + 1)
