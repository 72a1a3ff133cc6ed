"""Coverage where rows are exchangeable, and its loss where they are not."""

import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.special
import scipy.stats

from qoejax.objectives import conformal

ALPHA = 0.1


def drawn(rng, rows, classes=5, sharpness=2.0, lie=1.0):
    """Labels drawn from probabilities, and what a model says of them: sharper than true by lie."""
    logits = sharpness * rng.normal(size=(rows, classes))
    label = (scipy.special.softmax(logits, 1).cumsum(1) < rng.random((rows, 1))).sum(1)
    return scipy.special.softmax(lie * logits, 1), np.minimum(label, classes - 1)


def reference_quantile(scores, alpha):
    """NumPy's own inverse of the distribution function, with infinity as one more score."""
    level = np.round(1 - alpha, 12)
    return np.quantile(np.append(scores, np.inf), level, method="inverted_cdf")


@hypothesis.given(
    st.lists(st.floats(-10, 10), min_size=1, max_size=60), st.sampled_from([0.05, 0.1, 0.2, 0.5])
)
def test_the_quantile_is_that_of_the_scores_and_one_more(scores, alpha):
    scores = np.array(scores)
    assert conformal.quantile(scores, alpha) == reference_quantile(scores, alpha)


def test_ranks_are_not_pushed_up_by_rounding():
    assert conformal.rank(9, 0.1) == 9  # (9 + 1) 0.9 is 9, but not in floating point for all n
    assert all(conformal.rank(10 * n - 1, 0.1) == 9 * n for n in range(1, 200))
    assert conformal.rank(8, 0.1) == 9
    assert math.isinf(conformal.quantile(np.zeros(8), 0.1))
    with pytest.raises(ValueError, match=r"alpha: .* got 1"):
        conformal.rank(5, 1.0)


SCORES = {
    "lac": lambda p, rng: conformal.lac(p),
    "aps": lambda p, rng: conformal.aps(p),
    "aps_randomised": lambda p, rng: conformal.aps(p, rng.random(len(p))),
}


def coverages(score, trials, calibration, test, shift=1.0, always=False):
    """Coverage of test rows in many draws; ``shift`` sharpens what the model says of those."""
    rng, found = np.random.default_rng(0), []
    for _ in range(trials):
        p, label = drawn(rng, calibration, lie=2.0)
        threshold = conformal.quantile(conformal.of_label(score(p, rng), label), ALPHA)
        p, label = drawn(rng, test, lie=2.0 * shift)
        inside = conformal.sets(score(p, rng), np.full(5, threshold), p if always else None)
        found.append(inside[np.arange(test), label].mean())
    return np.array(found)


@pytest.mark.parametrize("name", SCORES)
def test_marginal_coverage_is_as_promised(name):
    """Of a model that is far too sure: no calibration is needed for coverage."""
    found = coverages(SCORES[name], 200, 99, 100)
    error = 4 * found.std() / math.sqrt(len(found))
    upper = 1 - ALPHA + 1 / 100
    assert 1 - ALPHA - error < found.mean()
    if name != "aps":  # whole classes have ties where all are needed
        assert found.mean() < upper + error
    low = np.mean(found < conformal.floor(99, 100, ALPHA, 0.05))
    assert low <= scipy.stats.binom.ppf(0.999, 200, 0.05) / 200


@pytest.mark.parametrize("name", SCORES)
def test_rows_of_another_kind_are_not_covered(name):
    """The negative control: the test rows' model is surer than the kept-back rows' was."""
    found = coverages(SCORES[name], 40, 99, 200, shift=3.0)
    assert found.mean() < 1 - ALPHA - 0.04
    assert np.mean(found < conformal.floor(99, 200, ALPHA, 0.01)) > 0.3


def test_sets_are_small_where_the_model_is_right_and_never_empty():
    rng = np.random.default_rng(1)
    p, label = drawn(rng, 4000, sharpness=8.0)
    u = conformal.uniform(np.float32(p))
    for score, size in ((conformal.lac, 1.5), (lambda p: conformal.aps(p, u), 1.5)):
        threshold = np.full(5, conformal.quantile(conformal.of_label(score(p), label), ALPHA))
        bare, inside = conformal.sets(score(p), threshold), conformal.sets(score(p), threshold, p)
        assert inside.any(1).all()
        assert (inside >= bare).all()
        assert 1 <= inside.sum(1).mean() < size
    assert (~bare.any(1)).sum() == 0 or (inside.sum(1)[~bare.any(1)] == 1).all()


def test_aps_adds_up_in_falling_order():
    p = np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]])
    np.testing.assert_allclose(conformal.aps(p), [[1.0, 0.5, 0.8], [0.4, 0.8, 1.0]])
    half = conformal.aps(p, np.array([0.5, 0.0]))
    np.testing.assert_allclose(half, [[0.9, 0.25, 0.65], [0.0, 0.4, 0.8]])
    np.testing.assert_allclose(conformal.lac(p)[0], [0.8, 0.5, 0.7])


def test_the_part_of_a_row_is_its_own_and_spread_evenly():
    values = np.random.default_rng(6).normal(size=(4000, 5)).astype(np.float32)
    u = conformal.uniform(values)
    assert scipy.stats.kstest(u, "uniform").pvalue > 1e-3
    assert abs(scipy.stats.spearmanr(u, values[:, 4]).statistic) < 0.06
    np.testing.assert_array_equal(conformal.uniform(values[::-7]), u[::-7])
    assert len(np.unique(u)) > 3990


def test_randomised_scores_of_a_true_model_are_uniform():
    rng = np.random.default_rng(2)
    p, label = drawn(rng, 3000)
    scores = conformal.of_label(conformal.aps(p, rng.random(3000)), label)
    assert scipy.stats.kstest(scores, "uniform").pvalue > 1e-3
    whole = conformal.of_label(conformal.aps(p), label)
    assert scipy.stats.kstest(whole, "uniform").pvalue < 1e-6


def test_thresholds_by_class_cover_the_class_that_one_for_all_leaves_out():
    rng = np.random.default_rng(3)

    def rows(count):
        label = rng.choice(3, count, p=[0.8, 0.15, 0.05])
        logits = 3.0 * np.eye(3)[label] * np.array([2.0, 1.0, 0.2])[label][:, None]
        return scipy.special.softmax(logits + rng.normal(size=(count, 3)), 1), label

    p, label = rows(6000)
    own = conformal.of_label(conformal.lac(p), label)
    by_class = np.array([conformal.quantile(own[label == c], ALPHA) for c in range(3)])
    p, label = rows(20000)
    for threshold, rare in ((by_class, True), (np.full(3, conformal.quantile(own, ALPHA)), False)):
        inside = conformal.sets(conformal.lac(p), threshold)[np.arange(len(p)), label]
        assert inside.mean() > 0.88
        assert (inside[label == 2].mean() > 0.86) == rare


@hypothesis.given(st.integers(0, 2**31), st.sampled_from([0.05, 0.1, 0.3]))
def test_added_histograms_give_the_pooled_quantile_up_to_one_bin(seed, alpha):
    rng = np.random.default_rng(seed)
    edges = conformal.class_edges(200)
    clients = [rng.beta(0.3, 0.3, rng.integers(1, 80)) for _ in range(5)]
    counts = sum(conformal.histogram(scores, edges) for scores in clients)
    exact = conformal.quantile(np.concatenate(clients), alpha)
    found = conformal.quantile_of_counts(counts, edges, alpha)
    if math.isinf(exact):
        assert math.isinf(found)
    else:
        at = np.searchsorted(edges, exact, side="left")
        assert found == edges[at] >= exact
        assert at == 0 or edges[at - 1] < exact


def test_a_score_above_the_last_edge_is_refused():
    with pytest.raises(ValueError, match=r"expected at most 1.0, got 1.5"):
        conformal.histogram(np.array([1.5]), conformal.class_edges())


def test_intervals_cover_though_the_quantiles_are_wrong():
    """Quantiles of a spread that is far too small, or too large, and a shift that breaks them."""
    rng = np.random.default_rng(4)

    def rows(count, spread):
        x = rng.uniform(1, 4, count)
        return x, x + 0.1 * x * spread * rng.normal(size=count)

    for half in (0.02, 0.9):
        x, y = rows(999, 1.0)
        q = conformal.quantile(conformal.cqr(x - half * x, x + half * x, y), ALPHA)
        assert (q > 0) == (half < 0.1)
        for spread, covers in ((1.0, True), (2.0, False)):
            x, y = rows(4000, spread)
            coverage = np.mean((x - half * x - q <= y) & (y <= x + half * x + q))
            assert (coverage >= conformal.floor(999, 4000, ALPHA)) == covers
            assert coverage < 0.94


def test_the_floor_is_the_tail_of_simulated_coverage():
    rng = np.random.default_rng(5)
    k = conformal.rank(49, ALPHA)
    threshold = np.sort(rng.random((4000, 49)), axis=1)[:, k - 1]
    covered = rng.binomial(80, threshold) / 80
    floor = conformal.floor(49, 80, ALPHA, 0.05)
    assert np.mean(covered < floor) <= 0.05 + 0.012 <= np.mean(covered <= floor) + 0.03
    assert conformal.floor(8, 80, ALPHA) == 0
