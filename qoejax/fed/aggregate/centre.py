"""Rules that find a centre by giving every delta a coefficient. JAX.

The centre is a linear combination of the deltas, so that iterations run on K coefficients and on
inner products; the deltas themselves are read twice, whatever the number of iterations.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from qoejax.fed.aggregate import order
from qoejax.fed.aggregate.base import (
    Aggregator,
    Linear,
    both,
    check_byzantine,
    dots,
    gram,
    linear,
    proportional,
    squared_norms,
    stateless,
    weighted_sum,
)
from qoejax.types import Params


def geometric_median(
    byzantine: int = 0, smoothing: float = 1e-6, iterations: int = 100, tolerance: float = 1e-6
) -> Aggregator:
    """Weighted geometric median by smoothed Weiszfeld steps (Pillutla et al. 2022).

    Clients count by their weight. Breaks down at one half of the weight: needs 2 f + 1 clients of
    equal weight for f Byzantine ones.

    Args:
      byzantine: Byzantine clients expected, f.
      smoothing: Distances below this count as this.
      iterations: Steps at most; a far outlier needs more than the three of the paper.
      tolerance: Stops when all coefficients together move less.
    """
    check_byzantine(byzantine)
    if smoothing <= 0 or iterations < 1:
        raise ValueError(
            f"expected smoothing > 0 and iterations >= 1, got {smoothing}, {iterations}"
        )

    def rule(deltas: Params, weight: Float[Array, " K"], key: Array) -> Params:
        del key
        present = weight > 0
        products = jnp.where(both(present), gram(deltas), 0.0)
        share = weight / jnp.where(present.any(), weight.sum(), 1.0)

        def step(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            number, c, _ = carry
            cross = products @ c
            distance = jnp.sqrt(jnp.maximum(jnp.diagonal(products) - 2 * cross + c @ cross, 0.0))
            pull = share / jnp.maximum(distance, smoothing)
            new = pull / jnp.where(present.any(), pull.sum(), 1.0)
            return number + 1, new, jnp.abs(new - c).sum()

        def unfinished(carry: tuple[Array, Array, Array]) -> Bool[Array, ""]:
            number, _, moved = carry
            return (number < iterations) & (moved > tolerance)

        _, c, _ = jax.lax.while_loop(unfinished, step, (jnp.int32(0), share, jnp.float32(1)))
        return weighted_sum(deltas, c)

    return stateless(rule, 2 * byzantine + 1)


def centred_clipping(byzantine: int = 0, radius: float = 0.0, iterations: int = 3) -> Aggregator:
    """Mean of the deltas clipped to a ball around the last result (Karimireddy et al. 2021).

    Every client counts the same. The first round starts at 0.

    Args:
      byzantine: Byzantine clients expected, f; needs 2 f + 1 clients. The paper proves a bound up
        to a share of about one tenth only.
      radius: Of the ball; 0 takes the median distance of the round's deltas instead.
      iterations: Clipping steps of a round, each around the centre of the one before.
    """
    check_byzantine(byzantine)
    if radius < 0 or iterations < 1:
        raise ValueError(f"expected radius >= 0 and iterations >= 1, got {radius}, {iterations}")

    def update(
        deltas: Params, state: Any, *, weight: Float[Array, " K"], key: Array, params: Params
    ) -> tuple[Params, Any]:
        del key, params
        present = weight > 0
        products = jnp.where(both(present), gram(deltas), 0.0)
        old = jnp.where(present, dots(deltas, state), 0.0)
        old_square = squared_norms(jax.tree.map(lambda s: s[None], state))[0]
        share = present.astype(jnp.float32)
        share /= jnp.maximum(share.sum(), 1.0)

        def step(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            """The centre is ``a`` times the last result plus ``c`` times the deltas."""
            a, c = carry
            cross = products @ c
            square = a * a * old_square + 2 * a * (c @ old) + c @ cross
            gap = jnp.diagonal(products) - 2 * (a * old + cross) + square
            pull = share * _clip(jnp.sqrt(jnp.maximum(gap, 0.0)), radius, present)
            stay = 1 - pull.sum()
            return a * stay, c * stay + pull

        a, c = jax.lax.fori_loop(0, iterations, step, (jnp.float32(1), jnp.zeros_like(share)))
        a = jnp.where(present.any(), a, 0.0)
        moved = weighted_sum(deltas, c)
        centre = jax.tree.map(lambda s, m: a.astype(s.dtype) * s + m, state, moved)
        return centre, centre

    return Aggregator(
        lambda params: jax.tree.map(jnp.zeros_like, params), update, 2 * byzantine + 1
    )


def norm_bounding(byzantine: int = 0, bound: float = 0.0) -> Aggregator:
    """Weighted mean of deltas clipped to a norm (Sun et al. 2019).

    It bounds what a Byzantine client can do in a round, and excludes nobody: f of n clients still
    move the result by up to f / n of the bound.

    Args:
      byzantine: Byzantine clients expected, f; needs 2 f + 1 clients.
      bound: Of the norm; 0 takes the median norm of the round's deltas instead.
    """
    check_byzantine(byzantine)
    if bound < 0:
        raise ValueError(f"expected bound >= 0, got {bound}")

    least = 2 * byzantine + 1
    if bound > 0:
        return linear(Linear(proportional, bound), least)

    def rule(deltas: Params, weight: Float[Array, " K"], key: Array) -> Params:
        del key
        norms = jnp.sqrt(squared_norms(deltas))
        return weighted_sum(deltas, proportional(weight) * _clip(norms, bound, weight > 0))

    return stateless(rule, least)


def fltrust(
    byzantine: int = 0, root_delta: Callable[[Params, Array, Array], Params] | None = None
) -> Aggregator:
    """Trust by the angle to the server's own delta (Cao et al. 2021).

    A client's delta is scaled to the norm of the server's and weighted by the cosine between the
    two, or 0 where that is negative. Tolerates any number of Byzantine clients short of all.

    Args:
      byzantine: Byzantine clients expected, f; needs f + 1 clients.
      root_delta: ``(params, round, key) -> delta``: what the server makes of its root examples,
        by the clients' own procedure. The state counts the rounds.
    """
    check_byzantine(byzantine)
    if root_delta is None:
        raise ValueError("fltrust needs a delta of the server's own root examples (root_delta)")

    def update(
        deltas: Params, state: Any, *, weight: Float[Array, " K"], key: Array, params: Params
    ) -> tuple[Params, Any]:
        present = weight > 0
        root = root_delta(params, state, key)
        root_norm = jnp.sqrt(squared_norms(jax.tree.map(lambda r: r[None], root))[0])
        norms = jnp.where(present, jnp.sqrt(squared_norms(deltas)), 1.0)
        scaled = root_norm / jnp.where(norms > 0, norms, 1.0)
        scale = jnp.where(root_norm > 0, root_norm * root_norm, 1.0)
        cosine = jnp.where(present, dots(deltas, root) * scaled / scale, 0.0)
        trust = jnp.maximum(cosine, 0.0)
        total = trust.sum()
        return weighted_sum(deltas, trust * scaled / jnp.where(total > 0, total, 1.0)), state + 1

    return Aggregator(lambda params: jnp.zeros((), jnp.int32), update, byzantine + 1)


def _clip(
    norms: Float[Array, " K"], bound: float, present: Bool[Array, " K"]
) -> Float[Array, " K"]:
    """Factors that bring norms down to ``bound``, or to their median where that is 0."""
    limit = order.median(norms[:, None], present)[0] if bound == 0 else jnp.float32(bound)
    factor = jnp.minimum(1.0, limit / jnp.where(norms > 0, norms, 1.0))
    return jnp.where(norms > 0, factor, 1.0)
