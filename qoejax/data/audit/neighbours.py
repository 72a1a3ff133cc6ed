"""Test rows that training rows repeat, exactly or nearly. NumPy and SciPy.

Distances are taken between ranks: a number's place among the training rows, in [0, 1]; another
name is at distance 1.
"""

from typing import NamedTuple

import numpy as np
import scipy.spatial
from jaxtyping import Float32, Float64, Int64

from qoejax.data import split
from qoejax.data.audit import sentinels
from qoejax.data.audit.frame import Column, Frame, Side, content, score

NEAR = 1e-3
"""Twins differ in no column by more than this share of the training rows, and in no name."""

MOST_TRAIN, MOST_TEST = 10_000, 1_000


class Neighbours(NamedTuple):
    """Share of test rows with an equal and with a nearly equal training row; scores.

    ``twin_score`` says what the nearly equal row says, and the commonest where there is none;
    ``nearest_score`` what the nearest row says, however far: a model in its own right.
    """

    equal: float
    near: float
    twin_score: float
    nearest_score: float


def neighbours(frame: Frame, *, seed: int = 0) -> Neighbours:
    """Looks for twins on the default columns, for a sample of test rows on every side."""
    rng = np.random.default_rng(seed)
    flat = content(frame.columns)
    found = [_side(frame, flat, side, rng) for side in frame.sides]
    tried = np.concatenate([f[0] for f in found])
    near = np.concatenate([f[1] for f in found])
    said, usual = (np.concatenate([f[k] for f in found]) for k in (2, 3))
    equal = sum(cross_duplicates(flat[a], flat[b]) for a, b in frame.sides)
    return Neighbours(
        equal=equal / sum(len(test) for _, test in frame.sides),
        near=float(near.mean()),
        twin_score=score(frame.target, tried, np.where(near, said, usual)),
        nearest_score=score(frame.target, tried, said),
    )


def _side(
    frame: Frame, flat: np.ndarray, side: Side, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows tried, whether each has a twin, the nearest row's target, the usual target."""
    train, test = (
        rng.choice(rows, most, replace=False) if len(rows) > most else rows
        for rows, most in zip(side, (MOST_TRAIN, MOST_TEST), strict=True)
    )
    known_at, asked_at = (
        np.stack([_place(c, train, rows) for c in frame.default], 1) for rows in (train, test)
    )
    distance, nearest = scipy.spatial.KDTree(known_at).query(asked_at, p=np.inf)
    known = frame.target.value[train]
    usual = np.bincount(known).argmax() if frame.target.names else known.mean()
    return test, distance <= NEAR, known[nearest], np.full(len(test), usual)


def _place(
    column: Column, train: Int64[np.ndarray, " n"], rows: Int64[np.ndarray, " m"]
) -> Float64[np.ndarray, " m"]:
    if column.nominal:
        return sentinels.ordered(column)[rows].astype(np.float64)
    ranked = np.sort(column.numbers[train])
    left, right = (np.searchsorted(ranked, column.numbers[rows], s) for s in ("left", "right"))
    return (left + right) / (2 * len(train))


def cross_duplicates(train: Float32[np.ndarray, "N D"], test: Float32[np.ndarray, "M D"]) -> int:
    """Number of test rows that are equal to some training row."""
    return int(split.repeated(train, test).sum())
