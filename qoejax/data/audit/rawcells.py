"""Raw files as cells: every column as it is spelt, whatever the dataset (NumPy, pyarrow, host)."""

import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from qoejax.data import cells, rawfile
from qoejax.data.audit.frame import Column, column
from qoejax.data.errors import DataError
from qoejax.data.schema import Level, plain
from qoejax.data.table import CATEGORICAL

SUFFIXES = (".csv", ".csv.gz", ".parquet")
NUMBERS = 0.95
"""Share of numbers among cells that are not empty, from which a column without schema is one."""


class Cells(NamedTuple):
    """A column's distinct texts as spelt, and each row's index among them."""

    name: str
    text: tuple[str, ...]
    code: Int64[np.ndarray, " N"]


class Raw(NamedTuple):
    """All columns of some files of one form, and the file (index) of each row."""

    cells: dict[str, Cells]
    file: Int64[np.ndarray, " N"]
    paths: tuple[pathlib.Path, ...]
    skipped: int


def paths_of(inputs: Sequence[pathlib.Path]) -> tuple[pathlib.Path, ...]:
    """The files that the inputs name; a folder stands for the tables in it and below.

    Raises:
      DataError: an input does not exist, or a folder has no table.
    """
    found: list[pathlib.Path] = []
    for path in inputs:
        if path.is_dir():
            inside = [p for p in sorted(path.rglob("*")) if p.name.lower().endswith(SUFFIXES)]
            if not inside:
                raise DataError(f"{path}: holds no {', '.join(SUFFIXES)} file.")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise DataError(f"{path}: is neither a file nor a folder.")
    return tuple(found)


def read(paths: Sequence[pathlib.Path]) -> Raw:
    """Reads whole files, as text; columns that not all files have are left out.

    Raises:
      DataError: a file is missing, no table, or breaks off; or the files share no column.
    """
    files = [rawfile.open_raw(path) for path in paths]
    names = [n for n in files[0].names if all(plain(n) in map(plain, f.names) for f in files)]
    names = [n for n in names if plain(n)]
    if not names:
        raise DataError(f"{paths[0]}: shares no column with the other files.")
    index: dict[str, dict[str, int]] = {name: {} for name in names}
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    owner, skipped = [], 0
    for i, file in enumerate(files):
        positions, _ = rawfile.match(file, names)
        bad: set[int] = set()
        for batch in rawfile.batches(file, positions, frozenset(names), bad):
            for name in names:
                texts, inverse = cells.uniques(batch.columns[name])
                known = index[name]
                codes = [known.setdefault(text, len(known)) for text in texts]
                parts[name].append(np.array(codes, np.int64)[inverse])
            owner.append(np.full(len(batch.row), i))
        skipped += len(bad)
    if not owner:
        raise DataError(f"{paths[0]}: has no usable row.")
    made = {n: Cells(n, tuple(index[n]), np.concatenate(parts[n])) for n in names}
    return Raw(made, np.concatenate(owner), tuple(paths), skipped)


def take(raw: Raw, rows: Int64[np.ndarray, " n"], without: Sequence[str] = ()) -> Raw:
    """Some rows, and all columns but some."""
    chosen = {n: c._replace(code=c.code[rows]) for n, c in raw.cells.items() if n not in without}
    return raw._replace(cells=chosen, file=raw.file[rows])


def columns(raw: Raw, level: Level | None, default: Sequence[str] | None = None) -> list[Column]:
    """The files' columns, their cells read as the dataset's schema says (or as they look).

    Args:
      raw: the cells.
      level: the dataset's form; columns it does not know are read as they look.
      default: names of the columns that a model sees.
    """
    known = {plain(c.name): c for c in level.schema.columns} if level else {}
    clocks = level.schema.clocks if level else frozenset()
    zero = level.schema.absent_is_zero if level else False
    seen = None if default is None else {plain(n) for n in default}
    out = []
    for name, spelt in raw.cells.items():
        found = known.get(plain(name))
        is_default = seen is None or plain(name) in seen
        if found is None:
            kind = _kind(spelt)
        else:
            kind = "nominal" if found.kind == CATEGORICAL else "number"
            kind = "clock" if found.name in clocks else kind
        made = _column(spelt, kind, zero)
        out.append(made._replace(default=is_default))
    return out


def _kind(spelt: Cells) -> str:
    """What a column looks like: "number", "clock" or "nominal"."""
    count = np.bincount(spelt.code, minlength=len(spelt.text))
    present = np.array([t.strip() not in ("", "-") for t in spelt.text]) * count
    total = max(1, int(present.sum()))
    if present @ np.isfinite([cells.number(t) for t in spelt.text]) >= NUMBERS * total:
        return "number"
    clocks = present @ np.isfinite([cells.clock(t) for t in spelt.text])
    return "clock" if clocks >= 0.5 * total else "nominal"


def _column(spelt: Cells, kind: str, absent_is_zero: bool) -> Column:
    if kind == "nominal":
        texts: dict[str, int] = {}
        codes = [texts.setdefault(cells.canonical(t), len(texts)) for t in spelt.text]
        return column(spelt.name, np.array(codes)[spelt.code], nominal=True)
    parse = cells.clock if kind == "clock" else cells.number
    values = np.array([parse(t) for t in spelt.text])
    if absent_is_zero:
        empty = np.array([t.strip() in ("", "-") for t in spelt.text])
        values = np.where(empty | (np.isnan(values) & (kind == "clock")), 0.0, values)
    values[np.isinf(values)] = np.nan
    return column(spelt.name, values[spelt.code], clock=kind == "clock")


def labels(
    raw: Raw, name: str, level: Level | None
) -> tuple[Int64[np.ndarray, " N"], tuple[str, ...]]:
    """Class index (-1 where blank) and names; a schema's labels by its names, others as spelt.

    Raises:
      DataError: there is no such column.
    """
    spelt = find(raw, name)
    known: dict[str, str] = {}
    if level:
        schema = level.schema
        known = {plain(fine): label for fine, label in level.taxonomy.of.items()}
        known |= {plain(a): known[plain(fine)] for a, fine in schema.aliases.items()}
    texts = [known.get(plain(t), t.strip()) for t in spelt.text]
    names = tuple(sorted({t for t in texts if t}))
    place = {t: i for i, t in enumerate(names)} | {"": -1}
    return np.array([place[t] for t in texts], np.int64)[spelt.code], names


def scores(raw: Raw, name: str) -> np.ndarray:
    """A score column [N]; NaN where a cell is no finite number.

    Raises:
      DataError: there is no such column, or it holds no number.
    """
    spelt = find(raw, name)
    values = np.array([cells.number(t) for t in spelt.text])[spelt.code]
    if not np.isfinite(values).any():
        raise DataError(f"{raw.paths[0]}: column {name!r} holds no number; expected scores.")
    return np.where(np.isfinite(values), values, np.nan)


def owners(raw: Raw, names: Sequence[str], pattern: str = "") -> Int64[np.ndarray, " N"]:
    """Index of each row's owner: the texts of some columns together.

    With a ``pattern`` (a regular expression), only the part of them that it finds.

    Raises:
      DataError: there is no such column.
    """
    spelt = [find(raw, name) for name in names]
    places = np.stack([c.code for c in spelt], 1)
    rows, inverse = np.unique(places, axis=0, return_inverse=True)
    known: dict[str, int] = {}
    codes = []
    for row in rows:
        text = " ".join(c.text[i].strip() for c, i in zip(spelt, row, strict=True))
        found = re.search(pattern, text) if pattern else None
        codes.append(known.setdefault(found[0] if found else text, len(known)))
    return np.array(codes, np.int64)[inverse.ravel()]


def find(raw: Raw, name: str) -> Cells:
    """The column of that name, compared without case, spaces and punctuation.

    Raises:
      DataError: there is none.
    """
    for key, spelt in raw.cells.items():
        if plain(key) == plain(name):
            return spelt
    raise DataError(f"{raw.paths[0]}: has no column {name!r}; it has {', '.join(raw.cells)}.")
