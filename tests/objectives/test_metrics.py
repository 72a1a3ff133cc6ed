import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from sklearn import metrics as sk

from qoejax.objectives import metrics
from tests.reference import objectives as reference

C = 5


def sample(seed=0, rows=400, absent=()):
    """Imperfect probabilities of imbalanced labels, with ties; ``absent`` never are the truth."""
    rng = np.random.default_rng(seed)
    share = np.array([0.5, 0.25, 0.15, 0.08, 0.02])
    share[list(absent)] = 0
    label = rng.choice(C, rows, p=share / share.sum()).astype(np.int32)
    logits = rng.normal(size=(rows, C)) + 1.5 * np.eye(C)[label]
    probability = np.exp(np.round(logits, 1))
    return (probability / probability.sum(1, keepdims=True)).astype(np.float32), label


@pytest.mark.parametrize("absent", [(), (3,), (1, 4)])
def test_class_figures_equal_scikit_learn(absent):
    probability, label = sample(absent=absent)
    out = metrics.classification(probability, label, benign=0)
    pred, seen = probability.argmax(1), np.unique(label)
    kwargs = {"labels": seen, "zero_division": 0}
    macro = {"average": "macro", **kwargs}
    expected = {
        "accuracy": sk.accuracy_score(label, pred),
        "macro_f1": sk.f1_score(label, pred, **macro),
        "weighted_f1": sk.f1_score(label, pred, average="weighted", **kwargs),
        "precision": sk.precision_score(label, pred, **macro),
        "recall": sk.recall_score(label, pred, **macro),
        "balanced_accuracy": sk.recall_score(label, pred, **macro),
        "mcc": sk.matthews_corrcoef(label, pred),
        "pr_auc": np.mean(
            [sk.average_precision_score(label == c, probability[:, c]) for c in seen]
        ),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(out[name], value, rtol=1e-9, err_msg=name)
    figures = sk.precision_recall_fscore_support(label, pred, average=None, **kwargs)
    for i, c in enumerate(seen):
        ours = list(out["per_class"][str(c)].values())
        np.testing.assert_allclose(ours, [f[i] for f in figures], rtol=1e-9)
    for c in absent:  # predicted, never true
        assert out["per_class"][str(c)]["recall"] is None
        assert out["per_class"][str(c)]["support"] == 0


def test_detection_figures_equal_scikit_learn():
    probability, label = sample(1)
    out = metrics.classification(probability, label, benign=0)
    attack = label != 0
    score = np.delete(np.asarray(probability, np.float64), 0, axis=1).sum(1)
    fpr, tpr, _ = sk.roc_curve(attack, score, drop_intermediate=False)
    np.testing.assert_allclose(out["fpr_at_95_recall"], fpr[tpr >= 0.95].min())
    np.testing.assert_allclose(out["pr_auc_attack"], sk.average_precision_score(attack, score))
    np.testing.assert_allclose(score, 1 - probability[:, 0], atol=1e-6)


def test_precision_restated_by_hand():
    """90 % recall and 2 % false alarms: of 1,000 alarms at 1 % attacks, about 313 are right."""
    value = metrics.restated_precision(0.9, 0.02, 0.01)
    assert value == pytest.approx(0.009 / (0.009 + 0.0198))
    assert metrics.restated_precision(0.9, 0.0, 0.001) == 1
    assert metrics.restated_precision(0.0, 0.0, 0.01) is None
    probability, label = sample(1)
    out = metrics.classification(probability, label, benign=0)
    alarm = probability.argmax(1) != 0
    rates = alarm[label != 0].mean(), alarm[label == 0].mean()
    for prevalence in (0.01, 0.001):
        expected = prevalence * rates[0] / (prevalence * rates[0] + (1 - prevalence) * rates[1])
        assert out["precision_at_prevalence"][str(prevalence)] == pytest.approx(expected)
    recall, fpr = metrics.rates_at_recall(1 - probability[:, 0].astype(float), label != 0)
    assert recall >= 0.95
    at_95 = metrics.restated_precision(recall, fpr, 0.01)
    assert out["precision_at_95_recall_and_prevalence"]["0.01"] == pytest.approx(at_95, rel=1e-3)


def test_restating_at_the_split_s_own_prevalence_gives_its_precision():
    probability, label = sample(2)
    alarm, attack = probability.argmax(1) != 0, label != 0
    value = metrics.restated_precision(alarm[attack].mean(), alarm[~attack].mean(), attack.mean())
    np.testing.assert_allclose(value, sk.precision_score(attack, alarm))


def test_calibration_error_equals_the_loops():
    probability, label = sample(3)
    np.testing.assert_allclose(
        metrics.ece(probability, label), reference.ece(probability, label), rtol=1e-6
    )
    sure = np.eye(C)[label]
    assert metrics.ece(sure, label) == 0
    assert metrics.ece(sure, (label + 1) % C) == 1


def test_a_split_with_one_class_has_no_detection_figures():
    probability, _ = sample()
    for label in (0, 2):
        out = metrics.classification(probability, np.full(400, label), benign=0)
        assert out["fpr_at_95_recall"] is None
        assert out["pr_auc_attack"] is None
        assert set(out["precision_at_prevalence"].values()) == {None}
        assert out["mcc"] == 0
        assert out["pr_auc"] == 1
        json.dumps(out, allow_nan=False)


def test_unknown_labels_do_not_count():
    probability, label = sample()
    hidden = np.where(np.arange(400) % 3 == 0, -1, label)
    kept = hidden >= 0
    assert metrics.classification(probability, hidden, benign=0) == metrics.classification(
        probability[kept], label[kept], benign=0
    )


def test_names_are_used():
    probability, label = sample()
    out = metrics.classification(probability, label, benign=0, names=list("abcde"))
    assert set(out["per_class"]) == set("abcde")
    assert out["per_class"]["a"]["support"] == (label == 0).sum()


def test_order_of_rows_does_not_matter():
    probability, label = sample(5)
    order = np.random.default_rng(0).permutation(len(label))
    a = metrics.classification(probability, label, benign=0)
    b = metrics.classification(probability[order], label[order], benign=0)
    jax.tree.map(lambda u, v: np.testing.assert_allclose(u, v, rtol=1e-12), a, b)


def test_what_does_not_fit_is_refused():
    probability, label = sample()
    with pytest.raises(ValueError, match="at least one labelled row"):
        metrics.classification(probability, np.full(400, -1), benign=0)
    for args in (
        (probability[:, :2], label, 0),
        (probability, label[:5], 0),
        (probability, label, 9),
    ):
        with pytest.raises(ValueError, match="do not fit labels"):
            metrics.classification(args[0], args[1], benign=args[2])


def test_confusion_matrices_of_batches_add_up():
    probability, label = sample(6)
    label[::7] = -1
    weight = np.ones(400, np.float32)
    weight[::5] = 0
    pred = probability.argmax(1).astype(np.int32)
    part = jax.jit(metrics.confusion, static_argnums=3)
    total = sum(
        np.asarray(part(*(jnp.asarray(a[i : i + 100]) for a in (pred, label, weight)), C))
        for i in range(0, 400, 100)
    )
    kept = (label >= 0) & (weight > 0)
    np.testing.assert_array_equal(
        total, sk.confusion_matrix(label[kept], pred[kept], labels=range(C))
    )
    same = metrics.classification(probability[kept], label[kept], benign=0)
    assert metrics.from_confusion(total)["macro_f1"] == pytest.approx(same["macro_f1"])


def opinions(seed=0, rows=300):
    rng = np.random.default_rng(seed)
    target = rng.uniform(1, 5, rows).astype(np.float32)
    predicted = np.clip(target + rng.normal(0, 0.5, rows), 1, 5).astype(np.float32)
    return predicted, target


def test_mos_figures_equal_scipy():
    predicted, target = opinions()
    half_width = np.full(300, 0.4)
    out = metrics.mos(predicted, target, half_width=half_width, reference=np.full(300, 3.0))
    error = target.astype(np.float64) - predicted
    expected = {
        "n": 300,
        "plcc": scipy.stats.pearsonr(target, predicted).statistic,
        "srocc": scipy.stats.spearmanr(target, predicted).statistic,
        "rmse": np.sqrt(np.sum(error**2) / 299),
        "rmse_star": np.sqrt(np.sum(np.maximum(abs(error) - 0.4, 0) ** 2) / 299),
        "outlier_ratio": (abs(error) > 0.4).mean(),
        "mae": abs(error).mean(),
        "skill": 1 - np.mean(error**2) / np.mean((target - 3.0) ** 2),
    }
    assert out.pop("missing") == {}
    interval = out.pop("interval")
    between = scipy.stats.pearsonr(target, predicted).confidence_interval()
    np.testing.assert_allclose(interval["plcc"], between, rtol=1e-5)
    assert set(interval) == {"plcc", "srocc", "rmse", "rmse_star", "outlier_ratio"}
    assert all(low < out[name] < high for name, (low, high) in interval.items())
    assert set(out) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(out[name], value, rtol=1e-5, err_msg=name)


def test_missing_mos_figures_say_why():
    predicted, target = opinions()
    out = metrics.mos(predicted, target)
    assert out["rmse_star"] is None
    assert out["skill"] is None
    assert "ratings" in out["missing"]["rmse_star"]
    assert "reference" in out["missing"]["skill"]
    flat = metrics.mos(np.full(300, 3.0), target, reference=target)
    assert flat["plcc"] is None
    assert flat["srocc"] is None
    assert flat["skill"] is None
    assert set(flat["missing"]) == {"plcc", "srocc", "rmse_star", "outlier_ratio", "skill"}
    one = metrics.mos(predicted[:1], target[:1])
    assert one["rmse"] is None
    assert one["interval"] == {}
    assert set(flat["interval"]) == {"rmse"}
    assert one["missing"]["rmse"] == "1 rated rows, more than 1 needed"
    json.dumps([out, flat, one], allow_nan=False)


def test_mos_sums_of_batches_add_up():
    predicted, target = (v.reshape(150, 2) for v in opinions(1))
    mask = np.random.default_rng(2).random((150, 2)) < 0.6
    mask[:, 1] = False
    weight = (np.arange(150) % 4 > 0).astype(np.float32)
    dirty = np.where(mask, target, np.nan).astype(np.float32)
    part = jax.jit(metrics.mos_sums)
    rows = [jnp.asarray(a) for a in (predicted, dirty, mask, weight)]
    parts = [part(*(a[i : i + 50] for a in rows)) for i in (0, 50, 100)]
    out = metrics.mos_ratios(jax.tree.map(lambda *leaves: sum(leaves), *parts))
    kept = mask[:, 0] & (weight > 0)
    p, t = predicted[kept, 0], target[kept, 0]
    np.testing.assert_allclose(out["plcc"][0], scipy.stats.pearsonr(p, t).statistic, rtol=1e-4)
    np.testing.assert_allclose(out["rmse"][0], np.sqrt(np.mean((p - t) ** 2)), rtol=1e-4)
    np.testing.assert_allclose(out["mae"][0], np.mean(abs(p - t)), rtol=1e-4)
    assert np.isnan([out[name][1] for name in out]).all()
