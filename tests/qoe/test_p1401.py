import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from qoejax.qoe import p1401, scales


@pytest.fixture(scope="module")
def scores():
    rng = np.random.default_rng(1)
    target = rng.uniform(1, 5, 300)
    return target, np.clip(target + rng.normal(0, 0.7, 300), 1, 5)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_correlation_interval_equals_scipy(scores, level):
    expected = scipy.stats.pearsonr(*scores).confidence_interval(level)
    got = p1401.plcc_interval(scales.plcc(*scores), 300, level)
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_perfect_and_missing_correlations():
    assert p1401.plcc_interval(1.0, 10) == pytest.approx((1.0, 1.0))
    assert p1401.plcc_interval(-1.0, 10) == pytest.approx((-1.0, -1.0))
    assert np.isnan(p1401.plcc_interval(float("nan"), 10)).all()


def covered(interval, truth):
    return interval.low <= truth <= interval.high


def test_intervals_cover_as_often_as_they_claim():
    rng = np.random.default_rng(2)
    hits = np.zeros(4)
    trials, n, rho, sigma, outliers = 600, 60, 0.8, 0.6, 0.3
    rank = 6 / np.pi * np.arcsin(rho / 2)  # Spearman's of a bivariate normal
    for _ in range(trials):
        x, y = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], n).T
        error = rng.normal(0, sigma, n)
        half = np.where(rng.random(n) < outliers, -1.0, 1e9)
        hits += [
            covered(p1401.plcc_interval(scales.plcc(x, y), n), rho),
            covered(p1401.srocc_interval(scales.srocc(x, y), n), rank),
            covered(p1401.rmse_interval(np.sqrt(np.mean(error**2)), n, dof=0), sigma),
            covered(p1401.outlier_interval(scales.outlier_ratio(x, y, half), n), outliers),
        ]
    # Three standard errors of 600 trials are 0.027; the binomial one is an approximation.
    np.testing.assert_allclose(hits / trials, 0.95, atol=0.03)


def test_rmse_interval_by_hand():
    # chi-squared of 9 degrees: 2.7004 and 19.0228.
    got = p1401.rmse_interval(0.5, 10)
    np.testing.assert_allclose(
        got, (0.5 * np.sqrt(9 / 19.0228), 0.5 * np.sqrt(9 / 2.7004)), rtol=1e-4
    )


def test_outlier_interval_by_hand():
    got = p1401.outlier_interval(0.2, 100)
    np.testing.assert_allclose(got, (0.2 - 1.95996 * 0.04, 0.2 + 1.95996 * 0.04), rtol=1e-4)
    assert p1401.outlier_interval(0.01, 20).low == 0.0


def test_differences_find_what_is_there_and_only_that():
    assert p1401.plcc_difference(0.9, 100, 0.9, 50) == pytest.approx(1.0)
    assert p1401.plcc_difference(0.9, 200, 0.8, 200) < 1e-3
    # z of 0.5 and of 0.3 differ by 0.2397868; 50 rows each.
    expected = 2 * scipy.stats.norm.sf(0.2397868 / np.sqrt(2 / 47))
    assert p1401.plcc_difference(0.5, 50, 0.3, 50) == pytest.approx(expected, abs=1e-6)
    assert p1401.plcc_difference(1.0, 50, 1.0, 50) == 1.0
    assert p1401.rmse_difference(0.5, 40, 0.5, 40) == pytest.approx(1.0)
    assert p1401.rmse_difference(0.8, 100, 0.5, 100) < 1e-3
    assert p1401.rmse_difference(0.8, 100, 0.0, 100) == 0.0
    assert p1401.outlier_difference(0.3, 100, 0.3, 100) == pytest.approx(1.0)
    assert p1401.outlier_difference(0.0, 100, 0.0, 100) == 1.0
    table = scipy.stats.chi2_contingency([[30, 70], [15, 85]], correction=False)
    assert p1401.outlier_difference(0.3, 100, 0.15, 100) == pytest.approx(table.pvalue)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: p1401.plcc_interval(0.5, 3), "PLCC: expected at least 4 targets, got 3"),
        (lambda: p1401.srocc_interval(0.5, 3), "SROCC: expected at least 4 targets, got 3"),
        (lambda: p1401.rmse_interval(0.5, 4, dof=4), "RMSE: expected at least 5 targets, got 4"),
        (lambda: p1401.outlier_interval(0.5, 0), "outlier ratio: expected at least 1"),
        (lambda: p1401.plcc_interval(0.5, 9, 1.0), r"level: expected a value in \(0, 1\), got 1.0"),
        (lambda: p1401.rmse_difference(0.0, 9, 0.0, 9), "got 0 and 0"),
        (lambda: p1401.fit_map(np.arange(3.0), np.arange(3.0)), "4 different forecasts, got 3"),
        (lambda: p1401.fit_map(np.full(5, np.nan), np.arange(5.0)), "finite targets"),
    ],
)
def test_what_has_no_answer_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_map_is_least_squares_where_that_is_monotone(scores):
    target, predicted = scores
    bent = predicted + 0.05 * (predicted - 1) ** 2
    fitted = p1401.fit_map(target, bent)
    expected = np.polynomial.polynomial.polyfit(bent, target, 3)
    np.testing.assert_allclose(fitted.coefficients, expected, rtol=1e-5, atol=1e-6)
    mapped = p1401.apply_map(fitted, bent)
    assert scales.rmse(target, mapped) < scales.rmse(target, bent)


@given(st.integers(0, 10_000))
def test_map_never_falls_and_beats_any_line(seed):
    rng = np.random.default_rng(seed)
    predicted = rng.uniform(1, 5, 40)
    target = 3 + np.sin(rng.uniform(0.5, 4) * predicted) + rng.normal(0, 0.3, 40)
    fitted = p1401.fit_map(target, predicted)
    mapped = p1401.apply_map(fitted, np.linspace(0, 6, 400))
    assert np.diff(mapped).min() >= -1e-7
    slope, offset = np.polyfit(predicted, target, 1)
    line = slope * predicted + offset if slope > 0 else target.mean()
    error = np.mean((p1401.apply_map(fitted, predicted) - target) ** 2)
    assert error <= np.mean((line - target) ** 2) + 1e-4


def test_monotone_fit_is_the_best_of_a_search():
    # A falling middle: compare with a general-purpose optimiser under the same constraint.
    x = np.linspace(0, 1, 60)
    y = 8 * (x - 0.5) ** 3 - 1.2 * (x - 0.5) + 3
    fitted = p1401.fit_map(y, x)
    at = np.linspace(0, 1, 201)
    powers = np.stack([np.ones_like(x), x, x**2, x**3], axis=1)
    found = scipy.optimize.minimize(
        lambda c: np.sum((powers @ c - y) ** 2),
        [*np.polyfit(x, y, 1)[::-1], 0.0, 0.0],
        method="SLSQP",
        constraints={"type": "ineq", "fun": lambda c: c[1] + 2 * c[2] * at + 3 * c[3] * at**2},
        options={"ftol": 1e-12, "maxiter": 500},
    )
    error = np.sum((p1401.apply_map(fitted, x) - y) ** 2)
    assert error == pytest.approx(found.fun, abs=1e-4)
