import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st

from qoejax.qoe import fit, mos


@given(st.floats(0.5, 4), st.floats(0.05, 50), st.floats(0.5, 2), st.sampled_from([1.0, 1e3, 1e-3]))
def test_exact_curves_are_recovered_on_any_scale(alpha, beta, gamma, unit):
    qos = np.linspace(0, 3 / beta, 25) * unit
    got = fit.fit_iqx(qos, alpha * np.exp(-beta / unit * qos) + gamma)
    np.testing.assert_allclose(got.constants, (alpha, beta / unit, gamma), rtol=1e-4)
    assert got.rmse < 1e-6


def test_noisy_fit_is_at_least_as_good_as_scipy_from_the_truth():
    rng = np.random.default_rng(0)
    qos = rng.exponential(0.1, 400)
    score = 2.861 * np.exp(-29.453 * qos) + 1.134 + rng.normal(0, 0.5, 400)
    got = fit.fit_iqx(qos, score)

    def curve(x, a, b, c):
        return a * np.exp(-b * x) + c

    expected, _ = scipy.optimize.curve_fit(curve, qos, score, p0=(2.861, 29.453, 1.134))
    np.testing.assert_allclose(got.constants, expected, rtol=1e-3)
    assert got.rmse <= np.sqrt(np.mean((curve(qos, *expected) - score) ** 2)) + 1e-9
    assert got.rmse == pytest.approx(0.5, abs=0.05)


def test_a_fit_evaluates_as_a_model():
    qos = np.linspace(0, 2, 9)
    constants = fit.fit_iqx(qos, 3 * np.exp(-qos) + 1.5).constants
    got = jax.vmap(lambda x: mos.iqx(x, constants))(jnp.float32(qos))
    np.testing.assert_allclose(got, 3 * np.exp(-qos) + 1.5, atol=1e-5)


def test_disturbances_far_from_zero_still_fit():
    qos = np.linspace(1000, 1001, 20)
    got = fit.fit_iqx(qos, 2 * np.exp(-0.2 * (qos - 1000)) + 1)
    assert got.rmse < 1e-3


@pytest.mark.parametrize(
    ("qos", "score", "message"),
    [
        ([0, 1, 2], [5, 4], "as many scores as disturbances"),
        ([0, 1, np.nan], [5, 4, 3], "finite disturbances, got nan"),
        ([0, 1, 2], [5, np.inf, 3], "finite scores, got inf"),
        ([0, -1, 2], [5, 4, 3], "at least 0, got -1"),
        ([], [], "3 different disturbances, got 0"),
        ([0, 1, 1, 0], [5, 4, 3, 5], "3 different disturbances, got 2"),
        ([0, 1, 2, 3], [1, 2, 3, 4], "fall as the disturbance grows"),
        ([0, 1, 2, 3], [3, 3, 3, 3], "fall as the disturbance grows"),
    ],
)
def test_what_cannot_be_fitted_is_refused(qos, score, message):
    with pytest.raises(ValueError, match=message):
        fit.fit_iqx(np.float64(qos), np.float64(score))
