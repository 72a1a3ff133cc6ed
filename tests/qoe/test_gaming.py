import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.qoe import gaming
from tests.reference import qoe_numpy

HD = 1920.0 * 1080.0
DELAYS = np.float32([0, 10, 15.9, 16.1, 30, 60, 100, 200, 300, 400, 1000])
LOSSES = np.float32([0, 0.01, 0.1, 0.5, 1, 2, 5, 20, 100])
SLICING = np.float32([0, 0.01, 0.1, 0.5, 1, 2, 10, 100])
RATES = np.float32([0.3, 1, 2, 5, 10, 20, 50])
CLASSES = list(itertools.product(gaming.SENSITIVITIES, gaming.CODINGS))
EDGES = np.float32([-3e38, -1e6, -1.0, 0.0, 1e-30, 0.01, 15.9, 16.0, 400.0, 1e4, 1e20, 3e38])


@functools.cache
def grid(sensitivity, coding):
    """MOS over delay, loss, slicing and bitrate."""

    def one(delay, loss, slicing, rate):
        return gaming.cloud_gaming(
            delay,
            loss,
            slicing,
            gaming.Stream(rate, 60.0, HD),
            gaming.SENSITIVITIES[sensitivity],
            gaming.CODINGS[coding],
        )

    axes = np.meshgrid(DELAYS, LOSSES, SLICING, RATES, indexing="ij")
    flat = jax.jit(jax.vmap(one))(*(a.ravel() for a in axes))
    return np.asarray(flat).reshape(axes[0].shape)


def coefficients(sensitivity, coding):
    s = gaming.SENSITIVITIES[sensitivity]
    return gaming.CODINGS[coding], [*s.video, *s.interaction, *s.delay]


@pytest.mark.parametrize(
    ("delay", "loss", "rate", "mos"),
    [
        # Printed by the implementation of the standard's authors (its test, its README).
        (0.0, 0.2, 50.0, 4.140085244657),
        (200.0, 0.0, 2.0, 1.703640262361372),
    ],
)
def test_golden(delay, loss, rate, mos):
    stream = gaming.Stream(rate, 60.0, HD)
    inputs = (jnp.float32(v) for v in (delay, loss, 0.0))
    assert float(gaming.cloud_gaming(*inputs, stream)) == pytest.approx(mos, abs=1e-5)


def test_golden_parts():
    high = gaming.delay_impairment(jnp.float32(200.0), gaming.SENSITIVITIES["high"])
    assert float(gaming.rating_to_mos(100.0 - high)) == pytest.approx(3.1691042828, abs=1e-5)
    coded = gaming.coding_impairment(gaming.Stream(2.0, 60.0, HD), gaming.CODINGS["high"])
    assert float(gaming.rating_to_mos(100.0 - coded)) == pytest.approx(2.8929607456, abs=1e-5)


@pytest.mark.parametrize(("sensitivity", "coding"), CLASSES)
def test_model_equals_the_reference(sensitivity, coding):
    got = grid(sensitivity, coding)
    for i, j, k, m in itertools.product(*(range(0, n, 3) for n in got.shape)):
        inputs = (float(v) for v in (DELAYS[i], LOSSES[j], SLICING[k], RATES[m]))
        expected = qoe_numpy.gaming(*inputs, 60.0, HD, *coefficients(sensitivity, coding))
        assert got[i, j, k, m] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("sensitivity", "coding"), CLASSES)
def test_score_never_rises_with_delay_or_loss_and_stays_on_the_scale(sensitivity, coding):
    got = grid(sensitivity, coding)
    for axis in range(3):
        assert np.diff(got, axis=axis).max() <= 1e-4
    assert got.min() >= 1.3
    assert got.max() <= 4.1401
    assert np.ptp(got) > 2.5


def test_sensitive_games_suffer_more_from_delay():
    low, high = (
        np.asarray(
            jax.vmap(functools.partial(gaming.delay_impairment, sensitivity=s))(DELAYS[4:10])
        )
        for s in (gaming.SENSITIVITIES["low"], gaming.SENSITIVITIES["high"])
    )
    assert (high > low).all()


@pytest.mark.parametrize("which", range(5))
@pytest.mark.parametrize("coding", gaming.CODINGS)
def test_values_and_gradients_are_finite_everywhere(which, coding):
    def model(x):
        inputs = [jnp.float32(v) for v in (60.0, 0.1, 0.1, 10.0, 60.0)]
        inputs[which] = x
        delay, loss, slicing, rate, frames = inputs
        stream = gaming.Stream(rate, frames, HD)
        return gaming.cloud_gaming(delay, loss, slicing, stream, coding=gaming.CODINGS[coding])

    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(model)))(EDGES)
    assert np.isfinite(values).all()
    assert np.isfinite(slopes).all()
    np.testing.assert_allclose(values[8], model(jnp.array(EDGES[8])), rtol=1e-5)
