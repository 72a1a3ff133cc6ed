"""The server's half over sums of groups, against NumPy; attacks come before the masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.fed import attacks, discrete, masked, ring
from qoejax.fed.axis import Axis
from qoejax.fed.state import Local, init_state
from tests.fed import tiny

RING = ring.fit(8.0, 40.0, 5)
RNG = np.random.default_rng(3)
DELTAS = RNG.normal(size=(5, 3)).astype(np.float32)
GROUPS = ((0, 1), (2, 3), (4,))


def halves(aggregator="weighted_mean", byzantine=0, adversary=None, max_norm=1e4):
    algorithm = tiny.algorithm(aggregator=aggregator, byzantine=byzantine)
    algorithm = algorithm._replace(adversary=adversary, max_norm=max_norm)
    state = init_state(algorithm, tiny.params(), 5)
    return masked.make_masked(algorithm, RING, Axis()), state


def parts(deltas=DELTAS):
    return [
        Local({"w": jnp.asarray(some)}, (), {"loss": jnp.ones(len(some)), "n": jnp.ones(len(some))})
        for some in (deltas[:2], deltas[2:])
    ]


def run(pair, state, deltas=DELTAS, groups=GROUPS, counted=(True,) * 5, cohort=None):
    """A round with the sums in the clear."""
    cohort = tiny.cohort() if cohort is None else cohort
    found = pair.encode(state, cohort, parts(deltas), tiny.key())
    words = np.asarray(found.words)
    sums = np.stack([
        np.sum([words[i] for i in group if counted[i]], axis=0, dtype=np.uint32)
        if any(counted[i] for i in group) else np.zeros(4, np.uint32)
        for group in groups
    ])  # fmt: skip
    new, metrics = pair.server(
        state, cohort, parts(deltas), found.attack_state, jnp.asarray(sums),
        jnp.asarray(counted), tiny.key(),
    )  # fmt: skip
    return np.asarray(new.params["w"]) - np.asarray(tiny.params()["w"]), metrics, found, new


def group_means(deltas=DELTAS, groups=GROUPS):
    weight = tiny.COUNT.astype(np.float64)
    pairs = [(weight[list(g)], deltas[list(g)]) for g in groups]
    return np.stack([w @ d / w.sum() for w, d in pairs]), np.array([w.sum() for w, _ in pairs])


@pytest.mark.parametrize("groups", [((0, 1, 2, 3, 4),), GROUPS])
def test_the_step_is_the_weighted_mean_of_all(groups):
    moved, metrics, _, new = run(*halves(), groups=groups)
    expected = tiny.COUNT @ DELTAS.astype(np.float64) / tiny.COUNT.sum()
    np.testing.assert_allclose(moved, expected, atol=1e-5)
    assert int(new.round) == 1
    assert metrics["clients"] == metrics["n"] == 5
    assert metrics["absent"] == metrics["refused"] == 0


def test_a_group_without_a_sum_has_no_weight():
    counted = (True, True, False, False, True)
    moved, metrics, _, _ = run(*halves(), counted=counted)
    means, weight = group_means()
    expected = (weight[0] * means[0] + weight[2] * means[2]) / (weight[0] + weight[2])
    np.testing.assert_allclose(moved, expected, atol=1e-5)
    assert metrics["clients"] == 3
    assert metrics["refused"] == 2


def test_a_robust_rule_over_groups_withstands_a_malicious_member():
    """Its group's mean is wild, the median of three groups is not; a mean goes along."""
    enemy = attacks.Adversary(
        attacks.ATTACKS["sign_flip"](strength=50.0), np.array([False, False, True, False, False])
    )
    rule, state = halves("coordinate_median", 1, enemy)
    moved, _, found, _ = run(rule, state)
    means, _ = group_means()
    lower, upper = np.sort(means[[0, 2]], axis=0)  # the two groups of honest clients
    assert np.all(moved >= lower - 1e-5)
    assert np.all(moved <= upper + 1e-5)
    honest, state = halves()
    plain = np.asarray(honest.encode(state, tiny.cohort(), parts(), tiny.key()).words)
    words = np.asarray(found.words)
    others = [0, 1, 3, 4]
    np.testing.assert_array_equal(words[others], plain[others])
    assert (words[2, :3] != plain[2, :3]).all()
    assert int(found.clipped[2]) > 0
    fooled, _, _, _ = run(*halves("weighted_mean", 0, enemy))
    assert np.all((fooled < lower - 1) | (fooled > upper + 1))


def test_too_few_groups_for_a_rule_change_nothing():
    moved, _, _, new = run(
        *halves("coordinate_median", 1), counted=(True, True, False, False, False)
    )
    assert not moved.any()
    assert int(new.round) == 1


def test_a_group_of_too_large_a_norm_is_dropped():
    deltas = np.concatenate([7 * np.ones((2, 3), np.float32), DELTAS[2:]])
    moved, _, _, _ = run(*halves(max_norm=10.0), deltas=deltas)
    means, weight = group_means(deltas)
    np.testing.assert_allclose(moved, weight[1:] @ means[1:] / weight[1:].sum(), atol=1e-5)


def test_what_is_not_finite_is_told():
    deltas = DELTAS.copy()
    deltas[3, 1] = np.nan
    pair, state = halves()
    found = pair.encode(state, tiny.cohort(), parts(deltas), tiny.key())
    assert np.asarray(found.sound).tolist() == [True, True, True, False, True]
    jax.block_until_ready(found.words)


@pytest.mark.slow
def test_with_shares_of_noise_everybody_counts_alike_and_nobody_stays_away():
    """A message that is not finite counts as zeros where it is not: staying away would tell."""
    grid = discrete.fit(20.0, 1e-4, 3, 4, 5)
    pair, state = halves("mean")
    pair = masked.make_masked(tiny.algorithm(aggregator="mean"), grid, Axis())
    moved, metrics, found, _ = run(pair, state, groups=((0, 1, 2, 3, 4),))
    np.testing.assert_allclose(moved, DELTAS.mean(0), atol=2e-2)
    assert metrics["clients"] == 5
    spoilt = DELTAS.copy()
    spoilt[1, 2] = np.inf
    _, _, found, _ = run(*(pair, init_state(tiny.algorithm(aggregator="mean"), tiny.params(), 5)),
                         deltas=spoilt, groups=((0, 1, 2, 3, 4),))  # fmt: skip
    assert found.sound.all()
    assert not found.clipped[0]
