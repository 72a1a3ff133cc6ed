"""Predictions in micro-batches equal predictions at once."""

import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.fed.evaluate import make_evaluator


def predict(params, x):
    return {"logits": x[:, 0] @ params, "mos": x.sum((1, 2))}


@pytest.mark.parametrize("rows", [1, 8, 19])
def test_every_row_in_order(rows):
    x = np.random.default_rng(0).normal(size=(rows, 2, 3)).astype(np.float32)
    params = jnp.arange(6.0).reshape(3, 2)
    out = make_evaluator(predict, 8)(params, x)
    assert out["logits"].shape == (rows, 2)
    np.testing.assert_allclose(out["logits"], x[:, 0] @ np.asarray(params), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(out["mos"], x.sum((1, 2)), rtol=1e-5, atol=1e-5)


def test_one_trace_for_each_number_of_rows():
    traces = []

    def counting(params, x):
        traces.append(x.shape)
        return x * params

    evaluator = make_evaluator(counting, 4)
    for _ in range(3):
        evaluator(jnp.float32(2), np.ones((5, 1), np.float32))
    assert traces == [(4, 1)]


def test_no_rows_and_bad_arguments():
    assert make_evaluator(predict, 8)(jnp.ones((3, 2)), np.ones((0, 2, 3), np.float32))[
        "logits"
    ].shape == (0, 2)
    with pytest.raises(ValueError, match="batch >= 1"):
        make_evaluator(predict, 0)
    with pytest.raises(ValueError, match="number of rows"):
        make_evaluator(lambda p, x: x, 2)(0.0, {"a": jnp.ones(3), "b": jnp.ones(4)})
