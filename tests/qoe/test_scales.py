import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoejax.qoe import scales

BINS = 9


def test_centres_are_even_and_touch_both_ends():
    np.testing.assert_allclose(scales.centres(9), np.linspace(1, 5, 9), rtol=1e-6)


def test_one_bin_is_refused():
    with pytest.raises(ValueError, match="at least 2, got 1"):
        scales.centres(1)


@given(st.floats(1, 5), st.integers(2, 41))
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
