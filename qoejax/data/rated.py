"""Files of people's own scores: the base of their builder, and its reader (NumPy, on the host).

The split is by subject: all rows of a subject go to the test split if the hash of the subject's
name says so, 20 of 100. A row is left out, and counted by reason, when a number is missing (gaps of
the source, such as sessions without measurements) or damaged; a damaged file is refused.
"""

import collections
import pathlib
import re
from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from qoejax.data import cells, rawfile, records, schema, sources, split
from qoejax.data.errors import DataError
from qoejax.data.packed import PackedBuilder, Plan
from qoejax.data.raw import Report
from qoejax.data.schema import Level
from qoejax.data.table import CATEGORICAL, NUMERIC, Spec, Table, concatenate, make_table, take
from qoejax.data.vocabulary import Vocabulary
from qoejax.qoe import scales

TEST_FRACTION = 0.2

MOST_DAMAGED = 0.01
"""A file with a larger share of rows that hold no number where one should be is refused."""


class Sheet(NamedTuple):
    """Usable rows of a file, column by column.

    ``columns`` are float32, or str for categories, canonical; those that the file lacks are not
    there. ``score`` is on the file's scale, NaN where nobody scored. ``subject`` is "" where it is
    unknown. ``row`` is the number in the file, from 0. ``dropped`` counts rows left out, by reason.
    """

    columns: dict[str, np.ndarray]
    score: Float64[np.ndarray, " n"]
    subject: np.ndarray
    row: Int64[np.ndarray, " n"]
    rows: int
    dropped: dict[str, int]


class RatedBuilder(PackedBuilder, skip_registration=True):
    """Builder whose configs are levels of ``qoejax.data.schema`` with a ``rating``."""

    def _level(self) -> Level:
        return schema.find(f"{self.name}/{self.builder_config.name}")

    def _spec(self) -> Spec:
        return schema.spec_of(self._level())

    def _plan(self, manual_dir: pathlib.Path | None, scratch: pathlib.Path) -> Plan:
        level = self._level()
        rating = _rating(level)
        if manual_dir is None:
            raise DataError(f"{self.name} needs a manual_dir: {level.schema.instructions}.")
        found = sources.find(manual_dir, level)
        sheets = [_rated(file, level) for file, _ in found.files]
        names = np.concatenate([sheet.subject for sheet in sheets])
        subjects, group = np.unique(names, return_inverse=True)
        test = _held_out(subjects, rating.salt)[group]
        spec = self._spec()._replace(vocab=_vocabularies(level, sheets, test))
        table = concatenate([_table(spec, level, sheet) for sheet in sheets])
        table = table._replace(group=group.astype(np.int32))
        entries = [
            {
                "path": file.path.relative_to(manual_dir).as_posix(),
                "sha256": rawfile.sha256(file.path),
                "rows": sheet.rows,
                "dropped": sheet.dropped,
            }
            for (file, _), sheet in zip(found.files, sheets, strict=True)
        ]
        facts = {
            "split_salt": rating.salt,
            "test_fraction": TEST_FRACTION,
            "group_column": "+".join(rating.subject),
            "subjects": {
                "train": len(np.unique(group[~test])),
                "test": len(np.unique(group[test])),
            },
            "sources": entries,
            "passed_over": list(found.passed_over),
            "rows_read": sum(sheet.rows for sheet in sheets),
            "dropped": _added(sheet.dropped for sheet in sheets),
        }
        shards = {
            name: [lambda mask=mask: iter([take(table, mask)])]
            for name, mask in (("train", ~test), ("test", test))
        }
        return Plan(shards, lambda: (spec, facts))


def read_rated(
    path: pathlib.Path, spec: Spec, needed: Collection[str]
) -> tuple[Table, Report, dict[str, np.ndarray]]:
    """Rows of a file in the form of one of these datasets, for a trained model.

    Only the columns in ``needed`` must be there. Rows without a score are kept, unrated.

    Raises:
      DataError: the file is missing, not a table, lacks needed columns, has a score outside its
        scale, too many damaged numbers, or no usable row.
    """
    if not path.is_file():
        raise DataError(f"{path}: is not a file; expected .csv, .csv.gz or .parquet.")
    level = schema.find(spec.dataset)
    file = rawfile.open_raw(path)
    _, missing = rawfile.match(file, [c.name for c in spec.columns])
    if lacking := [name for name in missing if name in needed]:
        sources.refuse_missing(file, level, lacking)
    sheet = _sheet(file, level)
    if not len(sheet.row):
        raise DataError(
            f"{path}: has no usable row ({records.reasons(sheet.dropped) or 'no rows'})."
        )
    table = _table(spec, level, sheet)
    _, group = np.unique(sheet.subject, return_inverse=True)
    table = table._replace(group=np.where(sheet.subject == "", -1, group).astype(np.int32))
    report = Report(
        path=str(path),
        rows=sheet.rows,
        kept=len(sheet.row),
        dropped=sheet.dropped,
        unknown_categories=_unknown(spec, sheet),
        labelled=int(table.mos_mask.sum()),
        unknown_labels={},
        absent_columns=tuple(missing),
        rows_without_time=0,
    )
    return table, report, {"row": sheet.row}


def scale(spec: Spec) -> tuple[float, float]:
    """Worst and best score of the scale that people used."""
    rating = _rating(schema.find(spec.dataset))
    return rating.low, rating.high


def half_width(spec: Spec, rows: Table) -> Float64[np.ndarray, " N"] | None:
    """Half width of each score's 95 % confidence interval in MOS points; None if not known."""
    if not spec.interval:
        return None
    low, high = scale(spec)
    column = [c.name for c in spec.columns].index(spec.interval)
    return rows.x[:, -1, column].astype(np.float64) * (scales.HIGH - scales.LOW) / (high - low)


def _rating(level: Level) -> schema.Rating:
    if level.schema.rating is None:
        raise DataError(f"{level.dataset} holds no scores of people.")
    return level.schema.rating


def _rated(file: rawfile.RawFile, level: Level) -> Sheet:
    """A file to learn from: every row has a subject, and only rows with a score are kept."""
    rating, sheet = _rating(level), _sheet(file, level)
    unknown = np.flatnonzero(sheet.subject == "")
    if len(unknown):
        name = f" that holds {rating.pattern}" if rating.pattern else ""
        raise DataError(
            f"{file.path}: row {sheet.row[unknown[0]] + 1} has no subject; expected a name{name} "
            f"in {sources.listed(list(rating.subject))}."
        )
    scored = ~np.isnan(sheet.score)
    if not scored.any():
        reasons = records.reasons(sheet.dropped) or "no score"
        raise DataError(f"{file.path}: has no usable row with a score ({reasons}).")
    dropped = dict(sheet.dropped)
    if not scored.all():
        dropped["no score"] = int((~scored).sum())
    return _rows(sheet, scored)._replace(dropped=dropped)


class _Chunk(NamedTuple):
    """Some rows of a file as they stand in it; NaN where a cell is empty or damaged."""

    columns: dict[str, np.ndarray]
    subject: np.ndarray
    row: Int64[np.ndarray, " n"]
    damaged: Bool[np.ndarray, " n"]


def _sheet(file: rawfile.RawFile, level: Level) -> Sheet:
    """Reads a whole file; what columns it lacks is left to the caller."""
    score = level.schema.label_column
    kinds = {c.name: c.kind for c in level.schema.columns} | {score: NUMERIC}
    positions, _ = rawfile.match(file, list(kinds))
    texts = frozenset(name for name in positions if kinds[name] == CATEGORICAL)
    skipped: set[int] = set()
    batches = rawfile.batches(file, positions, texts, skipped)
    chunks = [_chunk(batch, _rating(level), texts) for batch in batches]
    if not chunks:
        raise DataError(f"{file.path}: has a header but no rows.")
    whole = _Chunk(
        {name: np.concatenate([c.columns[name] for c in chunks]) for name in positions},
        *(np.concatenate(arrays) for arrays in list(zip(*chunks, strict=True))[1:]),
    )
    return _judged(file, level, whole, len(skipped))


def _chunk(batch: rawfile.Batch, rating: schema.Rating, texts: frozenset[str]) -> _Chunk:
    columns: dict[str, np.ndarray] = {}
    damaged = np.zeros(len(batch.row), bool)
    for name, column in batch.columns.items():
        if name in texts:
            distinct, inverse = cells.texts(column)
            columns[name] = np.array(distinct)[inverse]
        else:
            columns[name] = cells.numbers(column, False)
            damaged |= np.isnan(cells.numbers(column, True))
    return _Chunk(columns, _subjects(batch, rating), batch.row, damaged)


def _judged(file: rawfile.RawFile, level: Level, whole: _Chunk, skipped: int) -> Sheet:
    """Leaves out rows without numbers; refuses damage and scores outside the scale."""
    columns, row, damaged = dict(whole.columns), whole.row, whole.damaged
    score = columns.pop(level.schema.label_column, np.full(len(row), np.nan)).astype(np.float64)
    _check_scores(file, level, score, row)
    numeric = [values for values in columns.values() if values.dtype == np.float32]
    empty = np.any(np.isnan(numeric), axis=0) if numeric else np.zeros(len(row), bool)
    rows = len(row) + skipped
    broken = int(damaged.sum()) + skipped
    if broken > max(1, MOST_DAMAGED * rows):
        first = f"; the first is row {row[damaged][0] + 1}" if damaged.any() else ""
        raise DataError(
            f"{file.path}: {broken} of {rows} rows have a cell that is no number, or another width "
            f"than the header{first}; at most {MOST_DAMAGED:.0%} are left out."
        )
    counts = {
        "row width": skipped,
        "damaged number": int(damaged.sum()),
        "missing number": int((empty & ~damaged).sum()),
    }
    dropped = {reason: n for reason, n in counts.items() if n}
    sheet = Sheet(columns, score, whole.subject, row, rows, dropped)
    return _rows(sheet, ~(damaged | empty))


def _check_scores(
    file: rawfile.RawFile,
    level: Level,
    score: Float64[np.ndarray, " n"],
    row: Int64[np.ndarray, " n"],
) -> None:
    rating = _rating(level)
    outside = np.flatnonzero((score < rating.low) | (score > rating.high))
    if len(outside):
        i = outside[0]
        raise DataError(
            f"{file.path}: row {row[i] + 1} has {score[i]:g} in {level.schema.label_column!r}; "
            f"expected a score from {rating.low:g} to {rating.high:g}."
        )


def _subjects(batch: rawfile.Batch, rating: schema.Rating) -> np.ndarray:
    """Name of each row's subject, "" where a part of it is not there."""
    if not set(rating.subject) <= set(batch.columns):
        return np.full(len(batch.row), "", dtype="<U1")
    parts = []
    for column in rating.subject:
        distinct, inverse = cells.texts(batch.columns[column], lambda t: _name(t, rating.pattern))
        parts.append([distinct[i] for i in inverse])
    return np.array(["+".join(p) if all(p) else "" for p in zip(*parts, strict=True)])


def _name(text: str, pattern: str) -> str:
    """The part of a cell that names the subject, "" if there is none."""
    text = text.strip()
    if not pattern:
        return text
    found = re.search(pattern, text)
    return found[0] if found else ""


def _held_out(subjects: np.ndarray, salt: int) -> Bool[np.ndarray, " s"]:
    numbers = np.array([[cells.content_number(s)] for s in subjects], np.float32)
    return split.holdout(numbers, TEST_FRACTION, salt)


def _vocabularies(
    level: Level, sheets: list[Sheet], test: Bool[np.ndarray, " n"]
) -> dict[str, tuple[str, ...]]:
    """Values of each category in the training rows, most frequent first."""
    out = {}
    for column in level.schema.columns:
        if column.kind == CATEGORICAL:
            vocabulary = Vocabulary()
            texts = np.concatenate([sheet.columns[column.name] for sheet in sheets])
            distinct, inverse = np.unique(texts, return_inverse=True)
            codes = vocabulary.encode(distinct.tolist(), inverse.astype(np.int32))
            vocabulary.count_train(codes[~test])
            out[column.name] = vocabulary.finish()[0]
    return out


def _table(spec: Spec, level: Level, sheet: Sheet) -> Table:
    """The columns in the order of ``spec``; absent ones are 0."""
    rating = _rating(level)
    x = np.zeros((len(sheet.row), 1, len(spec.columns)), np.float32)
    for j, column in enumerate(spec.columns):
        values = sheet.columns.get(column.name)
        if values is not None:
            x[:, 0, j] = _codes(spec, column.name, values) if column.kind == CATEGORICAL else values
    share = (sheet.score - rating.low) / (rating.high - rating.low)
    mos = scales.LOW + (scales.HIGH - scales.LOW) * share[:, None]
    return make_table(
        x, np.zeros(len(x), np.int32), None, np.nan_to_num(mos, nan=scales.LOW), ~np.isnan(mos)
    )


def _codes(spec: Spec, name: str, texts: np.ndarray) -> Int32[np.ndarray, " n"]:
    index = {value: code for code, value in enumerate(spec.vocab[name])}
    return np.array([index.get(text, 0) for text in texts.tolist()], np.int32)


def _unknown(spec: Spec, sheet: Sheet) -> dict[str, int]:
    """Cells outside the vocabulary, by column that a model may see."""
    counts = {}
    for column in spec.columns:
        texts = sheet.columns.get(column.name)
        if column.kind == CATEGORICAL and not column.leaky and texts is not None:
            strange = (_codes(spec, column.name, texts) == 0) & (texts != "")
            counts[column.name] = int(strange.sum())
    return {name: n for name, n in counts.items() if n}


def _rows(sheet: Sheet, keep: Bool[np.ndarray, " n"]) -> Sheet:
    columns = {name: values[keep] for name, values in sheet.columns.items()}
    return sheet._replace(
        columns=columns,
        score=sheet.score[keep],
        subject=sheet.subject[keep],
        row=sheet.row[keep],
    )


def _added(counts: Any) -> dict[str, int]:
    return dict(sum((collections.Counter(c) for c in counts), collections.Counter()))
