import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from qoejax.qoe import scales

BINS = 9


def test_centres_are_even_and_touch_both_ends():
    np.testing.assert_allclose(scales.centres(9), np.linspace(1, 5, 9), rtol=1e-6)


def test_one_bin_is_refused():
    with pytest.raises(ValueError, match="at least 2, got 1"):
        scales.centres(1)


@given(st.floats(1, 5), st.sampled_from([2, 9, 41]))
def test_two_hot_keeps_the_mean_and_touches_two_neighbours(mos, bins):
    target = np.asarray(scales.two_hot(jnp.float32(mos), bins))
    assert target.sum() == pytest.approx(1, abs=1e-5)
    assert target @ np.linspace(1, 5, bins) == pytest.approx(mos, abs=1e-4)
    hot = np.flatnonzero(target > 1e-5)
    assert len(hot) <= 2
    assert np.ptp(hot) <= 1


def test_scores_off_the_scale_count_as_its_ends():
    target = scales.two_hot(jnp.float32([0.0, 7.0]), 5)
    np.testing.assert_array_equal(target, np.eye(5)[[0, 4]])


def test_mean_of_confident_and_of_indifferent_logits():
    logits = jnp.stack([1e3 * jax.nn.one_hot(2, BINS), jnp.zeros(BINS)])
    np.testing.assert_allclose(scales.mean(logits), [2.0, 3.0], rtol=1e-6)


def test_spread_is_the_standard_deviation():
    logits = jnp.stack([1e3 * jax.nn.one_hot(2, BINS), jnp.zeros(BINS)])
    np.testing.assert_allclose(
        scales.spread(logits), [0.0, np.std(np.linspace(1, 5, BINS))], atol=1e-5
    )


def test_gradients_stay_finite_where_one_bin_holds_everything():
    logits = 1e3 * jax.nn.one_hot(2, BINS)
    for figure in (scales.mean, scales.spread):
        assert np.isfinite(jax.grad(figure)(logits)).all()


def test_quantiles_of_even_opinion_are_the_cells_themselves():
    # Five bins of 0.2 each: cells end at 1, 1.5, 2.5, 3.5, 4.5, 5.
    logits = jnp.zeros((2, 5))
    for level, expected in [
        (0.0, 1.0),
        (0.2, 1.5),
        (0.3, 2.0),
        (0.5, 3.0),
        (0.9, 4.75),
        (1.0, 5.0),
    ]:
        np.testing.assert_allclose(scales.quantile(logits, level), [expected] * 2, atol=1e-5)


@given(st.lists(st.floats(-8, 8), min_size=7, max_size=7))
def test_quantiles_rise_with_the_level_and_stay_on_the_scale(logits):
    values = [float(scales.quantile(jnp.float32(logits), q)) for q in (0.0, 0.1, 0.5, 0.9, 1.0)]
    assert values == sorted(values)
    assert values[0] >= 1.0
    assert values[-1] <= 5.0


def test_interval_covers_the_share_it_claims():
    probabilities = np.float32([0.05, 0.1, 0.3, 0.4, 0.15])
    rng = np.random.default_rng(0)
    edges = np.array([1, 1.5, 2.5, 3.5, 4.5, 5])
    cell = rng.choice(5, size=20_000, p=probabilities / probabilities.sum())
    opinion = rng.uniform(edges[cell], edges[cell + 1])
    low, high = (float(scales.quantile(jnp.log(probabilities), q)) for q in (0.1, 0.9))
    assert np.mean((opinion >= low) & (opinion <= high)) == pytest.approx(0.8, abs=0.01)


def test_impossible_level_is_refused():
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 1.5"):
        scales.quantile(jnp.zeros(5), 1.5)


@pytest.fixture(scope="module")
def scores():
    rng = np.random.default_rng(1)
    target = rng.uniform(1, 5, 300)
    target[:50] = 4.41  # ties, as a saturated score has them
    return target, np.clip(target + rng.normal(0, 0.7, 300), 1, 5)


def test_correlations_equal_scipy(scores):
    assert scales.plcc(*scores) == pytest.approx(scipy.stats.pearsonr(*scores)[0], abs=1e-12)
    assert scales.srocc(*scores) == pytest.approx(scipy.stats.spearmanr(*scores)[0], abs=1e-12)


def test_correlation_with_a_constant_is_not_a_number(scores):
    assert np.isnan(scales.plcc(scores[0], np.full(300, 4.41)))
    assert np.isnan(scales.srocc(np.full(300, 4.41), scores[1]))


def test_errors_by_hand():
    target, predicted = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.5, 2.0, 5.5])
    half_width = np.array([0.1, 0.5, 0.4, 0.5])
    assert scales.mae(target, predicted) == pytest.approx(0.75)
    assert scales.rmse(target, predicted) == pytest.approx(np.sqrt((0.25 + 1 + 2.25) / 3))
    assert scales.rmse_star(target, predicted, half_width) == pytest.approx(
        np.sqrt((0.6**2 + 1.0) / 3)
    )
    assert scales.outlier_ratio(target, predicted, half_width) == 0.5
    mean = np.full(4, 2.5)
    assert scales.skill(target, predicted, mean) == pytest.approx(1 - 3.5 / 5)
    assert scales.skill(target, mean, mean) == 0.0
    assert np.isnan(scales.skill(target, mean, target))


def test_too_few_targets_are_refused():
    four = np.arange(4.0)
    with pytest.raises(ValueError, match="more than 4 targets, got 4"):
        scales.rmse(four, four, dof=4)
    with pytest.raises(ValueError, match="at least one target"):
        scales.mae(four[:0], four[:0])


def test_panel_agrees_at_the_ends_and_errs_most_in_the_middle():
    ends_and_middle = scales.panel_half_width(np.array([1.0, 3.0, 5.0]))
    # At m = 3 the variance is 0.2 * 4 = 0.8.
    expected = scipy.stats.t.ppf(0.975, 23) * np.sqrt(0.8 / 24)
    np.testing.assert_allclose(ends_and_middle, [0.0, expected, 0.0], atol=1e-12)
