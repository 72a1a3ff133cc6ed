"""Rules that choose clients and average them. JAX.

All of them need only the K x K inner products of the deltas, so that the deltas are read twice,
whatever their size: once for the products, once for the mean. Ties are broken by the norm of the
delta, never by its place.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from qoejax.data.cohort import sample
from qoejax.fed.aggregate import order
from qoejax.fed.aggregate.base import (
    Aggregator,
    average,
    both,
    check_byzantine,
    gram,
    squared_distances,
    stateless,
)
from qoejax.types import Params


def krum(byzantine: int = 0) -> Aggregator:
    """The delta that is nearest to its n - f - 2 nearest others (Blanchard et al. 2017).

    Needs n > 2 f + 2 clients for f Byzantine ones. One client's delta is all that is left of a
    round, which costs accuracy where clients differ.
    """
    check_byzantine(byzantine)

    def rule(deltas: Params, weight: Float[Array, " K"], key: Array) -> Params:
        del key
        present = weight > 0
        norms, distance = _geometry(deltas, present)
        score = _krum_scores(distance, present, byzantine)
        return average(deltas, _first(score, norms, present, jnp.int32(1)))

    return stateless(rule, 2 * byzantine + 3)


def multi_krum(byzantine: int = 0) -> Aggregator:
    """Mean of the n - f deltas with the best Krum scores (Blanchard et al. 2017).

    Needs n > 2 f + 2 clients for f Byzantine ones.
    """
    check_byzantine(byzantine)

    def rule(deltas: Params, weight: Float[Array, " K"], key: Array) -> Params:
        del key
        present = weight > 0
        norms, distance = _geometry(deltas, present)
        score = _krum_scores(distance, present, byzantine)
        keep = jnp.maximum(present.sum(dtype=jnp.int32) - byzantine, 1)
        return average(deltas, _first(score, norms, present, keep))

    return stateless(rule, 2 * byzantine + 3)


def bulyan(byzantine: int = 0) -> Aggregator:
    """Krum until n - 2 f clients are chosen; then, in each coordinate, the mean of the n - 4 f
    chosen values nearest to their median (El Mhamdi et al. 2018).

    Needs n >= 4 f + 3 clients for f Byzantine ones, and bounds their pull in every coordinate.
    """  # noqa: D205
    check_byzantine(byzantine)

    def rule(deltas: Params, weight: Float[Array, " K"], key: Array) -> Params:
        del key
        present = weight > 0
        n = present.sum(dtype=jnp.int32)
        chosen = _repeated_krum(deltas, present, byzantine, jnp.maximum(n - 2 * byzantine, 1))
        keep = jnp.maximum(n - 4 * byzantine, 1)
        return order.by_coordinate(
            lambda values: order.mean_around_median(values, chosen, keep), deltas
        )

    return stateless(rule, 4 * byzantine + 3)


def dnc(byzantine: int = 0, iterations: int = 1, coordinates: int = 10_000) -> Aggregator:
    """Divide and conquer (Shejwalkar and Houmansadr 2021), with filtering fraction c = 1.

    The f deltas that stick out most along the top singular vector of a random subset of
    coordinates are removed, and the rest averaged; of several iterations only what all keep.
    Needs 2 f + 1 clients for f Byzantine ones. Every leaf gives its share of the coordinates.
    """
    check_byzantine(byzantine)
    if iterations < 1 or coordinates < 1:
        raise ValueError(
            f"expected iterations and coordinates of 1 or more, got {iterations}, {coordinates}"
        )

    def rule(deltas: Params, weight: Float[Array, " K"], key: Array) -> Params:
        present = weight > 0
        keep = jnp.maximum(present.sum(dtype=jnp.int32) - byzantine, 1)

        def one(number: Array) -> Bool[Array, " K"]:
            part = _some(deltas, jax.random.fold_in(key, number), coordinates)
            centred = jnp.where(present[:, None], part - average(part, present)[None], 0.0)
            products = gram(centred)
            # The projections on the top right singular vector, squared and up to a factor.
            outlier = jnp.square(jnp.linalg.eigh(products)[1][:, -1])
            return _first(outlier, jnp.diagonal(products), present, keep)

        kept = jax.lax.map(one, jnp.arange(iterations)).all(axis=0)
        return average(deltas, kept)

    return stateless(rule, 2 * byzantine + 1)


def _geometry(
    deltas: Params, present: Bool[Array, " K"]
) -> tuple[Float[Array, " K"], Float[Array, "K K"]]:
    """Squared norms, and squared distances of pairs: infinite to oneself and to absent clients."""
    products = gram(deltas)
    pairs = both(present) & ~jnp.eye(present.shape[0], dtype=bool)
    return jnp.diagonal(products), jnp.where(pairs, squared_distances(products), jnp.inf)


def _krum_scores(
    distance: Float[Array, "K K"], present: Bool[Array, " K"], byzantine: int
) -> Float[Array, " K"]:
    """Sum of each client's n - f - 2 smallest squared distances; at least one of them."""
    n = present.sum(dtype=jnp.int32)
    count = jnp.clip(n - byzantine - 2, 1, jnp.maximum(n - 1, 1))
    # Distances are symmetric: a column is a client's own, as order statistics want it.
    keys = order.ordered(distance, present)
    bound, (nearer,), _ = order.statistics(keys, (count - 1)[None])
    total = jnp.where(keys < bound, distance, 0.0).sum(axis=0)
    return total + (count - nearer).astype(jnp.float32) * order.restored(bound[0])


def _first(
    score: Float[Array, " K"],
    norms: Float[Array, " K"],
    present: Bool[Array, " K"],
    count: Int[Array, ""],
) -> Bool[Array, " K"]:
    """The ``count`` present clients of the smallest score; of equals, those of smaller norm."""
    by_rank = jnp.lexsort((norms, score, ~present))
    rank = jnp.zeros_like(by_rank).at[by_rank].set(jnp.arange(len(by_rank), dtype=by_rank.dtype))
    return present & (rank < count)


def _repeated_krum(
    deltas: Params, present: Bool[Array, " K"], byzantine: int, count: Int[Array, ""]
) -> Bool[Array, " K"]:
    """``count`` clients, each the Krum of those that are left."""
    norms, distance = _geometry(deltas, present)

    def choose(_: Array, left: Bool[Array, " K"]) -> Bool[Array, " K"]:
        score = _krum_scores(distance, left, byzantine)
        return left & ~_first(score, norms, left, jnp.int32(1))

    return present & ~jax.lax.fori_loop(0, count, choose, present)


def _some(deltas: Params, key: Key[Array, ""], size: int) -> Float[Array, "K N"]:
    """About ``size`` random coordinates of each client, the same for all; all where not more."""
    flat = [leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(deltas)]
    total = sum(leaf.shape[1] for leaf in flat)
    if total <= size:
        return jnp.concatenate(flat, axis=1)
    parts = []
    for i, leaf in enumerate(flat):
        n = leaf.shape[1]
        index = sample(jax.random.fold_in(key, i), n, -(-n * size // total))
        parts.append(leaf[:, index])
    return jnp.concatenate(parts, axis=1)
