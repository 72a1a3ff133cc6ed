"""A raw file coded as a prepared dataset is (NumPy, on the host): new rows for a trained model."""

import collections
import os
import pathlib
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from qoejax.data import rawfile, records, schema, sources
from qoejax.data.errors import DataError
from qoejax.data.table import CATEGORICAL, NUMERIC, Spec, Table, make_table


class Report(NamedTuple):
    """What ``read_raw`` saw; plain values, fit for JSON.

    Attributes:
      path: the file.
      rows: rows of the file, without blank lines.
      kept: rows of the table.
      dropped: rows left out, by reason.
      unknown_categories: cells outside the vocabulary (now code 0), by column.
      labelled: rows with a known label; 0 also where there is no label column.
      unknown_labels: rows by label text that the dataset does not know (now label -1).
      absent_columns: columns that were not needed, not there, and are now 0.
      rows_without_time: rows whose time column holds no time; their cells have been shifted.
    """

    path: str
    rows: int
    kept: int
    dropped: dict[str, int]
    unknown_categories: dict[str, int]
    labelled: int
    unknown_labels: dict[str, int]
    absent_columns: tuple[str, ...]
    rows_without_time: int


def read_raw(
    path: str | os.PathLike[str], spec: Spec, needed: Collection[str] | None = None
) -> tuple[Table, Report]:
    """Rows of a .csv, .csv.gz or .parquet file in the dataset's own form.

    Args:
      path: the file.
      spec: of the prepared dataset, or of a saved model; its vocabularies give the codes.
      needed: columns that must be there (the model's); by default, all of ``spec``.

    Raises:
      DataError: the file is missing, not a table, of another dataset or release, lacks needed
        columns, or has no usable row.
    """
    table, report, _ = read_raw_rows(path, spec, needed)
    return table, report


def read_raw_rows(
    path: str | os.PathLike[str], spec: Spec, needed: Collection[str] | None = None
) -> tuple[Table, Report, Int64[np.ndarray, " N"]]:
    """As ``read_raw``, with each table row's number in the file (from 0, blank lines apart)."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise DataError(f"{path}: is not a file; expected .csv, .csv.gz or .parquet.")
    level = schema.find(spec.dataset)
    if spec.label_names != level.taxonomy.names:
        raise DataError(f"{spec.dataset}: the saved label names are not those of this version.")
    file = rawfile.open_raw(path)
    plan, absent = _layout(file, level, spec, needed)
    index = {name: {v: i for i, v in enumerate(spec.vocab[name])} for name in plan.categorical}
    unknown: collections.Counter[str] = collections.Counter()

    def encode(name: str, texts: list[str], inverse: np.ndarray) -> np.ndarray:
        codes = np.array([index[name].get(text, 0) for text in texts], np.int32)
        strange = np.array([bool(t) and not c for t, c in zip(texts, codes, strict=True)], bool)
        unknown[name] += int(strange[inverse].sum())
        return codes[inverse]

    tally = records.Tally()
    parts = [p for p, _ in records.read(file, plan, encode, tally, need_label=False)]
    if not parts:
        reasons = records.reasons(tally.summary())
        example = f"; {tally.example}" if tally.example else ""
        raise DataError(f"{path}: has no usable row ({reasons or 'no rows'}{example}).")
    rows = records.Records(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    report = Report(
        path=str(path),
        rows=tally.rows,
        kept=tally.kept,
        dropped=tally.summary(),
        unknown_categories={name: n for name, n in unknown.items() if n},
        labelled=int((rows.label >= 0).sum()),
        unknown_labels=dict(tally.unknown_labels.most_common()),
        absent_columns=absent,
        rows_without_time=sum(tally.no_clock.values()),
    )
    return _table(rows, plan, spec, level.schema.group), report, rows.row


def read_records(
    path: pathlib.Path, spec: Spec, needed: Collection[str]
) -> tuple[Table, Report, dict[str, np.ndarray]]:
    """As ``read_raw_rows``, with the numbers as the column "row"."""
    table, report, row = read_raw_rows(path, spec, needed)
    return table, report, {"row": row}


def _layout(
    file: rawfile.RawFile, level: schema.Level, spec: Spec, needed: Collection[str] | None
) -> tuple[records.Layout, tuple[str, ...]]:
    """Where the columns of ``spec`` are in the file, and those that may be and are absent."""
    names = {c.name for c in spec.columns}
    needed = names if needed is None else set(needed)
    if strange := sorted(needed - names):
        raise DataError(f"{spec.dataset} has no column {sources.listed(strange)}.")
    plan, missing = records.layout(file, level, spec.columns, with_label=True)
    lacking = [name for name in missing if name in needed]
    if lacking:
        partial = "" if level.is_partial else level.partial
        sources.refuse_missing(file, level._replace(partial=partial, is_partial=False), lacking)
    return plan, tuple(name for name in missing if name in names)


def _table(rows: records.Records, plan: records.Layout, spec: Spec, group: str) -> Table:
    """The records' columns in the order of ``spec``; absent ones are 0."""
    x = np.zeros((len(rows.label), 1, len(spec.columns)), np.float32)
    parts = {NUMERIC: (plan.numeric, rows.numeric), CATEGORICAL: (plan.categorical, rows.codes)}
    owner = None
    for j, column in enumerate(spec.columns):
        names, values = parts[column.kind]
        if column.name in names:
            x[:, 0, j] = values[:, names.index(column.name)]
            if column.name == group:
                codes = x[:, 0, j].astype(np.int32)
                owner = np.where(codes > 0, codes, -1)
    return make_table(x, rows.label, owner)
