import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.qoe import decide


def test_utilities_by_hand():
    costs = decide.Costs(damage=5.0, mitigation=0.6, limited=0.5)
    got = decide.utilities(jnp.float32(0.2), jnp.float32(4.0), costs)
    want = [0.8 * 4 - 0.2 * 5, 0.8 * 2.5 - 0.2 * 5 * 0.4, 0.8]
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_certain_sources():
    p, mos = jnp.array([0.0, 1.0]), jnp.array([4.0, 4.0])
    actions = decide.action(p, mos, decide.Costs())
    assert [decide.ACTIONS[a] for a in np.asarray(actions)] == ["allow", "block"]


def test_actions_grow_harder_with_suspicion():
    p = jnp.linspace(0, 1, 101)
    actions = np.asarray(decide.action(p, jnp.full(101, 4.0), decide.Costs()))
    assert (np.diff(actions) >= 0).all()
    assert set(actions) == {0, 1, 2}


@pytest.mark.parametrize("mos", [1.5, 3.0, 4.4])
def test_threshold_is_where_blocking_equals_allowing(mos):
    costs = decide.Costs(damage=2.0)
    tau = decide.block_threshold(jnp.float32(mos), costs)
    u = decide.utilities(tau, jnp.float32(mos), costs)
    np.testing.assert_allclose(u[0], u[2], atol=1e-6)
    assert (
        decide.utilities(tau + 0.05, jnp.float32(mos), costs)[2]
        > (decide.utilities(tau + 0.05, jnp.float32(mos), costs)[0])
    )


SOURCES, CLASSES = 4, 3
EVERY = np.array(list(itertools.product(range(3), repeat=SOURCES)), np.int32)


def draw(rng):
    """Probabilities, prices, and the volumes of four sources that share a link."""
    p = rng.dirichlet([2.0, 0.6, 0.6], SOURCES)
    averted = [[0.0, rng.uniform(0.2, 0.8), 1.0]] * CLASSES
    damage, weight = [0.0, *rng.uniform(0.5, 6.0, CLASSES - 1)], rng.uniform(0.5, 2.0, SOURCES)
    prices = decide.Prices(*(jnp.asarray(v, jnp.float32) for v in (damage, averted, weight)))
    return (
        jnp.asarray(p, jnp.float32),
        prices,
        jnp.asarray(rng.gamma(0.7, 0.3, SOURCES), jnp.float32),
    )


def respond(volume, actions):
    """Users of a link that is the worse the fuller it is."""
    share = jnp.array([1.0, 0.5, 0.0])[actions]
    full = 1.0 + 3.4 * jax.nn.sigmoid(6.0 * (1.0 - (share * volume).sum()))
    return 1.0 + (full - 1.0) * jnp.array([1.0, 0.4, 0.0])[actions]


@jax.jit
def shared(p, prices, volume):
    """MOS and expected utility of every combination of actions, and what greedy chooses."""

    def value(actions):
        return decide.expected_utility(p, respond(volume, actions), actions, prices)

    mos = jax.vmap(lambda a: respond(volume, a))(EVERY)
    return mos, jax.vmap(value)(jnp.asarray(EVERY)), decide.greedy(value, SOURCES)


@jax.jit
def apart(p, prices, table):
    """The same where an action decides its own source's MOS only."""

    def value(actions):
        mos = table[jnp.arange(SOURCES), actions]
        return decide.expected_utility(p, mos, actions, prices)

    return jax.vmap(value)(jnp.asarray(EVERY)), decide.greedy(value, SOURCES)


def utility_by_hand(p, mos, actions, prices):
    """The formula with loops, in float64."""
    total = 0.0
    for i, a in enumerate(actions):
        total += float(prices.weight[i]) * float(p[i, 0]) * float(mos[i])
        for k in range(p.shape[1]):
            total -= float(p[i, k]) * float(prices.damage[k]) * (1 - float(prices.averted[k, a]))
    return total


def test_expected_utility_is_the_formula():
    case = draw(np.random.default_rng(0))
    p, prices = (jax.device_get(part) for part in case[:2])
    mos, values, _ = jax.device_get(shared(*case))
    for n in range(0, len(EVERY), 7):
        assert values[n] == pytest.approx(utility_by_hand(p, mos[n], EVERY[n], prices), rel=1e-5)


def test_threshold_is_the_sign_of_blocking_against_allowing_given_the_others():
    rng = np.random.default_rng(1)
    rows, sides = [], set()
    for _ in range(30):
        _, _, volume = draw(rng)
        hostile, damage = rng.uniform(0, 1, SOURCES), rng.uniform(0.5, 6)
        p = np.stack([1 - hostile, hostile, 0 * hostile], 1).astype(np.float32)
        averted = np.array([[0.0, 0.5, 1.0]] * CLASSES, np.float32)
        harm = np.array([0.0, damage, 0.0], np.float32)
        prices = decide.Prices(*(jnp.asarray(v) for v in (harm, averted, np.ones(4, np.float32))))
        mos, values, _ = jax.device_get(shared(jnp.asarray(p), prices, volume))
        allowed = int(rng.choice(np.flatnonzero(EVERY[:, 0] == 0)))
        blocked = allowed + 2 * 3 ** (SOURCES - 1)
        assert list(EVERY[blocked]) == [2, *EVERY[allowed, 1:]]
        relief = ((1 - hostile) * (mos[blocked] - mos[allowed]))[1:].sum()
        costs = decide.Costs(damage=float(damage))
        tau = decide.block_threshold(jnp.asarray(mos[allowed][0]), costs, jnp.float32(relief))
        rows.append((hostile[0] >= tau) == (values[blocked] >= values[allowed]))
        sides.add((bool(values[blocked] >= values[allowed]), bool(relief > 0.3), bool(tau < 0)))
    assert all(rows)
    assert len(sides) > 3  # both signs, with and without relief, or the test shows nothing


def test_greedy_is_exact_where_sources_do_not_interact():
    rng = np.random.default_rng(2)
    for _ in range(6):
        p, prices, _ = draw(rng)
        table = jnp.asarray(rng.uniform(1, 5, (SOURCES, 3)), jnp.float32)
        values, chosen = jax.device_get(apart(p, prices, table))
        assert tuple(chosen) == tuple(EVERY[values.argmax()])


def test_greedy_on_a_shared_link_is_a_local_optimum_and_near_the_best():
    rng = np.random.default_rng(3)
    lost = []
    for _ in range(40):
        _, values, chosen = jax.device_get(shared(*draw(rng)))
        got = values[(chosen == EVERY).all(1)][0]
        near = (chosen != EVERY).sum(1) == 1
        assert (values[near] <= got + 1e-4 * (1 + abs(got))).all()
        assert got >= values[0]
        lost.append((values.max() - got) / (values.max() - np.median(values)))
    assert np.mean(lost) < 0.05


def test_greedy_does_not_see_what_two_changes_would_gain_together():
    def value(actions):
        blocked = (actions == 2).sum()
        return jnp.where(blocked >= 2, 10.0, 0.0) - blocked.astype(jnp.float32)

    assert list(jax.jit(lambda: decide.greedy(value, 3))()) == [0, 0, 0]
    assert float(value(jnp.array([2, 2, 0]))) > float(value(jnp.array([0, 0, 0])))


def test_the_order_of_sources_does_not_matter():
    p, prices, _ = draw(np.random.default_rng(4))
    volume = jnp.array([0.9, 0.3, 0.5, 0.1])
    order = np.array([3, 0, 1, 2])
    plain = np.asarray(shared(p, prices, volume)[2])
    moved = shared(p[order], prices._replace(weight=prices.weight[order]), volume[order])[2]
    np.testing.assert_array_equal(plain[order], np.asarray(moved))
    assert len(set(plain)) > 1
