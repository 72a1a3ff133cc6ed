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
ALL = np.array(list(itertools.product(range(3), repeat=SOURCES)))


def random_case(rng, sources=SOURCES):
    """Probabilities, prices, and a response of users who share a link: (p, prices, respond)."""
    p = rng.dirichlet([2.0, 0.6, 0.6], sources).astype(np.float32)
    averted = np.array([[0.0, rng.uniform(0.2, 0.8), 1.0]] * CLASSES, np.float32)
    prices = decide.Prices(
        jnp.array([0.0, *rng.uniform(0.5, 6.0, CLASSES - 1)], jnp.float32),
        jnp.asarray(averted),
        jnp.asarray(rng.uniform(0.5, 2.0, sources), jnp.float32),
    )
    volume = jnp.asarray(rng.gamma(0.7, 0.3, sources), jnp.float32)

    def respond(actions):
        share = jnp.array([1.0, 0.5, 0.0])[actions]
        full = 1.0 + 3.4 * jax.nn.sigmoid(6.0 * (1.0 - (share * volume).sum()))
        return 1.0 + (full - 1.0) * jnp.array([1.0, 0.4, 0.0])[actions]

    return p, prices, respond


def utility_by_hand(p, mos, actions, prices):
    """The formula with loops, in float64."""
    total = 0.0
    for i, a in enumerate(actions):
        total += float(prices.weight[i]) * float(p[i, 0]) * float(mos[i])
        for k in range(p.shape[1]):
            total -= float(p[i, k] * prices.damage[k] * (1 - prices.averted[k, a]))
    return total


def test_expected_utility_is_the_formula():
    rng = np.random.default_rng(0)
    for _ in range(5):
        p, prices, respond = random_case(rng)
        actions = rng.integers(0, 3, SOURCES)
        mos = respond(jnp.asarray(actions))
        got = decide.expected_utility(jnp.asarray(p), mos, jnp.asarray(actions), prices)
        assert float(got) == pytest.approx(utility_by_hand(p, mos, actions, prices), rel=1e-5)


def test_threshold_is_the_sign_of_blocking_against_allowing_given_the_others():
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(60):
        p, _, respond = random_case(rng)
        p = np.stack([1 - (hostile := rng.uniform(0, 1, SOURCES)), hostile], 1).astype(np.float32)
        damage = float(rng.uniform(0.5, 6))
        averted = jnp.array([[0.0, 0.5, 1.0]] * 2)
        prices = decide.Prices(jnp.array([0.0, damage]), averted, jnp.ones(SOURCES))
        before = rng.integers(0, 3, SOURCES)
        before[0] = 0
        after = np.where(np.arange(SOURCES) == 0, 2, before)
        mos = [respond(jnp.asarray(a)) for a in (before, after)]
        eu = [
            float(decide.expected_utility(jnp.asarray(p), m, jnp.asarray(a), prices))
            for m, a in zip(mos, (before, after), strict=True)
        ]
        relief = ((1 - hostile) * np.asarray(mos[1] - mos[0]))[1:].sum()
        costs = decide.Costs(damage=damage)
        tau = float(decide.block_threshold(mos[0][0], costs, jnp.float32(relief)))
        assert (hostile[0] >= tau) == (eu[1] >= eu[0])
        seen.add((eu[1] >= eu[0], relief > 0.3, tau < 0))
    assert len(seen) > 3  # both signs, with and without relief, or the test shows nothing


def brute_force(p, prices, respond):
    """Expected utility of every combination of actions."""
    def value(actions):
        return decide.expected_utility(jnp.asarray(p), respond(actions), actions, prices)

    return np.asarray(jax.vmap(value)(jnp.asarray(ALL))), value


def test_greedy_is_exact_where_sources_do_not_interact():
    rng = np.random.default_rng(2)
    for _ in range(4):
        p, prices, _ = random_case(rng)
        table = jnp.asarray(rng.uniform(1, 5, (SOURCES, 3)), jnp.float32)
        values, value = brute_force(p, prices, lambda a, t=table: t[jnp.arange(SOURCES), a])
        assert tuple(decide.greedy(value, SOURCES)) == tuple(ALL[values.argmax()])


def test_greedy_on_a_shared_link_is_a_local_optimum_and_near_the_best():
    rng = np.random.default_rng(3)
    lost = []
    for _ in range(12):
        p, prices, respond = random_case(rng)
        values, value = brute_force(p, prices, respond)
        chosen = np.asarray(decide.greedy(value, SOURCES))
        got = values[(ALL == chosen).all(1)][0]
        near = (ALL != chosen).sum(1) == 1
        assert (values[near] <= got + 1e-4 * (1 + abs(got))).all()
        assert got >= values[(ALL == 0).all(1)][0]
        lost.append((values.max() - got) / (values.max() - np.median(values)))
    assert np.mean(lost) < 0.05


def test_greedy_does_not_see_what_two_changes_would_gain_together():
    def value(actions):
        blocked = (actions == 2).sum()
        return jnp.where(blocked >= 2, 10.0, 0.0) - blocked

    assert list(decide.greedy(value, 3)) == [0, 0, 0]
    assert float(value(jnp.array([2, 2, 0]))) > float(value(jnp.zeros(3, jnp.int32)))


def test_the_order_of_sources_does_not_matter():
    p, prices, _ = random_case(np.random.default_rng(4), 6)
    volume = jnp.asarray(np.random.default_rng(5).gamma(0.7, 0.4, 6), jnp.float32)
    order = np.array([3, 0, 5, 1, 4, 2])

    @jax.jit
    def chosen(p, weight, volume):
        def value(actions):
            share = jnp.array([1.0, 0.5, 0.0])[actions]
            mos = 1 + 3 * share * jax.nn.sigmoid(5 - 5 * (share * volume).sum())
            return decide.expected_utility(p, mos, actions, prices._replace(weight=weight))

        return decide.greedy(value, 6)

    p = jnp.asarray(p)
    plain = np.asarray(chosen(p, prices.weight, volume))
    moved = np.asarray(chosen(p[order], prices.weight[order], volume[order]))
    np.testing.assert_array_equal(plain[order], moved)
    assert len(set(plain)) > 1
