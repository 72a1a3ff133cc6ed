"""What an aggregator is, and the sums that all of them are made of. JAX.

An aggregator may rely on finite deltas of bounded norm: ``round.server_step`` has zeroed and
unweighted the others.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from qoejax.types import Params


def _unchanged(total: Params, state: Any, key: Array) -> tuple[Params, Any]:
    del key
    return total, state


class Linear(NamedTuple):
    """A rule that is a sum of clipped deltas, so that deltas need not be in memory together.

    ``share(weight) -> coefficient``, both float32[K]: leaving a client out (weight 0) leaves the
    others' in proportion. A delta longer than ``bound`` is scaled to it. ``finish(total, state,
    key) -> (delta, state)`` gets the sum of coefficient times delta.
    """

    share: Callable[[Float[Array, " K"]], Float[Array, " K"]]
    bound: float = math.inf
    finish: Callable[[Params, Any, Array], tuple[Params, Any]] = _unchanged


class Aggregator(NamedTuple):
    """An ``init/update`` pair, and the number of clients without which it promises nothing.

    ``init(params) -> state`` and
    ``update(deltas, state, *, weight, key, params) -> (delta, state)``.

    Leaves of ``deltas`` are [K, *param], ``weight`` is float32[K] and not negative, ``params`` are
    those the clients started from. A client of weight 0 has no influence, the order of clients has
    none beyond rounding, and without any weight the delta is zero. ``key`` serves randomised rules.

    A round in which fewer than ``least`` clients count changes nothing (``round.server_step``), and
    a cohort smaller than that is refused when an engine is built. ``linear`` is the same rule as a
    sum over clients, where it is one.
    """

    init: Callable[[Params], Any]
    update: Callable[..., tuple[Params, Any]]
    least: int = 1
    linear: Linear | None = None


def stateless(
    rule: Callable[[Params, Float[Array, " K"], Array], Params], least: int = 1
) -> Aggregator:
    """The aggregator of a rule ``(deltas, weight, key) -> delta`` that remembers nothing."""

    def update(
        deltas: Params, state: Any, *, weight: Float[Array, " K"], key: Array, params: Params
    ) -> tuple[Params, Any]:
        del params
        return rule(deltas, weight, key), state

    return Aggregator(lambda params: (), update, least)


def linear(
    rule: Linear, least: int = 1, init: Callable[[Params], Any] = lambda params: ()
) -> Aggregator:
    """The aggregator of a rule that is a sum."""

    def update(
        deltas: Params, state: Any, *, weight: Float[Array, " K"], key: Array, params: Params
    ) -> tuple[Params, Any]:
        del params
        coefficient = rule.share(weight) * shrink(rule.bound, squared_norms(deltas))
        return rule.finish(weighted_sum(deltas, coefficient), state, key)

    return Aggregator(init, update, least, rule)


def shrink(bound: float, square: Float[Array, " K"]) -> Float[Array, " K"]:
    """Factors that bring deltas of these squared norms down to the norm ``bound``."""
    if bound == math.inf:
        return jnp.ones_like(square)
    return jnp.minimum(1.0, bound / jnp.maximum(jnp.sqrt(square), np.finfo(np.float32).tiny))


def proportional(weight: Float[Array, " K"]) -> Float[Array, " K"]:
    """Weights that sum to one; zeros without any weight."""
    total = weight.sum()
    return weight / jnp.where(total > 0, total, 1.0)


def weighted_sum(deltas: Params, coefficient: Float[Array, " K"]) -> Params:
    """Sum over clients of ``coefficient`` times delta."""
    # tensordot, since XLA's sums over the leading axis are some 40 times slower on CPU.
    return jax.tree.map(lambda d: jnp.tensordot(coefficient.astype(d.dtype), d, 1), deltas)


def average(deltas: Params, chosen: Bool[Array, " K"]) -> Params:
    """Plain mean of the chosen clients; zero without any."""
    return weighted_sum(deltas, proportional(chosen.astype(jnp.float32)))


def gram(deltas: Params) -> Float[Array, "K K"]:
    """Inner products of all pairs of deltas, symmetric to the bit."""
    flat = [leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(deltas)]
    products = [
        jnp.einsum("ki,li->kl", leaf, leaf, precision="highest").astype(jnp.float32)
        for leaf in flat
    ]
    total = sum(products[1:], products[0])
    return (total + total.T) / 2


def both(chosen: Bool[Array, " K"]) -> Bool[Array, "K K"]:
    """Whether both of a pair are chosen."""
    return chosen[:, None] & chosen[None]


def squared_distances(products: Float[Array, "K K"]) -> Float[Array, "K K"]:
    """Of all pairs, by their inner products."""
    norms = jnp.diagonal(products)
    return jnp.maximum(norms[:, None] + norms[None] - 2 * products, 0.0)


def dots(deltas: Params, other: Params) -> Float[Array, " K"]:
    """Inner product of every delta with ``other``."""
    pairs = zip(jax.tree.leaves(deltas), jax.tree.leaves(other), strict=True)
    products = [
        jnp.einsum("ki,i->k", d.reshape(d.shape[0], -1), o.reshape(-1), precision="highest")
        for d, o in pairs
    ]
    return sum(products[1:], products[0]).astype(jnp.float32)


def squared_norms(deltas: Params) -> Float[Array, " K"]:
    """Squared Euclidean norms of K deltas; not finite where a number is not.

    Row-wise dot products run at memory speed, several times that of a reduction over ``isfinite``.
    """
    flat = [leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(deltas)]
    norms = [jnp.einsum("ki,ki->k", leaf, leaf).astype(jnp.float32) for leaf in flat]
    return jnp.stack(norms, axis=1).sum(axis=1)


def check_byzantine(byzantine: int) -> None:
    """Refuses a number of Byzantine clients that is none."""
    if byzantine < 0:
        raise ValueError(f"byzantine is {byzantine}: expected 0 or more")
