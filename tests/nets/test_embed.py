from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.nets.embed import EMBEDDINGS, Periodic, Piecewise, waves
from tests.nets.helpers import started
from tests.reference import nets as reference

F = 4
X = jnp.array([[-4.0, -0.3, 0.0, 5.0], [0.2, 1.1, -2.0, 0.7]])


@pytest.mark.parametrize("kind", EMBEDDINGS)
def test_each_feature_has_numbers_of_its_own(kind):
    params, apply = started(EMBEDDINGS[kind](size=3), X)
    out = np.asarray(apply(params, X))
    assert out.shape == (2, F, 1 if kind == "none" else 3)
    moved = np.asarray(apply(params, X + jnp.array([[0.0, 1.0, 0.0, 0.0]])))
    changed = (out != moved).any((0, 2))
    assert changed.tolist() == [False, True, False, False]
    # Equal values of two features become different vectors, except where nothing is learned.
    equal = np.asarray(apply(params, jnp.ones((2, F))))[0]
    assert bool((equal[0] == equal[1]).all()) == (kind == "none")


def test_piecewise_is_the_encoding_by_loops():
    params, apply = started(Piecewise(size=3, knots=5), X)
    knots = [NormalDist().inv_cdf((i + 0.5) / 5) for i in range(5)]
    for row, out in zip(np.asarray(X), apply(params, X), strict=True):
        h = np.stack([reference.ramps(v, knots) for v in row])
        np.testing.assert_allclose(out, reference.layer(h, **params["params"]), atol=1e-5)


def test_periodic_is_the_encoding_by_loops():
    params, apply = started(Periodic(size=3, frequencies=2), X)
    layer = dict(params["params"])
    frequency = np.asarray(layer.pop("frequency"))
    for row, out in zip(np.asarray(X), apply(params, X), strict=True):
        h = np.stack([reference.waves(v, c) for v, c in zip(row, frequency, strict=True)])
        np.testing.assert_allclose(out, reference.layer(h, **layer), atol=1e-5)


def test_waves_are_sine_and_cosine():
    """Within float32 rounding, also far from zero, and so are their derivatives."""
    near = np.linspace(-3, 3, 20_001)
    turns = np.concatenate([near, near * 1e3, [0.25, -0.25, 0.5, -0.5, 1.0]]).astype(np.float32)
    exact = 2 * np.pi * turns.astype(np.float64)
    points = jnp.asarray(turns)
    sine, cosine = waves(points)
    np.testing.assert_allclose(sine, np.sin(exact), atol=4e-7)
    np.testing.assert_allclose(cosine, np.cos(exact), atol=4e-7)
    for i, slope in enumerate((np.cos(exact), -np.sin(exact))):
        own = jax.vmap(jax.grad(lambda t, i=i: waves(t)[i]))(points)
        np.testing.assert_allclose(own, 2 * np.pi * slope, atol=3e-6)
        forward = jax.jvp(lambda t, i=i: waves(t)[i], (points,), (jnp.ones_like(points),))[1]
        np.testing.assert_allclose(own, forward, atol=1e-6)


def test_half_precision_keeps_the_angles():
    """A large value's phase would be lost in bfloat16."""
    x = jnp.full((1, F), 100.3)
    module = Periodic(size=3)
    params = module.init(jax.random.key(0), x)
    low = Periodic(size=3, dtype=jnp.dtype("bfloat16")).apply(params, x)
    assert low.dtype == jnp.bfloat16
    np.testing.assert_allclose(low.astype(jnp.float32), module.apply(params, x), atol=0.05)
