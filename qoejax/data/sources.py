"""The user's files of a dataset: found, and every header checked before any work (host)."""

import fnmatch
import pathlib
from typing import NamedTuple

from qoejax.data import rawfile, records
from qoejax.data.errors import DataError
from qoejax.data.schema import Level
from qoejax.data.table import Column

SUFFIXES = (".csv", ".csv.gz")
_SHOWN = 24  # Names listed in a message before "and N more".


class Sources(NamedTuple):
    """Files in reading order, each with its layout; and what is not read, and why.

    ``columns`` are those that every file has; ``absent`` the others (none unless the config is
    partial). ``passed_over`` are files that the schema's file-name patterns leave aside.
    """

    files: list[tuple[rawfile.RawFile, records.Layout]]
    columns: tuple[Column, ...]
    absent: tuple[str, ...]
    passed_over: tuple[str, ...]


def find(manual_dir: pathlib.Path, level: Level) -> Sources:
    """Finds and checks the files of a config, in ``manual_dir`` and the folders below it.

    Raises:
      DataError: there is no file; a file is of another release or format, or lacks columns.
    """
    paths, passed_over = _choose(manual_dir, level)
    files = [rawfile.open_raw(path) for path in paths]
    schema = level.schema
    missing: set[str] = set()
    for file in files:
        _, lacking = records.layout(file, level, schema.columns, with_label=True)
        if lacking:
            refuse_missing(file, level, lacking)
        missing.update(lacking)
    columns = tuple(c for c in schema.columns if c.name not in missing)
    if all(c.leaky for c in columns):
        raise DataError(f"{manual_dir}: no usable column of {schema.title} is in every file.")
    layouts = [records.layout(file, level, columns, with_label=True)[0] for file in files]
    return Sources(
        files=list(zip(files, layouts, strict=True)),
        columns=columns,
        absent=tuple(c.name for c in schema.columns if c.name in missing),
        passed_over=passed_over,
    )


def _choose(manual_dir: pathlib.Path, level: Level) -> tuple[list[pathlib.Path], tuple[str, ...]]:
    """Files to read, sorted; and those to pass over, relative to ``manual_dir``."""
    schema = level.schema
    inside = [p for p in sorted(manual_dir.rglob("*")) if p.is_file()]
    inside = [p for p in inside if not any(_hidden(part) for part in _relative(p, manual_dir))]
    found = [p for p in inside if p.name.lower().endswith(SUFFIXES)]
    if not found:
        zips = [p.name for p in inside if p.suffix.lower() == ".zip"]
        unpack = f" (unpack {zips[0]} first)" if zips else ""
        raise DataError(
            f"{manual_dir}: holds no .csv or .csv.gz file{unpack}; {schema.instructions}."
        )
    chosen = found
    for pattern in schema.patterns:
        named = [p for p in found if fnmatch.fnmatch(p.name.lower(), pattern)]
        if named:
            chosen = named
            break
    names = {p.with_name(p.name.lower().removesuffix(".gz")): p for p in chosen}
    if len(names) < len(chosen):
        twice = next(p for p in chosen if p not in names.values())
        raise DataError(f"{twice}: is there both plain and compressed; keep one.")
    return chosen, tuple(p.relative_to(manual_dir).as_posix() for p in found if p not in chosen)


def _relative(path: pathlib.Path, folder: pathlib.Path) -> tuple[str, ...]:
    return path.relative_to(folder).parts


def _hidden(part: str) -> bool:
    return part.startswith(".") or part == "__MACOSX"


def refuse_missing(file: rawfile.RawFile, level: Level, missing: list[str]) -> None:
    """Says what is missing and what to do; returns only where missing columns are in order.

    Raises:
      DataError: the file is of another release, or lacks columns that this config needs.
    """
    schema = level.schema
    foreign, _ = rawfile.match(file, tuple(schema.foreign))
    features_only = schema.label_column not in missing
    name, hint = level.dataset.partition("/")[0], ""
    if foreign:
        other = schema.foreign[next(iter(foreign))]
        hint = f"; {listed(list(foreign))} belong to the other release: see {name}/{other}"
    elif level.is_partial and features_only:
        return
    elif level.partial and features_only:
        hint = f"; the config {name}/{level.partial} trains on the columns that are there"
    plural = "s" if len(missing) > 1 else ""
    raise DataError(f"{file.path}: lacks column{plural} {listed(missing)} of {schema.title}{hint}.")


def listed(names: list[str]) -> str:
    """Quoted names, the first two dozen of them."""
    shown = ", ".join(repr(name) for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
