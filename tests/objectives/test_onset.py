"""CUSUM is Page's recursion; thresholds keep their rate; delays count from the onset."""

import numpy as np
import pytest

from qoejax.objectives import onset


@pytest.mark.parametrize("drift", [0.0, 0.5, 3.0])
def test_cusum_is_the_recursion_of_page(drift):
    z = 2 * np.random.default_rng(0).standard_normal((20, 50)) + 0.3
    expected = np.zeros_like(z)
    for e, row in enumerate(z):
        total = 0.0
        for t, value in enumerate(row):
            total = max(0.0, total + value - drift)
            expected[e, t] = total
    np.testing.assert_allclose(onset.cusum(z, drift), expected, atol=1e-9)


def test_cusum_finds_a_shift_that_single_values_hide():
    z = np.random.default_rng(0).standard_normal((200, 60))
    z[:, 30:] += 1.0
    since = np.full(200, 30)
    calm = np.random.default_rng(1).standard_normal((2000, 60))
    found = {
        name: onset.delays(score(z) > onset.threshold(score(calm).ravel(), 1e-3), since)[1].mean()
        for name, score in {"cusum": lambda v: onset.cusum(v, 0.5), "value": lambda v: v}.items()
    }
    assert found["cusum"] > 0.9 > 0.6 > found["value"]


@pytest.mark.parametrize(("count", "levels"), [(50, 3), (299, 40), (1000, 10**6)])
def test_thresholds_keep_their_rate_and_are_the_lowest_that_do(count, levels):
    scores = np.random.default_rng(count).integers(0, levels, count).astype(float)
    limit = onset.threshold(scores, 0.02)
    allowed = int(0.02 * len(scores))
    assert (scores > limit).sum() <= allowed
    lower = scores[scores < limit]
    if len(lower):
        assert (scores > lower.max()).sum() > allowed


def test_too_few_scores_are_refused():
    with pytest.raises(ValueError, match="needs 1000 benign scores, got 999"):
        onset.threshold(np.zeros(999), 1e-3)


def test_delays_begin_at_the_onset_and_are_censored_at_the_end():
    alarm = np.zeros((4, 10), bool)
    alarm[0, [1, 4]] = True  # the one before the onset is a false alarm
    alarm[1, 2] = True
    alarm[3, 3] = True
    delay, found = onset.delays(alarm, np.array([3, 3, 9, 3]))
    assert delay.tolist() == [2, 7, 1, 1]
    assert found.tolist() == [True, False, False, True]
    assert onset.median(delay, found) == np.inf
    assert onset.median(delay[[0, 1, 3]], found[[0, 1, 3]]) == 2
