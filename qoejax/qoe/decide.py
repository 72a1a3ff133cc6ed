"""Decisions that weigh security against users' experience, per source.

Pure functions of JAX or NumPy scalars and arrays. The utilities are those of a cost model in the
sense of Lee et al. 2002 ("Toward cost-sensitive modeling for intrusion detection and response"),
with the price of a false alarm expressed in MOS points: what a legitimate user loses when blocked.

``utilities``, ``action`` and ``block_threshold`` judge one source by itself. Sources that share a
bottleneck also decide each other's experience: ``expected_utility`` is of the actions on all of
them, and ``greedy`` looks for good ones.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

ACTIONS = ("allow", "rate_limit", "block")


class Costs(NamedTuple):
    """Prices, all in MOS points of one user.

    ``damage`` is what an admitted attack costs; ``mitigation`` in [0,1] is the share of it that
    rate limiting averts; ``limited`` in [0,1] is the share of the MOS above 1 that a legitimate
    user keeps when limited. A blocked legitimate user has MOS 1, the bottom of the scale.
    """

    damage: float = 5.0
    mitigation: float = 0.6
    limited: float = 0.7


def utilities(
    p_attack: Float[Array, "..."], mos: Float[Array, "..."], costs: Costs
) -> Float[Array, "... 3"]:
    """Expected utility of allow, rate_limit and block for a source.

    Args:
      p_attack: probability that the source attacks, in [0, 1].
      mos: MOS that a legitimate user of this source would have if allowed, in [1, 5].
      costs: prices.
    """
    p_benign = 1 - p_attack
    allow = p_benign * mos - p_attack * costs.damage
    kept = 1 + costs.limited * (mos - 1)
    limit = p_benign * kept - p_attack * costs.damage * (1 - costs.mitigation)
    block = p_benign * jnp.ones_like(mos)
    return jnp.stack([allow, limit, block], axis=-1)


def action(
    p_attack: Float[Array, "..."], mos: Float[Array, "..."], costs: Costs
) -> Int[Array, "..."]:
    """Index into ``ACTIONS`` of the action of greatest expected utility; ties go to the mildest."""
    return jnp.argmax(utilities(p_attack, mos, costs), axis=-1)


def block_threshold(
    mos: Float[Array, "..."], costs: Costs, relief: Float[Array, "..."] | float = 0.0
) -> Float[Array, "..."]:
    """Attack probability from which blocking a source is at least as good as allowing it.

    tau = (c - relief) / (c + damage), with c = MOS - 1, what a legitimate user loses when blocked.
    It is the sign of EU(block) - EU(allow) in ``expected_utility`` at weights of 1, the other
    sources' actions given. Outside [0, 1] the probability does not matter: at 0 or below the relief
    of the others alone pays for blocking, above 1 nothing does.

    Args:
      mos: what a legitimate user of the source has if allowed, in [1, 5].
      costs: of which only the damage counts, which is positive.
      relief: what legitimate users of all other sources gain together when it is blocked, in MOS
        points; 0 where sources do not share a bottleneck.
    """
    lost = mos - 1
    return (lost - relief) / (lost + costs.damage)


class Prices(NamedTuple):
    """What N sources of C classes are worth; class 0 is benign.

    Attributes:
      damage: of an admitted source of each class, in MOS points of one user; 0 for benign.
      averted: share of it that each action averts, in [0, 1].
      weight: of each source's user.
    """

    damage: Float[Array, " C"]
    averted: Float[Array, "C 3"]
    weight: Float[Array, " N"]


def expected_utility(
    probability: Float[Array, "N C"],
    mos: Float[Array, " N"],
    actions: Int[Array, " N"],
    prices: Prices,
) -> Float[Array, ""]:
    """Expected utility of the actions on all sources, in MOS points, summed over sources.

    EU(a) = sum_i w_i p(benign_i) E[MOS_i | benign_i, a] - sum_i sum_k p_i(k) D_k (1 - m_k,a_i)

    The experience of a compromised source's user does not count. With classes that are known
    (probabilities 0 and 1) and MOS that came about, it is the utility itself.

    Args:
      probability: of each source's classes; rows sum to 1.
      mos: what each source's user has under these actions, if legitimate.
      actions: indices into ``ACTIONS``.
      prices: w, D and m.
    """
    admitted = prices.damage[:, None] * (1 - prices.averted)
    damage = (probability * admitted.T[actions]).sum()
    return (prices.weight * probability[:, 0] * mos).sum() - damage


def greedy(value: Callable[[Int[Array, " N"]], Float[Array, ""]], sources: int) -> Array:
    """Actions on N sources: from allowing all, the one change that gains most, until none gains.

    Exact where sources do not interact; else a local optimum, which no change to a single source
    improves. Sources that share a queue do interact: where only two blocked together relieve it,
    neither is blocked. Of equal gains the first source's mildest action is taken, so apart from
    ties the order of sources does not matter.

    Args:
      value: of actions on all sources, indices into ``ACTIONS``; to be traced under ``vmap``.
      sources: N.

    Returns:
      Index into ``ACTIONS`` of each source, i32[N].
    """
    each = jnp.arange(sources)
    options = jnp.arange(len(ACTIONS))
    # changed[i, a]: the change of source i to action a.
    own = jnp.broadcast_to(each[:, None] == each[None, :], (len(ACTIONS), sources, sources))
    own = own.transpose(1, 0, 2)
    new = jnp.broadcast_to(options[None, :, None], own.shape)
    judge = jax.vmap(jax.vmap(value))

    def better(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        actions, best, _ = state
        changed = jnp.where(own, new, jnp.broadcast_to(actions, own.shape))
        gained = judge(changed).reshape(-1)
        first = jnp.argmax(gained)
        # Rounding of the sum must not pass for a gain.
        gains = gained[first] > best + 1e-5 * (1 + jnp.abs(best))
        actions = jnp.where(gains, changed.reshape(-1, sources)[first], actions)
        return actions, jnp.where(gains, gained[first], best), gains

    start = jnp.zeros(sources, each.dtype)
    first = (start, value(start), jnp.bool_(True))
    return jax.lax.while_loop(lambda state: state[2], better, first)[0]
