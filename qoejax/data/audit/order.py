"""Row order, time and identity: columns that say when or by whom, not what. NumPy only."""

import re

import numpy as np
from jaxtyping import Int64, Shaped

from qoejax.data.audit.frame import Column, Frame

MANY = 32
"""Names beyond this number are an identity, not a kind: a model would merge them anyway."""

UNIQUE = 0.9
OFFSET, BANDS, IN_BANDS = 0.05, 3, 0.75
"""Most numbers in a few bands, each narrower than this share of its size, are an absolute time."""

_IDENTITY = re.compile(r"(^|[^a-z])(u?id|uuid|ip|mac|host|(src|dst)?_?port|srcport|dstport)$")


def is_identity(column: Column) -> bool:
    """Whether values name things: many names, or many whole numbers under an identity's name."""
    if len(column.value) <= MANY:
        return False
    whole = bool((column.value == np.round(column.value)).all())
    return column.nominal or (whole and _IDENTITY.search(column.name.casefold()) is not None)


def is_row_number(column: Column) -> bool:
    """Whether the values are whole numbers, all different, one after the other but for gaps.

    The gaps may be as many as the values: an excerpt of a numbered table still counts.
    """
    value, rows = column.value, len(column.code)
    if column.nominal or rows < 2 * MANY or len(value) < rows:
        return False
    whole = bool((value == np.round(value)).all())
    return whole and bool(value[-1] - value[0] < 2 * rows)


def is_clock(column: Column) -> bool:
    """Whether a column holds a time: declared so, or numbers far from 0 beside their spread.

    There may be a few bands of them: days of capture, or units.
    """
    if column.clock:
        return True
    if column.nominal or len(column.value) < UNIQUE * len(column.code) or len(column.code) < MANY:
        return False
    ranked = np.log(np.maximum(np.sort(np.abs(column.numbers)), 1e-300))
    ends = np.flatnonzero(np.diff(ranked, append=np.inf) > OFFSET)
    starts = np.r_[0, ends[:-1] + 1]
    narrow = ranked[ends] - ranked[starts] < OFFSET
    held = np.sort(np.where(narrow, ends - starts + 1, 0))[-BANDS:]
    return bool(held.sum() >= IN_BANDS * len(ranked))


def is_sorted(column: Column) -> bool:
    """Whether the column never falls (or never rises) from row to row, and has many values."""
    steps = np.diff(column.code)
    return len(column.value) > MANY and bool((steps >= 0).all() or (steps <= 0).all())


def block_purity(frame: Frame, column: Column) -> float:
    """How often rows next to each other in the column's order share their class, beyond chance.

    0 is chance, 1 is pure blocks. Rows of equal value stand in a random order. Scores: the
    correlation of neighbours.
    """
    tie = np.random.default_rng(0).permutation(frame.rows)
    return _runs(frame.target.value[np.lexsort((tie, column.code))], bool(frame.target.names))


def row_purity(frame: Frame, row: Int64[np.ndarray, " N"]) -> float:
    """The same for the order of the file (``row`` is each row's number): 1 is sorted by class."""
    return _runs(frame.target.value[np.argsort(row)], bool(frame.target.names))


def _runs(target: Shaped[np.ndarray, " N"], classes: bool) -> float:
    before, after = target[:-1], target[1:]
    if not classes:
        flat = len(target) < 3 or before.std() == 0 or after.std() == 0
        return 0.0 if flat else float(np.corrcoef(before, after)[0, 1])
    share = np.bincount(target) / max(len(target), 1)
    chance = float((share**2).sum())
    same = float((before == after).mean()) if len(before) else chance
    return (same - chance) / (1 - chance) if chance < 1 else 0.0
