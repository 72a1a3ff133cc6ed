"""Server optimizers, by hand, on a delta of two numbers."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from qoejax.fed.server import SERVER_OPTIMIZERS

DELTA = np.array([0.5, -0.25], np.float32)


def moves(opt, deltas):
    """How far the parameters go at each step."""
    params = jnp.zeros(2)
    state, out = opt.init(params), []
    for delta in deltas:
        updates, state = opt.update(-jnp.asarray(delta), state, params)
        params = optax.apply_updates(params, updates)
        out.append(np.asarray(updates))
    return out


@pytest.mark.parametrize("name", SERVER_OPTIMIZERS)
def test_contract_follows_the_delta_and_rests_without_one(name):
    opt = SERVER_OPTIMIZERS[name](1.0)
    (step,) = moves(opt, [DELTA])
    np.testing.assert_array_equal(np.sign(step), np.sign(DELTA))
    np.testing.assert_array_equal(moves(opt, [0 * DELTA])[0], 0)
    (slow,) = moves(SERVER_OPTIMIZERS[name](0.1), [DELTA])
    np.testing.assert_allclose(slow, 0.1 * step, rtol=1e-5)


def test_closed_forms():
    np.testing.assert_array_equal(moves(SERVER_OPTIMIZERS["sgd"](), [DELTA])[0], DELTA)
    _, second = moves(SERVER_OPTIMIZERS["momentum"](), [DELTA, DELTA])
    np.testing.assert_allclose(second, 1.9 * DELTA, rtol=1e-6)
    (first,) = moves(SERVER_OPTIMIZERS["adam"](0.1), [DELTA])
    np.testing.assert_allclose(first, 0.1 * DELTA / (np.abs(DELTA) + 1e-3), rtol=1e-5)
    (first,) = moves(SERVER_OPTIMIZERS["adagrad"](0.1), [DELTA])
    np.testing.assert_allclose(first, 0.1 * DELTA / np.sqrt(DELTA**2 + 2e-6), rtol=1e-5)
    yogi = moves(SERVER_OPTIMIZERS["yogi"](0.1), [DELTA, DELTA])
    adam = moves(SERVER_OPTIMIZERS["adam"](0.1), [DELTA, DELTA])
    np.testing.assert_allclose(yogi[0], adam[0], rtol=2e-2)  # they differ in how v shrinks
