"""The two-task objective: closed forms, padding, micro-batches, absent tasks."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.objectives import losses
from qoejax.types import Examples
from tests.reference import objectives as reference

B, T, F, C, Q, M = 6, 1, 5, 3, 2, 7
WEIGHT = losses.class_weights(np.array([5, 3, 1]), "balanced")


class LinearNet(NamedTuple):
    """A net of two matrices, to which a key adds noise."""

    def init(self, key, x):
        del key
        rng = np.random.default_rng(3)
        shapes = {"logits": (F, C), "mos": (F, Q * M)}
        return {n: jnp.asarray(rng.normal(size=s), jnp.float32) for n, s in shapes.items()}

    def apply(self, params, x, *, key=None):
        x = x[:, 0] if key is None else x[:, 0] + jax.random.normal(key, x[:, 0].shape)
        return {"logits": x @ params["logits"], "mos": (x @ params["mos"]).reshape(-1, Q, M)}


NET = LinearNet()


def make(**kwargs):
    return losses.make_loss(NET, class_weight=WEIGHT, **kwargs)


def batch(label=(0, 1, 2, -1, 1, -1), weight=(1.0, 1.0, 0.5, 1.0, 0.0, 2.0)):
    rng = np.random.default_rng(4)
    mask = np.array([[1, 1], [0, 1], [0, 0], [1, 0], [1, 1], [0, 0]], bool)
    return Examples(
        x=jnp.asarray(rng.normal(size=(B, T, F)), jnp.float32),
        label=jnp.asarray(label, jnp.int32),
        mos=jnp.asarray(rng.uniform(1, 5, (B, Q)), jnp.float32),
        mos_mask=jnp.asarray(mask),
        weight=jnp.asarray(weight, jnp.float32),
    )


def value_and_grad(objective, params, rows):
    return jax.jit(jax.value_and_grad(objective.loss_fn, has_aux=True))(params, rows, None)


def close(a, b, **kw):
    jax.tree.map(lambda u, v: np.testing.assert_allclose(u, v, rtol=1e-5, atol=1e-6, **kw), a, b)


@pytest.mark.parametrize("name", losses.MOS_LOSSES)
def test_loss_and_sums_equal_the_loops(name):
    objective, rows = make(mos_loss=name, mos_weight=0.7), batch()
    params = objective.init(jax.random.key(0), rows.x)
    assert set(params) == {"net"}
    (loss, sums), _ = value_and_grad(objective, params, rows)
    out = jax.tree.map(np.asarray, objective.predict(params, rows.x))
    by_loops = {"rps": reference.rps, "two_hot": reference.two_hot_cross_entropy}[name]
    expected, expected_sums = reference.objective(
        out, jax.tree.map(np.asarray, rows), WEIGHT, by_loops, 0.7
    )
    close(loss, expected)
    close(sums, expected_sums)
    assert sums["count"] == 3.5  # the last row teaches nothing, whatever its weight


def test_padding_is_invisible():
    objective, rows = make(), batch()
    params = objective.init(jax.random.key(0), rows.x)
    padded = jax.tree.map(lambda a: jnp.concatenate([a, a[:3]]), rows)
    padded = padded._replace(weight=padded.weight.at[B:].set(0.0))
    close(value_and_grad(objective, params, rows), value_and_grad(objective, params, padded))


@pytest.mark.parametrize("weighting", losses.WEIGHTINGS)
def test_nothing_to_learn_gives_zero_loss_and_gradient(weighting):
    objective = make(weighting=weighting)
    for rows in (
        batch(weight=[0.0] * B),
        batch(label=[-1] * B)._replace(mos_mask=jnp.zeros((B, Q), bool)),
    ):
        params = objective.init(jax.random.key(0), rows.x)
        (loss, _), grad = value_and_grad(objective, params, rows)
        assert loss == 0
        assert all((g == 0).all() for g in jax.tree.leaves(grad))


def test_micro_batches_add_up():
    objective, rows = make(weighting="uncertainty"), batch()
    params = objective.init(jax.random.key(0), rows.x)
    (loss, sums), grad = value_and_grad(objective, params, rows)
    parts = [jax.tree.map(lambda a, i=i: a[i : i + 2], rows) for i in (0, 2, 4)]
    results = [value_and_grad(objective, params, part) for part in parts]
    added = jax.tree.map(lambda *leaves: sum(leaves), *(s for (_, s), _ in results))
    close(added, sums)
    close(added["loss_sum"] / added["count"], loss)
    counts = [s["count"] for (_, s), _ in results]
    weighted = jax.tree.map(
        lambda *leaves: sum(c * g for c, g in zip(counts, leaves, strict=True)) / sum(counts),
        *(g for _, g in results),
    )
    close(weighted, grad)


def test_masked_ratings_may_be_anything():
    objective, rows = make(), batch()
    params = objective.init(jax.random.key(0), rows.x)
    dirty = rows._replace(mos=jnp.where(rows.mos_mask, rows.mos, jnp.nan))
    jax.tree.map(
        np.testing.assert_array_equal,
        value_and_grad(objective, params, rows),
        value_and_grad(objective, params, dirty),
    )


def test_uncertainty_weighting_by_hand():
    """exp(-s) l + s / 2 for each task of an example that has it (Kendall et al. 2018)."""
    objective, rows = make(weighting="uncertainty", mos_weight=0.7), batch()
    params = objective.init(jax.random.key(0), rows.x)
    assert jax.tree.map(float, params["task"]) == {"class_log_var": 0.0, "mos_log_var": 0.0}
    (at_zero, _), _ = value_and_grad(objective, params, rows)
    (fixed, sums), _ = value_and_grad(make(mos_weight=0.7), {"net": params["net"]}, rows)
    close(at_zero, fixed)
    params["task"] = {"class_log_var": jnp.array(0.4), "mos_log_var": jnp.array(-1.0)}
    (loss, _), grad = value_and_grad(objective, params, rows)
    on_class, labelled = sums["class_loss_sum"], sums["class_count"]
    on_mos = (sums["loss_sum"] - on_class) / 0.7
    rated = 3.0  # weight of the rows with a rating
    expected = np.exp(-0.4) * on_class + 0.2 * labelled + 0.7 * (np.e * on_mos - 0.5 * rated)
    close(loss, expected / sums["count"])
    slope = (-np.exp(-0.4) * on_class + labelled / 2) / sums["count"]
    close(grad["task"]["class_log_var"], slope)


def test_an_absent_task_leaves_its_log_variance_alone():
    objective = make(weighting="uncertainty")
    rows = batch()._replace(mos_mask=jnp.zeros((B, Q), bool))
    params = objective.init(jax.random.key(0), rows.x)
    _, grad = value_and_grad(objective, params, rows)
    assert grad["task"]["mos_log_var"] == 0
    assert grad["task"]["class_log_var"] != 0


def test_without_mos_weight_only_labelled_rows_count():
    objective, rows = make(mos_weight=0.0), batch()
    params = objective.init(jax.random.key(0), rows.x)
    (loss, sums), grad = value_and_grad(objective, params, rows)
    assert sums["count"] == sums["class_count"] == 2.5
    close(loss, sums["class_loss_sum"] / 2.5)
    assert (grad["net"]["mos"] == 0).all()


def test_the_key_reaches_the_net_and_predict_has_none():
    objective, rows = make(), batch()
    params = objective.init(jax.random.key(0), rows.x)
    loss = jax.jit(lambda key: objective.loss_fn(params, rows, key)[0])
    noisy = [float(loss(jax.random.key(k))) for k in (1, 1, 2)]
    assert noisy[0] == noisy[1] != noisy[2]
    close(objective.predict(params, rows.x), NET.apply(params["net"], rows.x))


def test_focal_and_smoothing_are_passed_on():
    rows = batch()._replace(mos_mask=jnp.zeros((B, Q), bool))
    objective = make(class_loss="focal", focal_gamma=1.5, label_smoothing=0.1)
    params = objective.init(jax.random.key(0), rows.x)
    out = np.asarray(objective.predict(params, rows.x)["logits"])
    label, weight = np.asarray(rows.label), np.asarray(rows.weight)
    expected = sum(
        weight[i] * WEIGHT[c] * reference.class_loss(out[i], c, 0.1, 1.5)
        for i, c in enumerate(label)
        if c >= 0
    )
    close(value_and_grad(objective, params, rows)[0][1]["loss_sum"], expected)


def test_net_and_data_must_agree():
    rows = batch()
    params = make().init(jax.random.key(0), rows.x)
    few = losses.make_loss(NET, class_weight=np.ones(2, np.float32))
    with pytest.raises(ValueError, match="the net has 3 classes, class_weight 2"):
        few.loss_fn(params, rows, None)
    one = rows._replace(mos=rows.mos[:, :1], mos_mask=rows.mos_mask[:, :1])
    with pytest.raises(ValueError, match="the net has 2 services, the data 1"):
        make().loss_fn(params, one, None)


def test_data_without_services_trains_the_class_head():
    objective, rows = make(), batch()
    params = objective.init(jax.random.key(0), rows.x)
    none = rows._replace(mos=rows.mos[:, :0], mos_mask=rows.mos_mask[:, :0])
    masked = rows._replace(mos_mask=jnp.zeros((B, Q), bool))
    close(value_and_grad(objective, params, none), value_and_grad(objective, params, masked))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"class_loss": "hinge"}, "class_loss 'hinge': expected one of cross_entropy, focal"),
        ({"mos_loss": "mse"}, "mos_loss 'mse': expected one of rps, two_hot"),
        ({"weighting": "gradnorm"}, "weighting 'gradnorm': expected one of fixed, uncertainty"),
        ({"mos_weight": -1.0}, "mos_weight: expected 0 or more"),
        ({"label_smoothing": 1.5}, "label_smoothing"),
        ({"focal_gamma": 2.0}, "cross_entropy has no focal_gamma"),
    ],
)
def test_bad_settings_are_refused_at_once(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make(**kwargs)
