"""Scenes: who is compromised, what is seen of them, and what is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.simulate import mixes, observe, queue, sources

SCENES = 24
make = jax.jit(jax.vmap(sources.scene, (0, None, None)))


def scenes(prevalence, blur):
    keys = jax.random.split(jax.random.key(3), SCENES)
    return jax.device_get(make(keys, jnp.float32(prevalence), jnp.float32(blur)))


@pytest.fixture(scope="module")
def some():
    return scenes(0.3, 0.0)


def test_shapes_ranges_and_life(some):
    n, slots = sources.SOURCES, sources.ACTED_S * queue.SLOTS
    assert some.x.shape == (SCENES, n, sources.OBSERVED_S, len(observe.FEATURES))
    assert some.offered.shape == (SCENES, n, slots)
    assert np.isfinite(some.x).all()
    assert (some.x >= 0).all()
    assert (some.offered > 0).all()
    assert (some.waiting <= some.site.capacity * some.site.buffer_s * 1.001).all()
    assert 0.2 < (some.label > 0).mean() < 0.4
    assert len(np.unique(some.label)) == len(mixes.LABELS)
    assert (np.bincount(some.service.ravel()) > 50).all()
    assert 0.08 < np.log(some.link / some.site.capacity).std() < 0.22


def test_prevalence_adds_compromised_sources_and_changes_nothing_else(some):
    more, none = scenes(0.6, 0.0), scenes(0.0, 0.0)
    assert not none.label.any()
    kept = some.label > 0
    np.testing.assert_array_equal(more.label[kept], some.label[kept])
    assert (more.label > 0).sum() > kept.sum()
    same = more.label == some.label
    np.testing.assert_allclose(more.offered[same], some.offered[same], rtol=1e-5)
    np.testing.assert_allclose(more.x[same], some.x[same], rtol=1e-4, atol=1e-6)


def test_blur_leaves_the_counters_and_what_happens_alone(some):
    other = scenes(0.3, 2.0)
    counters = [f.name in ("Rate", "Tot sum") for f in observe.FEATURES]
    np.testing.assert_allclose(other.x[..., counters], some.x[..., counters], rtol=1e-4)
    ratio = np.log(other.x[..., 2] / some.x[..., 2])  # mean size: never 0, never clipped
    assert ratio.std() == pytest.approx(2.0, rel=0.2)
    np.testing.assert_allclose(ratio, ratio[..., :1] + 0 * ratio, atol=1e-3)
    np.testing.assert_array_equal(other.label, some.label)
    np.testing.assert_allclose(other.offered, some.offered, rtol=1e-5)


def test_floods_outlast_the_scene_and_chores_need_not(some):
    mean = some.offered.mean(-1) / (some.site.capacity[:, None] * queue.SLOT_S)
    flood = np.isin(some.label, [1, 2])
    assert mean[flood].mean() > 5 * mean[some.label == 0].mean()
    assert mean[some.label == 0].max() > 0.3  # heavy users exist
