"""One temperature: recovered, the same from sums as from rows, and harmless to decisions."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import sklearn.metrics

from qoejax.objectives import calibration, metrics, unknown


def overconfident(rows=4000, classes=6, factor=3.0, seed=0):
    """Logits that are ``factor`` times those that the labels were drawn from."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=(rows, classes))
    label = (scipy.special.softmax(logits, 1).cumsum(1) < rng.random((rows, 1))).sum(1)
    return factor * logits, np.minimum(label, classes - 1)


def ece(logits, label):
    return metrics.ece(scipy.special.softmax(logits, 1), label)


@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_the_factor_of_a_wrong_scale_is_found(factor):
    logits, label = overconfident(factor=factor)
    t = calibration.fit(lambda at: calibration.nll(logits, label, at))
    assert t == pytest.approx(factor, rel=0.06)
    other, truth = overconfident(factor=factor, seed=1)
    before, after = ece(other, truth), ece(other / t, truth)
    assert after < 0.03
    assert (before > 0.08) == (factor != 1.0)
    np.testing.assert_array_equal(other.argmax(1), (other / t).argmax(1))


def test_the_fit_is_the_lowest_of_all_temperatures():
    logits, label = overconfident(rows=500)
    t = calibration.fit(lambda at: calibration.nll(logits, label, at))

    def mean(log):
        p = scipy.special.softmax(logits / np.exp(log), 1)
        return -np.mean(np.log(p[np.arange(500), label]))

    found = scipy.optimize.minimize_scalar(mean, bounds=(-3, 3), options={"xatol": 1e-10})
    assert t == pytest.approx(np.exp(found.x), rel=1e-5)


def test_the_gradient_is_that_of_the_loss():
    logits, label = overconfident(rows=50)
    for at in (0.5, 1.0, 4.0):
        up, down = (calibration.nll(logits, label, at * np.exp(d)).loss for d in (1e-5, -1e-5))
        assert calibration.nll(logits, label, at).gradient == pytest.approx((up - down) / 2e-5)


def test_clients_sums_give_the_fit_of_all_rows():
    logits, label = overconfident(rows=900)
    label = np.where(np.arange(900) % 7 == 0, -1, label)  # rows without a label do not count
    parts = np.split(np.arange(900), [3, 40, 500])

    def ask(at):
        return calibration.add(calibration.nll(logits[i], label[i], at) for i in parts)

    pooled = calibration.fit(lambda at: calibration.nll(logits, label, at))
    assert calibration.fit(ask) == pytest.approx(pooled, rel=1e-7)
    assert ask(1.0).rows == np.sum(label >= 0)
    one = calibration.fit(lambda at: calibration.nll(logits[parts[0]], label[parts[0]], at))
    assert abs(one - pooled) > 0.01  # a client alone would say something else


def test_no_label_is_refused_and_perfect_rows_stay_in_bounds():
    logits, _ = overconfident(rows=20)
    with pytest.raises(ValueError, match="at least one labelled row"):
        calibration.fit(lambda at: calibration.nll(logits, np.full(20, -1), at))
    right = logits.argmax(1)
    t = calibration.fit(lambda at: calibration.nll(logits, right, at))
    assert t == pytest.approx(calibration.BOUNDS[0])


def test_unknown_rows_score_higher_and_far_logits_keep_their_order():
    known = np.array([[9.0, 0.0, 0.0], [60.0, 0.0, 0.0]])
    odd = np.array([[0.2, 0.1, 0.0], [1.0, 1.0, 0.0]])
    for name, score in unknown.SCORES.items():
        assert score(known).max() < score(odd).min(), name
        assert score(known)[1] < score(known)[0], name
    p = scipy.special.softmax(odd, 1)
    np.testing.assert_allclose(unknown.max_probability(odd), 1 - p.max(1))
    np.testing.assert_allclose(unknown.entropy(odd), -(p * np.log(p)).sum(1))
    np.testing.assert_allclose(unknown.energy(odd), -np.log(np.exp(odd).sum(1)))
    np.testing.assert_allclose(unknown.energy(np.log(p)), 0, atol=1e-12)


def test_auroc_is_the_area_with_ties():
    rng = np.random.default_rng(0)
    score, positive = rng.integers(0, 6, 200).astype(float), rng.random(200) < 0.3
    want = sklearn.metrics.roc_auc_score(positive, score)
    assert metrics.auroc(score, positive) == pytest.approx(want, rel=1e-12)
    assert metrics.auroc(score, np.zeros(200, bool)) is None
    assert metrics.auroc(score, np.ones(200, bool)) is None
