"""From the clients' deltas to one. JAX.

An aggregator is an ``init/update`` pair in one literal table; adding one costs a function and an
entry. It may rely on finite deltas: ``round.server_step`` has zeroed and unweighted the others.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from qoejax.types import Params


class Aggregator(NamedTuple):
    """``init(params) -> state`` and ``update(deltas, state, *, weight, key) -> (delta, state)``.

    Leaves of ``deltas`` are [K, *param], ``weight`` is float32[K] and not negative. A client of
    weight 0 has no influence, the order of clients has none beyond rounding, and without any
    weight the delta is zero. ``key`` serves randomised rules.

    A round in which fewer than ``least`` clients count changes nothing (``round.server_step``).
    """

    init: Callable[[Params], Any]
    update: Callable[..., tuple[Params, Any]]
    least: int = 1


def weighted_sum(deltas: Params, coefficient: Float[Array, " K"]) -> Params:
    """Sum over clients of ``coefficient`` times delta."""
    # tensordot, since XLA's sums over the leading axis are some 40 times slower on CPU.
    return jax.tree.map(lambda d: jnp.tensordot(coefficient.astype(d.dtype), d, 1), deltas)


def squared_norms(deltas: Params) -> Float[Array, " K"]:
    """Squared norms of K deltas: not finite where a number is not, or the norm is past 1e19.

    Row-wise dot products run at memory speed, several times that of a reduction over ``isfinite``.
    """
    flat = [leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(deltas)]
    norms = [jnp.einsum("ki,ki->k", leaf, leaf).astype(jnp.float32) for leaf in flat]
    return jnp.stack(norms, axis=1).sum(axis=1)


def _combine(deltas: Params, weight: Float[Array, " K"]) -> Params:
    """Sum of ``weight`` times delta, divided by the sum of ``weight``; zero without weight."""
    total = weight.sum()
    return weighted_sum(deltas, weight / jnp.where(total > 0, total, 1.0))


def weighted_mean() -> Aggregator:
    """Mean with the cohort's weights, by default the clients' numbers of rows (FedAvg)."""

    def update(
        deltas: Params, state: Any, *, weight: Float[Array, " K"], key: Array
    ) -> tuple[Params, Any]:
        del key
        return _combine(deltas, weight), state

    return Aggregator(lambda params: (), update)


def mean() -> Aggregator:
    """Mean in which every client with any weight counts the same."""

    def update(
        deltas: Params, state: Any, *, weight: Float[Array, " K"], key: Array
    ) -> tuple[Params, Any]:
        del key
        return _combine(deltas, (weight > 0).astype(weight.dtype)), state

    return Aggregator(lambda params: (), update)


AGGREGATORS: dict[str, Callable[..., Aggregator]] = {
    "weighted_mean": weighted_mean,
    "mean": mean,
}
