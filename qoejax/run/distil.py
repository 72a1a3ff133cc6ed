"""Rows that a teacher labels: a net learns from trees through more rows (extra ``baselines``).

Each client's rows become several. The first copy is the rows themselves. A plain copy repeats them
with labels drawn from ``trust`` parts of the teacher's probabilities and the rest of the true
label. A mixed copy takes some features of each row from a row near it, as MUNGE does (Bucila,
Caruana and Niculescu-Mizil, "Model Compression", KDD 2006), and draws labels from the teacher
alone. The mean loss over drawn labels is the loss to soft labels (Hinton, Vinyals and Dean 2015).

The teacher is cross-fitted: what it says of a row comes from trees that have not seen the row, or
its probabilities would be the label again. A teacher sees the rows of one client only. NumPy.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np
import scipy.spatial
from jaxtyping import Float, Int, Int32

from qoejax.data.cohort import stage
from qoejax.run import estimators
from qoejax.run.choices import choose
from qoejax.run.errors import RunError
from qoejax.types import Examples

TEACHERS: dict[str, dict[str, dict[str, Any]]] = {
    "none": {},
    "forest": {
        "random_forest": {"max_features": 0.2, "class_weight": "balanced_subsample"},
    },
    "boosting": {
        "lightgbm": {
            "learning_rate": 0.05, "num_leaves": 15, "min_child_samples": 5, "subsample": 0.8,
            "colsample_bytree": 0.3, "class_weight": "balanced",
        },
    },
}  # fmt: skip
"""Choices of ``distil.teacher``: classifiers of ``estimators``, whose mean is asked."""
TEACHERS["both"] = {**TEACHERS["forest"], **TEACHERS["boosting"]}

NEIGHBOURS = 5
"""Rows that a mixed copy may take features from, for each row."""

Teach = Callable[[Examples], Float[np.ndarray, "N C"]]


class Taught(NamedTuple):
    """A cross-fitted teacher: of its own rows, and of others."""

    own: Float[np.ndarray, "N C"]
    other: Teach


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses a distillation that cannot work, or that would break a promise of privacy."""
    d = config.distil
    if not choose(TEACHERS, d.teacher, "distil.teacher"):
        return
    if d.plain < 0 or d.mixed < 0 or not 0 <= d.swap <= 1 or not 0 <= d.trust <= 1 or d.folds < 2:
        raise RunError(
            f"config.distil: plain {d.plain}, mixed {d.mixed}, swap {d.swap}, trust {d.trust}, "
            f"folds {d.folds}: expected copies of 0 or more, shares between 0 and 1, and 2 or more "
            "folds"
        )
    if config.privacy.mechanism != "none":
        raise RunError(
            f"config.distil.teacher is {d.teacher!r}, but privacy.mechanism "
            f"{config.privacy.mechanism!r} counts what the net sees of a row, and a teacher's "
            "labels say more: expected 'none' for one of the two"
        )


def staged(
    config: ml_collections.ConfigDict,
    rows: Examples,
    parts: Sequence[Int[np.ndarray, " n"]],
    classes: int,
    seed: int,
) -> tuple[Examples, Int32[np.ndarray, " P"], Int32[np.ndarray, " P"]]:
    """``data.cohort.stage``, after which each client makes its copies.

    Args:
      config: Its section ``distil`` says how; without a teacher rows stay as they are.
      rows: Training rows.
      parts: Each client's, by number.
      classes: C.
      seed: Of folds, trees, mixtures and labels.

    Returns:
      Rows ordered by client, first row and number of rows of each client.

    Raises:
      RunError: the teacher's library is not installed.
    """
    held, offset, count = stage(rows, parts)
    if config.distil.teacher == "none":
        return held, offset, count
    own = [
        copies(config, _take(held, slice(start, start + n)), classes, (seed, 7, client))
        for client, (start, n) in enumerate(zip(offset, count, strict=True))
    ]
    count = np.array([len(part.label) for part in own], np.int32)
    offset = (np.cumsum(count) - count).astype(np.int32)
    return _joined(own), offset, count


def copies(
    config: ml_collections.ConfigDict, rows: Examples, classes: int, seed: Sequence[int]
) -> Examples:
    """One client's rows, then its plain and its mixed copies; scores stay with the first."""
    d = config.distil
    rng = np.random.default_rng(seed)
    if len(rows.label) < d.folds or (rows.label < 0).all():
        return rows  # nothing to fit a teacher on
    taught = teacher(config, rows, classes, int(rng.integers(2**31)))
    known = rows.label[:, None] >= 0
    true = np.eye(classes)[np.maximum(rows.label, 0)]
    mix = np.where(known, (1 - d.trust) * true + d.trust * taught.own, taught.own)
    unrated = rows._replace(mos_mask=np.zeros_like(rows.mos_mask))
    parts = [rows]
    parts += [unrated._replace(label=drawn(mix, rng)) for _ in range(d.plain)]
    near = neighbours(rows.x)
    for _ in range(d.mixed):
        new = unrated._replace(x=mixed(rows.x, near, d.swap, rng))
        parts.append(new._replace(label=drawn(taught.other(new), rng)))
    return _joined(parts)


def teacher(config: ml_collections.ConfigDict, rows: Examples, classes: int, seed: int) -> Taught:
    """Trees of each fold's other rows; of rows that none has seen, the mean of all."""
    fold = folds_of(rows.label, config.distil.folds, np.random.default_rng((seed, 1)))
    own, fitted = np.zeros((len(rows.label), classes)), []
    for f in range(config.distil.folds):
        outside, inside = _take(rows, fold != f), _take(rows, fold == f)
        of_fold = [
            estimators.classifier(estimators.CLASSIFIERS[name], outside, classes, settings, seed)
            for name, settings in TEACHERS[config.distil.teacher].items()
        ]
        own[fold == f] = np.mean([ask(inside) for ask in of_fold], axis=0)
        fitted += of_fold
    return Taught(own, lambda other: np.mean([ask(other) for ask in fitted], axis=0))


def folds_of(
    label: Int[np.ndarray, " N"], folds: int, rng: np.random.Generator
) -> Int[np.ndarray, " N"]:
    """A fold for each row, at random, of equal sizes and with equal shares of each class."""
    order = rng.permutation(len(label))
    order = order[np.argsort(label[order], kind="stable")]
    fold = np.empty(len(label), np.int64)
    fold[order] = np.arange(len(label)) % folds
    return fold


def drawn(probability: Float[np.ndarray, "N C"], rng: np.random.Generator) -> Int[np.ndarray, " N"]:
    """A class for each row. Rounded first: threads add trees in any order."""
    edges = np.cumsum(np.round(probability, 6), axis=1)
    at = rng.random(len(edges)) * edges[:, -1]
    return (at[:, None] >= edges).sum(1).astype(np.int32)


def neighbours(x: Float[np.ndarray, "N T F"]) -> Int[np.ndarray, "N A"]:
    """The nearest other rows, by Euclidean distance of scaled features."""
    flat = x.reshape(len(x), -1)
    wanted = min(NEIGHBOURS + 1, len(x))
    return scipy.spatial.KDTree(flat).query(flat, k=wanted)[1].reshape(len(x), wanted)[:, 1:]


def mixed(
    x: Float[np.ndarray, "N T F"],
    near: Int[np.ndarray, "N A"],
    swap: float,
    rng: np.random.Generator,
) -> Float[np.ndarray, "N T F"]:
    """Each row with a share ``swap`` of its features from one of its neighbours."""
    other = x[near[np.arange(len(x)), rng.integers(near.shape[1], size=len(x))]]
    taken = rng.random((len(x), 1, x.shape[2])) < swap
    return np.where(taken, other, x)


def _take(rows: Examples, which: Any) -> Examples:
    return Examples(*(leaf[which] for leaf in rows))


def _joined(parts: Sequence[Examples]) -> Examples:
    return Examples(*(np.concatenate(leaves) for leaves in zip(*parts, strict=True)))
