"""Epsilon against dp-accounting's own figures, closed forms, and published values."""

import dp_accounting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from dp_accounting import pld, rdp
from jax_privacy.matrix_factorization import toeplitz

from qoejax.fed import accounting

DELTA = 1e-5


def reference(steps, noise, rate):
    """dp-accounting with its default, ten times finer cells and the add-or-remove relation."""
    accountant = pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    event = dp_accounting.GaussianDpEvent(noise)
    accountant.compose(
        dp_accounting.SelfComposedDpEvent(
            event if rate == 1 else dp_accounting.PoissonSampledDpEvent(rate, event), steps
        )
    )
    return accountant.get_epsilon(DELTA)


@pytest.mark.parametrize(
    ("steps", "noise", "rate"), [(2000, 1.0, 0.01), (30, 1.0, 0.2), (100, 2.0, 0.5), (30, 5.0, 1.0)]
)
def test_epsilon_is_dp_accountings_own(steps, noise, rate):
    ours, theirs = accounting.epsilon(steps, noise, rate, DELTA), reference(steps, noise, rate)
    assert theirs - 1e-6 <= ours <= theirs + 2e-3
    renyi = rdp.RdpAccountant(neighboring_relation=accounting.RELATION)
    renyi.compose(accounting.event(noise, rate), steps)
    assert accounting.bound(steps, noise, rate, DELTA) >= ours
    assert accounting.bound(steps, noise, rate, DELTA) == pytest.approx(
        renyi.get_epsilon(DELTA), rel=0.02
    )


def gaussian_epsilon(noise, delta):
    """Balle & Wang 2018, theorem 8: delta(e) = F(1/2s - es) - exp(e) F(-1/2s - es)."""

    def gap(e):
        up = scipy.stats.norm.cdf(0.5 / noise - e * noise)
        return up - np.exp(e) * scipy.stats.norm.cdf(-0.5 / noise - e * noise) - delta

    return scipy.optimize.brentq(gap, 0, 100)


@pytest.mark.parametrize(("steps", "noise"), [(1, 1.0), (1, 4.0), (16, 4.0)])
def test_without_sampling_it_is_the_closed_form(steps, noise):
    """T Gaussian releases are one with the noise over the root of T."""
    exact = gaussian_epsilon(noise / steps**0.5, DELTA)
    assert exact - 1e-6 <= accounting.epsilon(steps, noise, 1.0, DELTA) <= exact + 2e-3


def test_nothing_released_costs_nothing_and_more_costs_more():
    assert accounting.epsilon(0, 1.0, 0.1, DELTA) == 0
    costs = [accounting.epsilon(n, 1.0, 0.1, DELTA) for n in (1, 10, 100)]
    assert costs == sorted(costs)
    assert accounting.epsilon(10, 1.0, 0.1, DELTA) < accounting.epsilon(10, 0.7, 0.1, DELTA)


@pytest.mark.parametrize(("noise", "rate"), [(0.0, 0.1), (-1.0, 0.1), (1.0, 0.0), (1.0, 1.1)])
def test_an_impossible_release_is_refused(noise, rate):
    with pytest.raises(ValueError, match="noise above 0 and a rate"):
        accounting.event(noise, rate)


def test_worst_is_the_largest_of_all_clients(monkeypatch):
    rng = np.random.default_rng(0)
    rows = rng.integers(40, 400, 12)
    steps, rate = 3 * -(-rows // 32), 32 / rows
    each = [accounting.epsilon(int(s), 1.0, float(q), DELTA) for s, q in zip(steps, rate, strict=1)]
    asked, full = [], accounting.epsilon
    monkeypatch.setattr(accounting, "epsilon", lambda *a: asked.append(a) or full(*a))
    assert accounting.worst(steps, 1.0, rate, DELTA) == max(each)
    assert len(asked) < len(rows)
    assert accounting.worst(np.zeros(3, int), 1.0, np.full(3, 0.1), DELTA) == 0


@pytest.mark.parametrize(
    ("budget", "rounds"), [(0.0, 10), (100.0, 10), (9.0, 3), (8.9, 2), (1.0, 1), (0.5, 0)]
)
def test_largest_number_of_rounds_within_a_budget(budget, rounds):
    assert accounting.largest(10, lambda n: float(n * n), budget) == rounds


def test_noise_for_a_budget_meets_it():
    noise = accounting.noise_for(2.0, 100, 0.1, DELTA)
    assert accounting.epsilon(100, noise, 0.1, DELTA) <= 2.0
    assert accounting.epsilon(100, noise - 0.01, 0.1, DELTA) > 2.0


@pytest.mark.parametrize(("rounds", "groups"), [(7, 3), (6, 3), (5, 1), (2, 4)])
def test_moves_are_the_longest_of_the_strategy(rounds, groups):
    """All starts of a client that comes every ``groups`` rounds, by brute force; jax-privacy's."""
    coefficients = np.array([1.0, 0.5, 0.375, 0.3125])[: min(groups, rounds)]
    found = accounting.moves(coefficients, rounds, groups)
    for n in range(1, rounds + 1):
        strategy = sum(c * np.eye(n, k=-i) for i, c in enumerate(coefficients))
        starts = [(np.arange(n) - start) % groups == 0 for start in range(groups)]
        assert found[n - 1] == pytest.approx(max(np.linalg.norm(strategy @ s) for s in starts))
    with jax.numpy_dtype_promotion("standard"):
        square = toeplitz.minsep_sensitivity_squared(
            jnp.asarray(coefficients, jnp.float32), groups, -(-rounds // groups), rounds
        )
    assert found[-1] ** 2 == pytest.approx(float(square), rel=1e-5)


def test_skellam_approaches_the_gaussian_on_a_fine_grid():
    """In units of the grid the norm bound is 1000 and the noise as long: a Gaussian of noise 1."""
    gaussian = accounting.bound(5, 1.0, 1.0, DELTA)
    fine = accounting.skellam(5, 1e3, 1e6, 100, DELTA)
    assert gaussian < fine < 1.001 * gaussian
    assert accounting.skellam(5, 2.0, 4.0, 100, DELTA) > 1.1 * gaussian


def test_skellam_by_hand():
    """Order 2, one release: a D2^2/(2 mu) + min((3 D2^2 + 6 D1)/(4 mu^2), 3 D1/(2 mu))."""
    mu, d2, size = 50.0, 3.0, 4
    d1 = min(2 * d2, d2**2)
    orders = np.array(accounting._ORDERS)
    curve = orders * 9 / 100 + np.minimum(
        ((2 * orders - 1) * 9 + 6 * d1) / (4 * mu**2), 3 * d1 / (2 * mu)
    )
    # Canonne et al. 2020, proposition 12: the conversion to epsilon, minimised over orders.
    e = curve + np.log1p(-1 / orders) - np.log(DELTA * orders) / (orders - 1)
    assert accounting.skellam(1, d2, mu, size, DELTA) == pytest.approx(e.min(), rel=1e-6)
