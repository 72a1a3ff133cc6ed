"""Rows of a raw file, judged and coded: what the builders and ``read_raw`` share (NumPy, host).

A row is left out, and counted by reason, when it has another width than the header, a number that
is missing, damaged, infinite or beyond float32, or no usable label where one is needed.
"""

import collections
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32, Int32, Int64

from qoejax.data import cells, rawfile
from qoejax.data.errors import DataError
from qoejax.data.schema import Level, label_table, plain
from qoejax.data.table import NUMERIC, Column

Encode = Callable[[str, list[str], Int32[np.ndarray, " n"]], Int32[np.ndarray, " n"]]
"""Codes [n] of the rows of a categorical column, from its distinct texts and each row's index."""


class Layout(NamedTuple):
    """Which columns of a file become which part of the records.

    ``positions`` are their places in the file. ``label`` is the label column, "" if not read.
    """

    level: Level
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    retained: frozenset[str]
    positions: dict[str, int]
    label: str


class Records(NamedTuple):
    """Usable rows; ``content`` holds the retained columns in a form free of any vocabulary."""

    numeric: Float32[np.ndarray, "n numeric"]
    codes: Int32[np.ndarray, "n categorical"]
    content: Float32[np.ndarray, "n retained"]
    label: Int32[np.ndarray, " n"]
    row: Int64[np.ndarray, " n"]


class Tally:
    """What was seen and left out, as a file is read."""

    def __init__(self) -> None:
        self.rows = 0
        self.kept = 0
        self.skipped: set[int] = set()
        self.dropped: collections.Counter[str] = collections.Counter()
        self.unknown_labels: collections.Counter[str] = collections.Counter()
        self.unlabelled = 0
        self.no_clock: collections.Counter[int] = collections.Counter()
        self.example = ""

    def summary(self) -> dict[str, int]:
        """Rows left out, by reason."""
        return {reason: n for reason, n in sorted(self.dropped.items()) if n}


def reasons(dropped: dict[str, int]) -> str:
    """Rows left out, as a message says it: "2 row width, 1 blank label"."""
    return ", ".join(f"{n} {reason}" for reason, n in dropped.items())


def layout(
    file: rawfile.RawFile, level: Level, columns: tuple[Column, ...], with_label: bool
) -> tuple[Layout, list[str]]:
    """The layout of a file for these columns, and the names of those it lacks.

    Raises:
      DataError: a column is there twice.
    """
    label = level.schema.label_column
    names = [c.name for c in columns]
    found, missing = rawfile.match(file, [*names, label] if with_label else names)
    here = [c for c in columns if c.name in found]
    plan = Layout(
        level=level,
        numeric=tuple(c.name for c in here if c.kind == NUMERIC),
        categorical=tuple(c.name for c in here if c.kind != NUMERIC),
        retained=frozenset(c.name for c in here if not c.leaky),
        positions=found,
        label=label if with_label and label in found else "",
    )
    return plan, missing


def read(
    file: rawfile.RawFile, plan: Layout, encode: Encode, tally: Tally, need_label: bool
) -> Iterator[tuple[Records, float]]:
    """Streams a file's usable rows, with the fraction of the file read so far.

    Args:
      file: the file.
      plan: its layout.
      encode: gives the codes of categories.
      tally: receives the counts; complete once the last records have been taken.
      need_label: whether rows without a known label are left out, or kept with label -1.

    Raises:
      DataError: the file breaks off, or holds something that is neither number nor text.
    """
    schema = plan.level.schema
    texts = frozenset({*plan.categorical, *schema.clocks, plan.label} & set(plan.positions))
    labels = label_table(plan.level)
    for batch in rawfile.batches(file, plan.positions, texts, tally.skipped):
        try:
            records = _records(file, plan, batch, encode, tally, labels, need_label)
        except pa.ArrowException as e:
            raise DataError(f"{file.path}: a column has an unusable type ({e}).") from e
        if len(records.label):
            yield records, batch.done
    tally.rows += len(tally.skipped)
    tally.dropped["row width"] += len(tally.skipped)


def _records(
    file: rawfile.RawFile,
    plan: Layout,
    batch: rawfile.Batch,
    encode: Encode,
    tally: Tally,
    labels: dict[str, int],
    need_label: bool,
) -> Records:
    rows = len(batch.row)
    tally.rows += rows
    numeric, good = _numbers(file, plan, batch, tally)
    tally.dropped["damaged number"] += rows - int(good.sum())
    label = np.full(rows, -1, np.int32)
    if plan.label:
        label = _labels(batch.columns[plan.label], labels, tally, good, need_label)
        if need_label:
            good &= label >= 0
    keep = np.flatnonzero(good)
    codes = np.zeros((len(keep), len(plan.categorical)), np.int32)
    content = {name: numeric[keep, j] for j, name in enumerate(plan.numeric)}
    for j, name in enumerate(plan.categorical):
        texts, inverse = cells.texts(batch.columns[name])
        inverse = inverse[keep]
        codes[:, j] = encode(name, texts, inverse)
        if name in plan.retained:
            content[name] = np.array([cells.content_number(t) for t in texts], np.float32)[inverse]
    label = label[keep]
    _count_clocks(plan, batch, keep, label, tally)
    tally.kept += len(keep)
    ordered = [content[name] for name in plan.positions if name in plan.retained]
    stacked = np.stack(ordered, 1) if ordered else np.zeros((len(keep), 0), np.float32)
    return Records(numeric[keep], codes, stacked, label, batch.row[keep])


def _numbers(
    file: rawfile.RawFile, plan: Layout, batch: rawfile.Batch, tally: Tally
) -> tuple[Float32[np.ndarray, "n numeric"], Bool[np.ndarray, " n"]]:
    """The numeric columns, and which rows have a number in each."""
    schema = plan.level.schema
    out = np.zeros((len(batch.row), len(plan.numeric)), np.float32)
    for j, name in enumerate(plan.numeric):
        column = batch.columns[name]
        if name in schema.clocks:  # No time of day: the cell is absent, not damaged.
            out[:, j] = np.nan_to_num(cells.numbers(column, True, cells.clock), nan=0.0)
        else:
            out[:, j] = cells.numbers(column, schema.absent_is_zero)
    bad = np.isnan(out)
    if bad.any() and not tally.example:
        i, j = np.argwhere(bad)[0]
        cell = batch.columns[plan.numeric[j]][int(i)].as_py()
        tally.example = f"row {batch.row[i] + 1} has {cell!r} in {plan.numeric[j]!r}"
    return out, np.logical_not(bad.any(axis=1))


def _labels(
    column: pa.Array,
    labels: dict[str, int],
    tally: Tally,
    good: Bool[np.ndarray, " n"],
    need_label: bool,
) -> Int32[np.ndarray, " n"]:
    """Label indices; -1 and a count where a cell is blank or names no known label."""
    texts, inverse = cells.texts(column, str.strip)
    index = np.array([labels.get(plain(t), -1) for t in texts], np.int32)
    label = index[inverse]
    counts = np.bincount(inverse[good], minlength=len(texts))
    for text, found, count in zip(texts, index, counts, strict=True):
        if found < 0 and count and text:
            tally.unknown_labels[text] += int(count)
        elif found < 0 and count:
            tally.unlabelled += int(count)
        if found < 0 and need_label:
            tally.dropped["unknown label" if text else "blank label"] += int(count)
    return label


def _count_clocks(
    plan: Layout,
    batch: rawfile.Batch,
    keep: Int64[np.ndarray, " kept"],
    label: Int32[np.ndarray, " kept"],
    tally: Tally,
) -> None:
    """Counts, by label, rows whose time column holds no time: their cells have been shifted."""
    for name in plan.level.schema.clocks & set(plan.numeric):
        seconds = cells.numbers(batch.columns[name], False, cells.clock)[keep]
        tally.no_clock.update(label[np.isnan(seconds)].tolist())
