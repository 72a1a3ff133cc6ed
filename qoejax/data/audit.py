"""Leakage sentinels: what a split gives away before any model is trained. NumPy only.

If one column alone, or a look-up of training rows, comes close to a model, then the split says more
about how the data was collected than about the task (Arp et al., "Dos and don'ts of machine
learning in computer security", USENIX Security 2022).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int, Int64

from qoejax.data import split
from qoejax.data.errors import DataError

BINS = 64


class Audit(NamedTuple):
    """Test macro-F1 of rules that should fail, and the test rows that training rows repeat.

    ``column_f1`` has the best rule on each column alone; ``best`` names the best column.
    ``shuffled_f1`` is the best of the same rules after the training labels were shuffled: no more
    than chance, or labels travel some other way. ``majority_f1`` is that of the most common label.
    """

    best: str
    best_f1: float
    column_f1: dict[str, float]
    shuffled_f1: float
    majority_f1: float
    cross_duplicates: int


def audit(
    names: Sequence[str],
    train_x: Float32[np.ndarray, "N D"],
    train_label: Int[np.ndarray, " N"],
    test_x: Float32[np.ndarray, "M D"],
    test_label: Int[np.ndarray, " M"],
    classes: int,
    *,
    sample: int = 200_000,
    seed: int = 0,
) -> Audit:
    """All sentinels; one-column rules see at most ``sample`` random rows of either side.

    Raises:
      DataError: a side without labelled rows, or a value that is not finite.
    """
    repeats = cross_duplicates(train_x, test_x)
    rng = np.random.default_rng(seed)
    fit_x, fit_label = _labelled(train_x, train_label, sample, rng, "training")
    try_x, try_label = _labelled(test_x, test_label, sample, rng, "test")
    scores = stumps(fit_x, fit_label, try_x, try_label, classes)
    shuffled = stumps(fit_x, rng.permutation(fit_label), try_x, try_label, classes)
    best = int(scores.argmax())
    common = np.full(len(try_label), np.bincount(fit_label).argmax())
    return Audit(
        best=names[best],
        best_f1=float(scores[best]),
        column_f1=dict(zip(names, scores.tolist(), strict=True)),
        shuffled_f1=float(shuffled.max()),
        majority_f1=macro_f1(common, try_label, classes),
        cross_duplicates=repeats,
    )


def stumps(
    train_x: Float32[np.ndarray, "N D"],
    train_label: Int[np.ndarray, " N"],
    test_x: Float32[np.ndarray, "M D"],
    test_label: Int[np.ndarray, " M"],
    classes: int,
) -> Float64[np.ndarray, " D"]:
    """Test macro-F1 of the best histogram rule on each column alone.

    A column is cut into at most 64 bins (its values where they are so few, else equal counts), and
    a bin predicts its most common training label, with rows counted plainly or classes weighted
    equally, whichever does better on the training rows.
    """
    out = np.zeros(train_x.shape[1])
    share = np.maximum(np.bincount(train_label, minlength=classes), 1)
    for j in range(train_x.shape[1]):
        edges = np.unique(train_x[:, j])
        if len(edges) > BINS:
            ranked = np.sort(train_x[:, j])
            edges = np.unique(ranked[np.arange(1, BINS) * len(ranked) // BINS])
        bins = np.searchsorted(edges, train_x[:, j])
        joint = np.bincount(bins * classes + train_label, minlength=(len(edges) + 1) * classes)
        joint = joint.reshape(-1, classes)
        rules = [weighted.argmax(1) for weighted in (joint, joint / share)]
        rule = max(rules, key=lambda r: macro_f1(r[bins], train_label, classes))
        out[j] = macro_f1(rule[np.searchsorted(edges, test_x[:, j])], test_label, classes)
    return out


def cross_duplicates(
    train_x: Float32[np.ndarray, "N D"], test_x: Float32[np.ndarray, "M D"]
) -> int:
    """Number of test rows that are equal to some training row."""
    train_hash, test_hash = split.row_hash(train_x), split.row_hash(test_x)
    here = np.flatnonzero(np.isin(train_hash, test_hash))
    there = np.flatnonzero(np.isin(test_hash, train_hash))
    both = np.concatenate([train_x[here], test_x[there]])
    return int((split.first_equal(both)[len(here) :] < len(here)).sum())


def macro_f1(predicted: Int[np.ndarray, " N"], label: Int[np.ndarray, " N"], classes: int) -> float:
    """Mean F1 over the classes that occur among the labels."""
    confusion = np.bincount(label * classes + predicted, minlength=classes * classes)
    confusion = confusion.reshape(classes, classes)
    true: Int64[np.ndarray, " C"] = confusion.sum(1)
    f1 = 2 * confusion.diagonal() / np.maximum(true + confusion.sum(0), 1)
    return float(f1[true > 0].mean())


def _labelled(
    x: Float32[np.ndarray, "N D"],
    label: Int[np.ndarray, " N"],
    sample: int,
    rng: np.random.Generator,
    side: str,
) -> tuple[Float32[np.ndarray, "m D"], Int[np.ndarray, " m"]]:
    """At most ``sample`` random rows with a known label."""
    rows = np.flatnonzero(label >= 0)
    if not len(rows):
        raise DataError(f"no {side} row has a known label; expected some to audit.")
    if len(rows) > sample:
        rows = np.sort(rng.choice(rows, sample, replace=False))
    return x[rows], label[rows].astype(np.int64)
