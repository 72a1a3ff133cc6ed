"""Weights by held-out MOS error and recall, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.fed import judge
from qoejax.qoe import scales
from qoejax.types import Examples

N, C, M = 60, 3, 5


def rows(rated=True):
    rng = np.random.default_rng(8)
    mask = rng.random((N, 2)) < 0.6 if rated else np.zeros((N, 2), bool)
    return Examples(
        x=jnp.asarray(rng.normal(size=(N, 1, 4)), jnp.float32),
        label=jnp.asarray(rng.choice(2, N), jnp.int32),  # one class never occurs
        mos=jnp.asarray(rng.uniform(1, 5, (N, 2)), jnp.float32),
        mos_mask=jnp.asarray(mask),
        weight=jnp.ones(N),
    )


def predict(params, x):
    flat = x[:, 0]
    return {"logits": flat @ params["c"], "mos": (flat @ params["m"]).reshape(-1, 2, M)}


def params(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return {
        "c": jnp.asarray(scale * rng.normal(size=(4, C)), jnp.float32),
        "m": jnp.asarray(scale * rng.normal(size=(4, 2 * M)), jnp.float32),
    }


def reference(params, held, mos_share):
    out = jax.device_get(predict(params, held.x))
    label, mask = np.asarray(held.label), np.asarray(held.mos_mask)
    pred = out["logits"].argmax(-1)
    recall = np.mean([(pred[label == c] == c).mean() for c in np.unique(label)])
    error = (np.asarray(scales.mean(jnp.asarray(out["mos"]))) - np.asarray(held.mos))[mask]
    rmse = np.sqrt(np.mean(error**2)) if mask.any() else 0.0
    return (1 - mos_share) * (1 - recall) + mos_share * rmse / 4


@pytest.mark.parametrize("rated", [True, False])
def test_weights_equal_numpy(rated):
    held, start = rows(rated), params(0)
    deltas = [params(seed, 0.5) for seed in range(1, 5)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *deltas)
    weight = jnp.array([3.0, 1.0, 0.0, 2.0])
    weigh = judge.by_experience(predict, held, mos_share=0.3, temperature=0.1)
    got = np.asarray(jax.jit(lambda d, w: weigh(start, lambda m: m, d, w))(stacked, weight))
    before = reference(start, held, 0.3)
    after = [reference(jax.tree.map(jnp.add, start, d), held, 0.3) for d in deltas]
    want = np.asarray(weight) * np.exp((before - np.array(after)) / 0.1)
    np.testing.assert_allclose(got, want, rtol=1e-3)
    assert len({round(float(w), 4) for w in got}) == 4


@pytest.mark.slow
def test_an_update_that_helps_counts_more_and_bad_ones_next_to_nothing():
    held = rows()
    start = {"c": jnp.zeros((4, C)), "m": jnp.zeros((4, 2 * M))}
    truth = jax.nn.one_hot(held.label, C) * 2 - 1
    solve = np.linalg.lstsq(np.asarray(held.x[:, 0]), np.asarray(truth), rcond=None)[0]
    good = {"c": jnp.asarray(solve, jnp.float32), "m": jnp.zeros((4, 2 * M))}
    bad = jax.tree.map(jnp.negative, good)
    deltas = jax.tree.map(lambda *leaves: jnp.stack(leaves), good, bad)
    weigh = judge.by_experience(predict, held, mos_share=0.0, temperature=0.02)
    got = weigh(start, lambda m: m, deltas, jnp.ones(2))
    assert got[0] > 1 > got[1] > 0


def test_bad_arguments_are_named():
    for kwargs in ({"mos_share": 1.5}, {"temperature": 0.0}):
        with pytest.raises(ValueError, match="mos_share <= 1 and temperature > 0"):
            judge.by_experience(predict, rows(), **kwargs)
