"""What is audited: columns, a target, and which rows learn and which are tried. NumPy only.

A ``Frame`` comes from a prepared dataset (``of_tables``), from raw cells (``cells.frame``), or from
any arrays (``make_frame``); every check takes one and knows nothing of builders.
"""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int, Int64, Shaped

from qoejax.data import split, table
from qoejax.data.errors import DataError

FOLDS = 4
_SALT = 0xA0D17  # of the folds; independent of the salt of the prepared splits

Side = tuple[Int64[np.ndarray, " train"], Int64[np.ndarray, " test"]]


class Column(NamedTuple):
    """A column as its distinct values, in order, and each row's index among them.

    ``nominal`` values are names: their order means nothing. ``default`` columns are those that a
    model sees unless told otherwise. ``clock`` columns hold a time of day or a date.
    """

    name: str
    code: Int64[np.ndarray, " N"]
    value: Float64[np.ndarray, " V"]
    nominal: bool
    default: bool
    clock: bool = False

    @property
    def numbers(self) -> Float64[np.ndarray, " N"]:
        """The value of every row."""
        return self.value[self.code]


class Target(NamedTuple):
    """Class indices with their ``names``, or scores (``names`` is empty)."""

    value: Shaped[np.ndarray, " N"]
    names: tuple[str, ...]

    @property
    def metric(self) -> str:
        """What ``score`` measures."""
        return "macro-F1" if self.names else "PLCC"


class Frame(NamedTuple):
    """Columns over the same N rows; each of ``sides`` are rows to learn from and rows to try.

    ``group`` is each row's natural owner (a host, a person, a capture), -1 where there is none.
    """

    columns: tuple[Column, ...]
    target: Target
    sides: tuple[Side, ...]
    group: Int64[np.ndarray, " N"]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.target.value)

    @property
    def default(self) -> tuple[Column, ...]:
        """The columns that a model sees."""
        return tuple(c for c in self.columns if c.default)


def column(
    name: str,
    values: Shaped[np.ndarray, " N"],
    *,
    nominal: bool = False,
    default: bool = True,
    clock: bool = False,
) -> Column:
    """A column of numbers (or codes); a NaN counts as a value below all others."""
    numbers = np.asarray(values, np.float64)
    if np.isnan(numbers).any():
        finite = numbers[np.isfinite(numbers)]
        numbers = np.where(np.isnan(numbers), finite.min(initial=0.0) - 1, numbers)
    value, code = np.unique(numbers, return_inverse=True)
    return Column(name, code.astype(np.int64), value, nominal, default, clock)


def class_target(label: Int[np.ndarray, " N"], names: Sequence[str]) -> Target:
    """Labels as a target; every label must have a name."""
    return Target(np.asarray(label, np.int64), tuple(names))


def score_target(scores: Shaped[np.ndarray, " N"]) -> Target:
    """Finite scores as a target."""
    return Target(np.asarray(scores, np.float64), ())


def make_frame(
    columns: Sequence[Column],
    target: Target,
    *,
    sides: Sequence[Side] | None = None,
    group: Int[np.ndarray, " N"] | None = None,
    by_group: bool = False,
) -> Frame:
    """A frame; without ``sides``, rows are dealt into ``FOLDS`` folds, each tried once.

    A row's fold is a hash of its default columns, so equal rows share one; ``by_group``, a hash of
    its group.

    Raises:
      DataError: no column, or no column that a model sees.
    """
    if not any(c.default for c in columns):
        raise DataError("no column is left that a model would see; expected at least one.")
    rows = len(target.value)
    group = np.full(rows, -1) if group is None else np.asarray(group, np.int64)
    if sides is None:
        key = group[:, None].astype(np.float32) if by_group else content(columns)
        fold = (split.row_hash(key, _SALT) >> np.uint64(32)) % np.uint64(FOLDS)
        every = [fold == f for f in range(FOLDS)]
        sides = [(np.flatnonzero(~test), np.flatnonzero(test)) for test in every if test.any()]
    return Frame(tuple(columns), target, tuple(sides), group)


def content(columns: Sequence[Column]) -> np.ndarray:
    """The default columns as float32 [N, D]: what ``split`` compares."""
    with np.errstate(over="ignore"):
        stacked = np.stack([c.numbers for c in columns if c.default], 1).astype(np.float32)
    return np.nan_to_num(stacked, nan=-1.0)


def take(frame_columns: Sequence[Column], rows: Int64[np.ndarray, " n"]) -> tuple[Column, ...]:
    """The columns at some rows, with the values that occur there."""
    return tuple(
        column(c.name, c.numbers[rows], nominal=c.nominal, default=c.default, clock=c.clock)
        for c in frame_columns
    )


def of_tables(
    spec: table.Spec, train: table.Table, test: table.Table, default: Collection[str]
) -> Frame:
    """Two sides of a split: the last record of each window, against the label.

    Where there is only one class, the target is the first service's score. Rows without a known
    target are left out.

    Raises:
      DataError: a side has no row with a known target, or no column is left.
    """
    both = [_known(spec, rows, side) for rows, side in ((train, "training"), (test, "test"))]
    rows = table.concatenate(both)
    columns = [
        column(
            c.name,
            rows.x[:, -1, j],
            nominal=c.kind == table.CATEGORICAL,
            default=c.name in default,
        )
        for j, c in enumerate(spec.columns)
    ]
    several = len(spec.label_names) > 1
    target = class_target(rows.label, spec.label_names) if several else score_target(rows.mos[:, 0])
    first = len(both[0].label)
    side = (np.arange(first), np.arange(first, len(rows.label)))
    return make_frame(columns, target, sides=[side], group=rows.group)


def _known(spec: table.Spec, rows: table.Table, side: str) -> table.Table:
    known = rows.label >= 0 if len(spec.label_names) > 1 else rows.mos_mask[:, 0]
    if not known.any():
        raise DataError(f"no {side} row has a known target; expected some to audit.")
    return table.take(rows, np.flatnonzero(known))


def try_all(
    frame: Frame, predict: Callable[[Side, np.ndarray], np.ndarray]
) -> tuple[Int64[np.ndarray, " tried"], Shaped[np.ndarray, " tried"]]:
    """Rows tried on some side and what ``predict(side, target of its training rows)`` says."""
    tried = np.concatenate([test for _, test in frame.sides])
    said = [predict(side, frame.target.value[side[0]]) for side in frame.sides]
    return tried, np.concatenate(said)


def score(target: Target, rows: Int64[np.ndarray, " n"], said: Shaped[np.ndarray, " n"]) -> float:
    """Macro-F1 of predicted classes, or PLCC of predicted scores (0 for a constant)."""
    true = target.value[rows]
    if target.names:
        return macro_f1(said.astype(np.int64), true, len(target.names))
    if said.std() == 0 or true.std() == 0:
        return 0.0
    return float(np.corrcoef(said, true)[0, 1])


def macro_f1(predicted: Int[np.ndarray, " N"], label: Int[np.ndarray, " N"], classes: int) -> float:
    """Mean F1 over the classes that occur among the labels."""
    confusion = np.bincount(label * classes + predicted, minlength=classes * classes)
    confusion = confusion.reshape(classes, classes)
    true: Int64[np.ndarray, " C"] = confusion.sum(1)
    f1 = 2 * confusion.diagonal() / np.maximum(true + confusion.sum(0), 1)
    return float(f1[true > 0].mean())
