"""Sums and counts to ratios. Sums: JAX, on the device. Ratios: NumPy, float64, on the host.

Class figures come from a confusion matrix and from stored probabilities of all rows. Means over
classes ("macro") are over the classes that occur in the truth: a class without a true row has no
recall, so it is left out of every macro mean; rows wrongly given to it still lower the recall of
the classes they came from. A figure that the rows cannot give is None, never NaN.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Array, Float, Int

from qoejax.qoe import p1401, scales

PREVALENCES = (0.01, 0.001)
"""Attack shares at which precision is restated: test splits hold far more attacks than networks."""

# On the device.


def confusion(
    pred: Int[Array, " B"], label: Int[Array, " B"], weight: Float[Array, " B"], classes: int
) -> Float[Array, "C C"]:
    """Confusion matrix, truth by rows; matrices of batches add up.

    Rows with an unknown label (-1) or weight 0 do not count. Cells are float32: exact up to 2^24
    rows each, so add the matrices of large test sets on the host.
    """
    truth = jax.nn.one_hot(label, classes) * weight[:, None]  # a label of -1 is all zeros
    return truth.T @ jax.nn.one_hot(pred, classes)


def mos_sums(
    predicted: Float[Array, "B Q"],
    mos: Float[Array, "B Q"],
    mask: Array,
    weight: Float[Array, " B"],
) -> dict[str, Float[Array, " Q"]]:
    """Moments of forecasts and targets per service, of which ``mos_ratios`` makes figures.

    Scores are taken about the middle of the scale, which keeps float32 variances exact enough.
    """
    w = mask.astype(jnp.float32) * weight[:, None]
    middle = (scales.LOW + scales.HIGH) / 2
    p = jnp.where(mask, predicted, middle) - middle
    t = jnp.where(mask, mos, middle) - middle
    moments = {"n": w, "p": w * p, "t": w * t, "pp": w * p * p, "tt": w * t * t, "pt": w * p * t}
    moments |= {"se": w * (p - t) ** 2, "ae": w * jnp.abs(p - t)}
    return {name: value.sum(0) for name, value in moments.items()}


# On the host.


def mos_ratios(sums: dict[str, Any]) -> dict[str, np.ndarray]:
    """``plcc``, ``rmse`` (over N, where P.1401 has N - 1) and ``mae`` [Q]; NaN if undefined."""
    s = {name: np.asarray(value, np.float64) for name, value in sums.items()}
    with np.errstate(divide="ignore", invalid="ignore"):
        n = np.where(s["n"] > 0, s["n"], np.nan)
        cov = s["pt"] / n - s["p"] * s["t"] / n**2
        var_p, var_t = s["pp"] / n - (s["p"] / n) ** 2, s["tt"] / n - (s["t"] / n) ** 2
        plcc = np.where((var_p > 1e-9) & (var_t > 1e-9), cov / np.sqrt(var_p * var_t), np.nan)
        return {"plcc": plcc, "rmse": np.sqrt(s["se"] / n), "mae": s["ae"] / n}


def from_confusion(matrix: Float[np.ndarray, "C C"] | Int[np.ndarray, "C C"]) -> dict[str, Any]:
    """Accuracy, MCC and macro figures of a confusion matrix, truth by rows.

    A class that is never predicted has precision 0. ``mcc`` is the multi-class form (Gorodkin
    2004), 0 where truth or predictions are constant.

    Returns:
        "accuracy", "macro_f1", "weighted_f1", "precision" and "recall" (macro),
        "balanced_accuracy" (equal to "recall"), "mcc", and "per_class" arrays [C] of "precision",
        "recall", "f1", "support".

    Raises:
        ValueError: No row at all.
    """
    m = np.asarray(matrix, np.float64)
    total = m.sum()
    if total <= 0:
        raise ValueError("class figures: expected at least one labelled row, got none")
    hits, truth, said = np.diag(m), m.sum(1), m.sum(0)
    precision = np.divide(hits, said, out=np.zeros_like(hits), where=said > 0)
    recall = np.divide(hits, truth, out=np.zeros_like(hits), where=truth > 0)
    f1 = np.divide(2 * hits, said + truth, out=np.zeros_like(hits), where=said + truth > 0)
    seen = truth > 0
    spread = math.sqrt((total**2 - said @ said) * (total**2 - truth @ truth))
    return {
        "accuracy": float(hits.sum() / total),
        "macro_f1": float(f1[seen].mean()),
        "weighted_f1": float(f1 @ truth / total),
        "precision": float(precision[seen].mean()),
        "recall": float(recall[seen].mean()),
        "mcc": float((hits.sum() * total - said @ truth) / spread) if spread > 0 else 0.0,
        "balanced_accuracy": float(recall[seen].mean()),
        "per_class": {"precision": precision, "recall": recall, "f1": f1, "support": truth},
    }


def _ranked(score: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True and false positives at every distinct threshold, from the highest down."""
    order = np.argsort(-score, kind="stable")
    score, positive = score[order], positive[order]
    ends = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)
    hits = np.cumsum(positive)[ends]
    return hits.astype(np.float64), ends + 1.0 - hits


def average_precision(score: Float[np.ndarray, " N"], positive: np.ndarray) -> float | None:
    """Area under the precision-recall curve as a step function; None without positives."""
    if not positive.any():
        return None
    hits, false = _ranked(score, positive)
    gained = np.diff(hits, prepend=0.0)
    return float(np.sum(gained * hits / (hits + false)) / hits[-1])


def auroc(score: Float[np.ndarray, " N"], positive: np.ndarray) -> float | None:
    """Chance that a positive row's score is above a negative one's, ties half (Mann-Whitney).

    None unless there are positives and negatives.
    """
    count = int(np.count_nonzero(positive))
    if count in (0, len(positive)):
        return None
    ranks = scipy.stats.rankdata(score)[positive].sum() - count * (count + 1) / 2
    return float(ranks / (count * (len(positive) - count)))


def rates_at_recall(
    score: Float[np.ndarray, " N"], positive: np.ndarray, recall: float = 0.95
) -> tuple[float, float] | None:
    """Recall and false positive rate at the highest threshold whose recall is at least ``recall``.

    None unless there are positives and negatives.
    """
    if positive.all() or not positive.any():
        return None
    hits, false = _ranked(score, positive)
    at = int(np.searchsorted(hits, recall * hits[-1] * (1 - 1e-12)))
    return float(hits[at] / hits[-1]), float(false[at] / false[-1])


def ece(
    probability: Float[np.ndarray, "N C"], label: Int[np.ndarray, " N"], bins: int = 15
) -> float:
    """Expected calibration error of the top class over equal bins (l, u] (Guo et al. 2017)."""
    confidence = np.asarray(probability.max(1), np.float64)
    right = probability.argmax(1) == label
    cell = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    rows = np.maximum(np.bincount(cell, minlength=bins), 1)
    gap = np.bincount(cell, right, bins) - np.bincount(cell, confidence, bins)
    return float(np.sum(np.abs(gap / rows) * np.bincount(cell, minlength=bins)) / len(label))


def restated_precision(
    recall: float, false_positive_rate: float, prevalence: float
) -> float | None:
    """Precision of an attack alarm where a share ``prevalence`` of the records are attacks.

    None where nothing raises an alarm. A false positive rate of 0 on few benign rows says
    little: the figure is then 1.
    """
    alarms = prevalence * recall + (1 - prevalence) * false_positive_rate
    return prevalence * recall / alarms if alarms > 0 else None


def _detection(score: np.ndarray, alarm: np.ndarray, attack: np.ndarray) -> dict[str, Any]:
    """Figures of attack against benign; None where the rows hold only one of the two."""
    at_95 = rates_at_recall(score, attack)
    out: dict[str, Any] = {
        "pr_auc_attack": average_precision(score, attack) if at_95 else None,
        "fpr_at_95_recall": at_95[1] if at_95 else None,
    }
    decided = (float(alarm[attack].mean()), float(alarm[~attack].mean())) if at_95 else None
    for name, rates in (("precision_at", decided), ("precision_at_95_recall_and", at_95)):
        out[f"{name}_prevalence"] = {
            str(share): restated_precision(*rates, share) if rates else None
            for share in PREVALENCES
        }
    return out


def classification(
    probability: Float[np.ndarray, "N C"],
    label: np.ndarray,
    *,
    benign: int,
    names: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Every class figure of a test split.

    Args:
        probability: Class probabilities of each row.
        label: True classes, int [N]; rows with -1 do not count.
        benign: Index of the benign class. Attack against benign is judged by the score
            ``1 - p(benign)``; alarms at the model's own decisions are rows whose most probable
            class is not benign.
        names: Of the C classes, for "per_class"; their numbers by default.

    Returns:
        Those of ``from_confusion``, with "per_class" as ``{name: {"precision", "recall", "f1",
        "support"}}`` of the classes that occur in truth or predictions (recall None without
        support), and "pr_auc" (macro, one against the rest), "pr_auc_attack",
        "fpr_at_95_recall", "precision_at_prevalence" as ``{"0.01": .., "0.001": ..}`` (at the
        model's decisions), "precision_at_95_recall_and_prevalence" (at that threshold), "ece".

    Raises:
        ValueError: No labelled row, or shapes that do not fit.
    """
    label = np.asarray(label)
    rows, classes = probability.shape
    if label.shape != (rows,) or label.max(initial=-1) >= classes or not 0 <= benign < classes:
        raise ValueError(
            f"class figures: {rows} rows of {classes} probabilities do not fit labels of shape "
            f"{label.shape} up to {label.max(initial=-1)} with benign class {benign}"
        )
    probability, label = np.asarray(probability[label >= 0], np.float64), label[label >= 0]
    pred = probability.argmax(1)
    matrix = np.bincount(label * classes + pred, minlength=classes**2).reshape(classes, classes)
    out = from_confusion(matrix)
    table = out.pop("per_class")
    names = [str(c) for c in range(classes)] if names is None else names
    per_class: dict[str, dict[str, float | None]] = {
        name: {figure: float(table[figure][c]) for figure in table}
        for c, name in enumerate(names)
        if table["support"][c] > 0 or (pred == c).any()
    }
    for figures in per_class.values():
        if figures["support"] == 0:
            figures["recall"] = None
    seen = np.unique(label)
    areas = [average_precision(probability[:, c], label == c) for c in seen]
    others = np.delete(probability, benign, axis=1)  # their sum keeps digits that 1 - p loses
    out["pr_auc"] = float(np.mean([a for a in areas if a is not None]))
    out |= _detection(others.sum(1), pred != benign, label != benign)
    return {**out, "ece": ece(probability, label), "per_class": per_class}


def mos(
    predicted: Float[np.ndarray, " N"],
    target: Float[np.ndarray, " N"],
    *,
    half_width: Float[np.ndarray, " N"] | None = None,
    reference: Float[np.ndarray, " N"] | None = None,
    dof: int = 1,
) -> dict[str, Any]:
    """Every MOS figure of the rated rows of one service, as ``qoe.scales`` defines them.

    Args:
        predicted: Forecasts.
        target: Scores.
        half_width: Of the 95 % interval of each target, from its ratings; "rmse_star" and
            "outlier_ratio" need it.
        reference: Forecasts to beat, for example the last known score; "skill" needs it.
        dof: 4 where forecasts went through a fitted third-order map, else 1.

    Returns:
        "n", "plcc", "srocc", "rmse", "rmse_star", "outlier_ratio", "mae", "skill"; "interval": ends
        of the 95 % interval of each figure that has one, if rows are independent (``qoe.p1401``);
        and "missing": for each figure that is None, why.
    """
    missing: dict[str, str] = {}

    def figure(name: str, value: float) -> float | None:
        if math.isfinite(value):
            return value
        missing[name] = "constant targets or forecasts" if name != "skill" else "perfect reference"
        return None

    out: dict[str, Any] = {"n": len(target)}
    out |= dict.fromkeys(("plcc", "srocc", "rmse", "rmse_star", "outlier_ratio", "mae", "skill"))
    if len(target) <= dof:
        missing = dict.fromkeys(list(out)[1:], f"{len(target)} rated rows, more than {dof} needed")
        return {**out, "interval": {}, "missing": missing}
    out["plcc"] = figure("plcc", scales.plcc(target, predicted))
    out["srocc"] = figure("srocc", scales.srocc(target, predicted))
    out["rmse"], out["mae"] = scales.rmse(target, predicted, dof), scales.mae(target, predicted)
    if half_width is None:
        missing |= dict.fromkeys(("rmse_star", "outlier_ratio"), "no spread of ratings is known")
    else:
        out["rmse_star"] = scales.rmse_star(target, predicted, half_width, dof)
        out["outlier_ratio"] = scales.outlier_ratio(target, predicted, half_width)
    if reference is None:
        missing["skill"] = "no reference forecast was given"
    else:
        out["skill"] = figure("skill", scales.skill(target, predicted, reference))
    return {**out, "interval": _intervals(out, len(target), dof), "missing": missing}


def _intervals(figures: dict[str, Any], rows: int, dof: int) -> dict[str, list[float]]:
    of_rmse = functools.partial(p1401.rmse_interval, dof=dof)
    find = {
        "plcc": p1401.plcc_interval,
        "srocc": p1401.srocc_interval,
        "rmse": of_rmse,
        "rmse_star": of_rmse,
        "outlier_ratio": p1401.outlier_interval,
    }
    known = [name for name in find if figures[name] is not None and rows > max(dof, 3)]
    return {name: list(find[name](figures[name], rows)) for name in known}
