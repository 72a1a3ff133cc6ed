import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.qoe import decide, policies

HOSTILE = np.array([0.02, 0.3, 0.6, 0.97], np.float32)
P = jnp.asarray(np.stack([1 - HOSTILE, 0.75 * HOSTILE, 0.25 * HOSTILE], 1))
VOLUME = jnp.array([1.2, 0.1, 0.2, 0.1])
PRICES = decide.Prices(jnp.array([0.0, 3.0, 3.0]), jnp.array([[0.0, 0.5, 1.0]] * 3), jnp.ones(4))


def respond(actions):
    """Users of a link that source 0 fills."""
    share = jnp.array([1.0, 0.5, 0.0])[actions]
    full = jnp.where((share * VOLUME).sum() > 1.0, 1.5, 4.0)
    return jnp.array([1.0, 0.3, 0.0])[actions] * (full - 1) + 1


@functools.partial(jax.jit, static_argnums=0)
def chosen_by(name, p, prices, knobs):
    return policies.POLICIES[name](policies.View(p, respond), prices, knobs)


def run(name, *knobs, p=P, prices=PRICES):
    return list(np.asarray(chosen_by(name, p, prices, jnp.array(knobs))))


def test_allow_allows():
    assert run("allow", 0.0, 0.0) == [0, 0, 0, 0]


def test_thresholds_are_in_log_odds():
    assert run("ids", 0.0, 0.0) == [0, 0, 2, 2]
    assert run("ids", 3.0, 0.0) == [0, 0, 0, 2]
    assert run("ids", 3.0, 3.0) == [0, 0, 1, 2]
    assert run("ids", -9.0, 0.0) == [2, 2, 2, 2]


@pytest.mark.parametrize("price", [0.5, 3.0])
def test_cost_bayes_is_the_least_expected_cost_of_each_source(price):
    loss = np.array([0.0, price * 0.4, price])
    costs = np.outer(1 - HOSTILE, loss) + np.outer(HOSTILE, 3.0 * np.array([1.0, 0.5, 0.0]))
    assert run("cost_bayes", price, 0.6) == list(costs.argmin(1))


def test_experience_alone_ignores_who_attacks():
    """It stops the source that fills the link, which nobody suspects, and nobody else."""
    assert run("qoe_only", 0.0, 0.0)[1:] == [0, 0, 0]
    assert run("qoe_only", 0.0, 0.0)[0] > 0
    assert run("qoe_only", 0.0, 0.0, p=P[::-1]) == run("qoe_only", 0.0, 0.0)
    assert run("qoe_only", 50.0, 50.0) == [0, 0, 0, 0]


def test_weighing_stops_suspects_and_what_congests():
    chosen = run("joint", 0.0, 0.0)
    assert chosen[0] > 0
    assert chosen[3] == 2
    # Without damage, a suspect who leaves room is let through.
    harmless = PRICES._replace(damage=jnp.zeros(3))
    assert run("joint", 0.0, 0.0, prices=harmless)[3] == 0
    # A price on intervening spares all, a large shift none.
    assert run("joint", 0.0, 50.0) == [0, 0, 0, 0]
    assert run("joint", 16.0, 0.0)[1:] == [2, 2, 2]


def test_a_shift_moves_log_odds_and_keeps_the_kinds_of_attack():
    moved = policies.shifted(P, jnp.float32(1.5))
    np.testing.assert_allclose(moved.sum(1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(policies.log_odds(moved), policies.log_odds(P) + 1.5, rtol=1e-4)
    np.testing.assert_allclose(moved[:, 1] / moved[:, 2], 3.0, rtol=1e-4)


def test_no_policy_is_tuned_more_than_another():
    assert policies.POLICIES.keys() == policies.KNOBS.keys()
    tuned = {len(policies.KNOBS[name]) for name in (*policies.RIVALS, "joint")}
    assert len(tuned) == 1
    for table in policies.KNOBS.values():
        assert len(np.unique(table, axis=0)) == len(table)
