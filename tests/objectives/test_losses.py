import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoejax.objectives import losses
from qoejax.qoe import scales
from tests.reference import objectives as reference

LOGITS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32) * 2
LABEL = np.array([0, 1, 2, 3, 0, 2], np.int32)
MOS = np.array([1.0, 5.0, 2.3, 3.99, 3.0, 1.01], np.float32)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_class_losses_equal_the_loops(smoothing, gamma):
    expected = [
        reference.class_loss(z, c, smoothing, gamma) for z, c in zip(LOGITS, LABEL, strict=True)
    ]
    logits, label = jnp.asarray(LOGITS), jnp.asarray(LABEL)
    out = losses.CLASS_LOSSES["focal"](logits, label, smoothing=smoothing, gamma=gamma)
    np.testing.assert_allclose(out, expected, rtol=1e-5)
    if gamma == 0:
        out = losses.CLASS_LOSSES["cross_entropy"](logits, label, smoothing=smoothing, gamma=gamma)
        np.testing.assert_allclose(out, expected, rtol=1e-5)


@pytest.mark.parametrize("name", losses.CLASS_LOSSES)
def test_extreme_logits_have_finite_losses_and_gradients(name):
    logits = jnp.array([[1e4, 0.0, -1e4], [1e4, 0.0, -1e4]])
    label = jnp.array([0, 2])

    def total(logits):
        gamma = 0.5 if name == "focal" else 0.0
        return losses.CLASS_LOSSES[name](logits, label, smoothing=0.1, gamma=gamma).sum()

    value, grad = jax.value_and_grad(total)(logits)
    assert jnp.isfinite(value)
    assert jnp.isfinite(grad).all()


def test_class_losses_refuse_bad_values():
    args = (jnp.zeros((1, 2)), jnp.zeros(1, jnp.int32))
    with pytest.raises(ValueError, match="label_smoothing: expected 0 <= value < 1, got 1"):
        losses.cross_entropy(*args, smoothing=1.0)
    with pytest.raises(ValueError, match="focal_gamma: expected 0 or more, got -1"):
        losses.focal(*args, gamma=-1.0)
    with pytest.raises(ValueError, match="cross_entropy has no focal_gamma"):
        losses.cross_entropy(*args, gamma=2.0)


@pytest.mark.parametrize("name", losses.MOS_LOSSES)
@pytest.mark.parametrize("bins", [2, 5, 17])
def test_mos_losses_equal_the_loops(name, bins):
    logits = np.random.default_rng(1).normal(size=(6, bins)).astype(np.float32)
    by_loops = {"rps": reference.rps, "two_hot": reference.two_hot_cross_entropy}[name]
    expected = [by_loops(z, m) for z, m in zip(logits, MOS, strict=True)]
    out = losses.MOS_LOSSES[name](jnp.asarray(logits), jnp.asarray(MOS))
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-6)


def test_rps_of_a_point_forecast_is_its_absolute_error():
    logits = jnp.where(jnp.eye(9, dtype=bool), 0.0, -1e4)
    grid = scales.centres(9)
    target = jnp.full(9, 2.5)
    out = losses.ranked_probability_score(logits, target)
    np.testing.assert_allclose(out, jnp.abs(grid - target), atol=1e-6)


@given(st.floats(1, 5, width=32), st.sampled_from([2, 5, 17]))
def test_every_target_can_be_met_and_is_the_optimum(mos, bins):
    """Both losses are smallest, with zero gradient, where the forecast is the two-hot target."""
    target = jnp.asarray(mos, jnp.float32)
    at = jnp.log(jnp.maximum(scales.two_hot(target, bins), 1e-30))
    assert losses.ranked_probability_score(at, target) < 1e-9
    grad = jax.grad(losses.two_hot_cross_entropy)(at, target)
    np.testing.assert_allclose(grad, jnp.zeros(bins), atol=1e-5)


COUNTS = np.array([90, 9, 0, 1])


@pytest.mark.parametrize("scheme", losses.SCHEMES)
def test_class_weights_have_mean_one_over_rows(scheme):
    weights = losses.class_weights(COUNTS, scheme)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights @ COUNTS / COUNTS.sum(), 1, rtol=1e-6)
    assert weights[2] == 1  # no rows, no say
    order = weights[[0, 1, 3]]
    assert (np.diff(order) > 0).all() == (scheme != "none")


def test_class_weights_by_hand():
    np.testing.assert_array_equal(losses.class_weights(COUNTS, "none"), np.ones(4, np.float32))
    balanced = losses.class_weights(COUNTS, "balanced")[[0, 1, 3]]
    np.testing.assert_allclose(balanced * [90, 9, 1], [100 / 3] * 3, rtol=1e-6)
    root = losses.class_weights(COUNTS, "sqrt")[[0, 1, 3]]
    np.testing.assert_allclose(root[1] / root[0], np.sqrt(10), rtol=1e-6)
    effective = losses.class_weights(COUNTS, "effective")[[0, 1, 3]]
    number = (1 - 0.99 ** np.array([90, 9, 1])) / 0.01
    np.testing.assert_allclose(effective / effective[0], number[0] / number, rtol=1e-6)


def test_one_row_in_all_is_enough():
    for scheme in losses.SCHEMES:
        assert np.isfinite(losses.class_weights(np.array([1, 0]), scheme)).all()


def test_class_weights_refuse_bad_counts():
    with pytest.raises(ValueError, match="class weight 'inverse': expected one of none, balanced"):
        losses.class_weights(COUNTS, "inverse")
    for counts in ([0, 0], [3, -1]):
        with pytest.raises(ValueError, match="expected at least one row"):
            losses.class_weights(np.array(counts), "balanced")
