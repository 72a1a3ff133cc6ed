"""Decisions that weigh security against users' experience, per source.

Pure functions of JAX or NumPy scalars and arrays. The utilities are those of a cost model in the
sense of Lee et al. 2002 ("Toward cost-sensitive modeling for intrusion detection and response"),
with the price of a false alarm expressed in MOS points: what a legitimate user loses when blocked.
"""

from typing import NamedTuple

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


def block_threshold(mos: Float[Array, "..."], costs: Costs) -> Float[Array, "..."]:
    """Attack probability above which blocking beats allowing: (MOS - 1) / (MOS - 1 + damage)."""
    return (mos - 1) / (mos - 1 + costs.damage)
