"""Policies that choose an action for each of N sources on one bottleneck: a table of one signature.

``policy(view, prices, knobs) -> actions``: the view is what a policy believes, the prices are what
it is judged by, and the two knobs are for tuning on episodes kept apart. Each tuned policy has
the same number of settings in ``KNOBS``, so none gets more tuning than another. JAX.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import jax.scipy.special
import numpy as np
from jaxtyping import Array, Float, Int

from qoejax.qoe import decide
from qoejax.qoe.decide import Prices


class View(NamedTuple):
    """What a policy believes of N sources.

    Attributes:
        probability: of each source's C classes; class 0 is benign.
        respond: ``respond(actions[N]) -> MOS[N]``, what each source's user would have.
    """

    probability: Float[Array, "N C"]
    respond: Callable[[Int[Array, " N"]], Float[Array, " N"]]


Policy = Callable[[View, Prices, Float[Array, " 2"]], Int[Array, " N"]]


def log_odds(probability: Float[Array, "N C"]) -> Float[Array, " N"]:
    """Log-odds of each source's being compromised, within [-16, 16]."""
    hostile = jnp.clip(1.0 - probability[:, 0], 1e-7, 1.0 - 1e-7)
    return jax.scipy.special.logit(hostile)


def shifted(probability: Float[Array, "N C"], shift: Float[Array, ""]) -> Float[Array, "N C"]:
    """Probabilities with ``shift`` added to the log-odds of being compromised."""
    factor = jnp.where(jnp.arange(probability.shape[1]) > 0, jnp.exp(shift), 1.0)
    raised = probability * jnp.broadcast_to(factor, probability.shape)
    return raised / raised.sum(1, keepdims=True)


def allow(view: View, prices: Prices, knobs: Float[Array, " 2"]) -> Int[Array, " N"]:
    """Everything is allowed."""
    del prices, knobs
    return jnp.zeros(view.probability.shape[0], jnp.int32)


def ids(view: View, prices: Prices, knobs: Float[Array, " 2"]) -> Int[Array, " N"]:
    """A detector with constant thresholds: block above one, limit above a lower one.

    Args:
        view: of which the probabilities are used.
        prices: not used; tuning is by them.
        knobs: threshold of blocking, in log-odds; how much lower that of limiting is.
    """
    del prices
    odds = log_odds(view.probability)
    limit = (odds >= knobs[0] - knobs[1]).astype(jnp.int32)
    return jnp.where(odds >= knobs[0], 2, limit)


def cost_bayes(view: View, prices: Prices, knobs: Float[Array, " 2"]) -> Int[Array, " N"]:
    """Cost-sensitive Bayes decision of each source by itself, with a constant price of alarms.

    Args:
        view: of which the probabilities are used.
        prices: of which damage and what is averted are used.
        knobs: what blocking costs a legitimate user, in MOS points; share of it that limiting
            spares.
    """
    loss = jnp.stack([jnp.zeros(()), knobs[0] * (1.0 - knobs[1]), knobs[0]])
    damage = view.probability @ (prices.damage[:, None] * (1.0 - prices.averted))
    return jnp.argmin(view.probability[:, :1] * loss[None] + damage, axis=1).astype(jnp.int32)


def qoe_only(view: View, prices: Prices, knobs: Float[Array, " 2"]) -> Int[Array, " N"]:
    """Greedy for the sum of all users' MOS, whoever they are.

    Args:
        view: of which the response is used.
        prices: of which the weights are used.
        knobs: price of each source that is blocked, and limited, in MOS points.
    """

    def value(actions: Int[Array, " N"]) -> Float[Array, ""]:
        paid = jnp.stack([jnp.zeros(()), knobs[1], knobs[0]])[actions]
        return (prices.weight * view.respond(actions) - paid).sum()

    return decide.greedy(value, view.probability.shape[0])


def weigh(view: View, prices: Prices, knobs: Float[Array, " 2"]) -> Int[Array, " N"]:
    """Greedy for ``decide.expected_utility``.

    Args:
        view: all of it.
        prices: all of them.
        knobs: shift of the log-odds of being compromised; price in MOS points of each source that
            is blocked, half of it of one that is limited. At (0, 0) the rule is as it is derived.
    """
    probability = shifted(view.probability, knobs[0])

    def value(actions: Int[Array, " N"]) -> Float[Array, ""]:
        paid = knobs[1] * jnp.array([0.0, 0.5, 1.0])[actions].sum()
        return decide.expected_utility(probability, view.respond(actions), actions, prices) - paid

    return decide.greedy(value, probability.shape[0])


POLICIES: dict[str, Policy] = {
    "allow": allow,
    "ids": ids,
    "cost_bayes": cost_bayes,
    "qoe_only": qoe_only,
    # These three follow one rule and differ in what they believe: classes and MOS(x, a) of two
    # separate models; classes and MOS_k(x, a) of one; the truth.
    "separate_product": weigh,
    "joint": weigh,
    "oracle": weigh,
}

RIVALS = ("ids", "cost_bayes", "qoe_only", "separate_product")
"""What ``joint`` has to beat."""


def _grid(*axes: tuple[float, ...] | np.ndarray) -> np.ndarray:
    return np.array(list(itertools.product(*axes)), np.float32)


_WEIGH = _grid((-0.75, 0.0, 0.5, 1.0, 1.75, 2.5), (0.0, 0.4, 0.8, 1.6))

KNOBS: dict[str, np.ndarray] = {
    "allow": np.zeros((1, 2), np.float32),
    "ids": _grid(np.arange(-3.0, 3.0, 0.5), (0.0, 1.5)),
    "cost_bayes": _grid(np.geomspace(0.3, 10.0, 8), (0.0, 0.4, 0.8)),
    "qoe_only": _grid((-1.5, -1.0, -0.5, 0.0, 0.5, 1.0), (-0.6, -0.3, 0.0, 0.5)),
    "separate_product": _WEIGH,
    "joint": _WEIGH,
    "oracle": np.zeros((1, 2), np.float32),
}
"""Settings [24, 2] that tuning tries; one for what is not tuned."""
