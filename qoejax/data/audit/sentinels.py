"""Rules that should fail: what one column alone says of the target. NumPy only.

If one column alone comes close to a model, then the data say more about how they were collected
than about the task (Arp et al., "Dos and don'ts of machine learning in computer security", USENIX
Security 2022).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, Shaped

from qoejax.data.audit.frame import Column, Frame, Side, Target, macro_f1, score, try_all

BINS, MOST_BINS, BIN_ROWS = 64, 512, 32
"""Bins of a histogram: at least and at most; where there are many rows, one bin per so many."""

SCORE_BINS = 16
SHRINK = 5.0
"""Rows at the overall mean that a cell's mean score starts from: few rows say little."""


class Rule(NamedTuple):
    """Score on tried rows of the best rule of one column, by how it reads the column.

    ``histogram`` cuts the values into equal counts; ``lookup`` remembers every exact value.
    """

    column: str
    histogram: float
    lookup: float

    @property
    def best(self) -> float:
        """The better of the two."""
        return max(self.histogram, self.lookup)

    @property
    def how(self) -> str:
        """Which of the two is better."""
        return "histogram" if self.histogram >= self.lookup else "look-up"


def rules(frame: Frame) -> tuple[Rule, ...]:
    """The rules of every column."""
    return tuple(rule(frame, c) for c in frame.columns)


def rule(frame: Frame, column: Column) -> Rule:
    """The rules of one column."""
    numbers = (_by_frequency(column.code) if column.nominal else column.code).astype(np.float64)

    def histogram(side: Side, known: np.ndarray) -> np.ndarray:
        bins = min(max(BINS, len(known) // BIN_ROWS), MOST_BINS)
        bins = bins if frame.target.names else SCORE_BINS
        cells = [cut(numbers[side[0]], numbers[rows], bins) for rows in side]
        return by_cell(frame.target, cells[0], cells[1], known)

    def lookup(side: Side, known: np.ndarray) -> np.ndarray:
        return by_cell(frame.target, column.code[side[0]], column.code[side[1]], known)

    scores = [score(frame.target, *try_all(frame, f)) for f in (histogram, lookup)]
    return Rule(column.name, *scores)


def constant(frame: Frame) -> float:
    """Score of always saying the most common class (0 for scores): what nothing gives."""
    if not frame.target.names:
        return 0.0

    def common(side: Side, known: np.ndarray) -> np.ndarray:
        return np.full(len(side[1]), np.bincount(known).argmax())

    return score(frame.target, *try_all(frame, common))


def chance(frame: Frame) -> float:
    """What knowing nothing gives: the better of a constant and of guessing by the class shares.

    A guess drawn from the classes' own shares has an expected macro-F1 of about 1/C.
    """
    if not frame.target.names:
        return 0.0
    return max(constant(frame), 1 / len(np.unique(frame.target.value)))


def cut(
    fit: Shaped[np.ndarray, " n"], values: Shaped[np.ndarray, " m"], bins: int
) -> Int64[np.ndarray, " m"]:
    """Cells of ``values``: the values of ``fit`` where they are few, else bins of equal counts."""
    edges = np.unique(fit)
    if len(edges) > bins:
        ranked = np.sort(fit)
        edges = np.unique(ranked[np.arange(1, bins) * len(ranked) // bins])
    return np.searchsorted(edges, values)


def by_cell(
    target: Target,
    cell: Int64[np.ndarray, " n"],
    asked: Int64[np.ndarray, " m"],
    known: Shaped[np.ndarray, " n"],
) -> Shaped[np.ndarray, " m"]:
    """What the training rows of the same cell say; cells not seen say what all rows say.

    Classes: the most common one, rows counted plainly or classes weighted equally, whichever does
    better on the training rows. Scores: their mean, drawn to the mean of all.
    """
    cells = int(max(cell.max(initial=0), asked.max(initial=0))) + 1
    if not target.names:
        total = np.bincount(cell, weights=known, minlength=cells)
        count = np.bincount(cell, minlength=cells)
        return ((total + SHRINK * known.mean()) / (count + SHRINK))[asked]
    classes = len(target.names)
    joint = np.bincount(cell * classes + known, minlength=cells * classes).reshape(cells, classes)
    of_class = np.bincount(known, minlength=classes)
    seen = joint.any(1)
    options = [
        np.where(seen, weighted.argmax(1), of_class.argmax())
        for weighted in (joint, joint / np.maximum(of_class, 1))
    ]
    chosen = max(options, key=lambda r: macro_f1(r[cell], known, classes))
    return chosen[asked]


def _by_frequency(code: Int64[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    """Codes renumbered so that the most common is 0: a bin then holds values alike in frequency."""
    rank = np.empty(int(code.max(initial=-1)) + 1, np.int64)
    rank[np.argsort(-np.bincount(code), kind="stable")] = np.arange(len(rank))
    return rank[code]


def ordered(column: Column) -> Int64[np.ndarray, " N"]:
    """The column as integers whose order a tree can cut: by value, or by frequency of a name."""
    return _by_frequency(column.code) if column.nominal else column.code
