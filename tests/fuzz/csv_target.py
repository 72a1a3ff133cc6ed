"""Readers of raw CSV files, given any bytes: a documented error, or rows that add up.

``python -m tests.fuzz.csv_target`` runs for long under atheris (the extra ``fuzz``; see ``make
fuzz``); the default tests call ``read_all`` on what hypothesis makes of valid files.
"""

import functools
import pathlib

import numpy as np

from qoejax.data import cells, rated, raw, rawfile, recorded, records, schema, sources, windowed
from qoejax.data.bins import Bins
from qoejax.data.errors import DataError
from qoejax.data.schema import ton_iot_windows
from tests.data import dummy, zeek
from tests.fuzz import harness

CONFIGS = (
    "ciciot2023/34class",
    "ciciot2023/merged_8class_partial",
    "ton_iot/10class",
    "edge_iiotset/15class",
    "human_qoe/cloud_gaming",
    "human_qoe/poqemon",
    "ton_iot/windows",
)
RECORDED = CONFIGS[:4]
ROWS = 24


@functools.cache
def valid(config: str) -> bytes:
    """A small file in the form of a config."""
    lines = _zeek() if config == "ton_iot/windows" else _lines(config)
    return "".join(",".join(line) + "\n" for line in lines).encode()


def _lines(config: str) -> list:
    make = dummy.rated if config.startswith("human_qoe") else dummy.table
    return make(config, ROWS)


def _zeek() -> list:
    rows = zeek.captures(count=1, seconds=120)
    return [zeek.HEADER, *rows[:: len(rows) // ROWS]]  # Enough seconds for a window.


@functools.cache
def _spec(config: str):
    """The columns, with the vocabularies of the valid file."""
    spec = schema.spec_of(schema.find(config))
    header, *rows = _lines(config)
    vocab = {
        c.name: ("", *sorted({row[header.index(c.name)] for row in rows} - {"", "-", "0", "0.0"}))
        for c in spec.columns
        if c.kind == "categorical"
    }
    return spec._replace(vocab=vocab)


def read_all(config: str, path: pathlib.Path) -> str:
    """Reads a file as ``predict`` and as a builder do; says what came of it.

    Anything but a ``DataError`` of one line that begins with the file's name escapes.
    """
    try:
        if config == "ton_iot/windows":
            return _windows(config, path)
        if config not in RECORDED:
            return _ratings(config, path)
        _raw(config, path)
        return _as_builder(config, path)
    except DataError as e:
        said = str(e)
    assert str(path) in said
    assert "\n" not in said, said
    return "refused"


def _raw(config: str, path: pathlib.Path) -> None:
    table, report, row = raw.read_raw_rows(path, _spec(config))
    assert np.isfinite(table.x).all()
    assert len(table.label) == len(row) == report.kept > 0
    assert report.rows == report.kept + sum(report.dropped.values())
    assert (np.diff(row) > 0).all()
    assert row[0] >= 0
    assert row[-1] < report.rows
    assert report.labelled == (table.label >= 0).sum()
    assert table.label.max() < len(_spec(config).label_names)


def _as_builder(config: str, path: pathlib.Path) -> str:
    level = schema.find(config)
    file = rawfile.open_raw(path)
    plan, missing = records.layout(file, level, level.schema.columns, with_label=True)
    if missing:
        sources.refuse_missing(file, level, missing)
    tally = records.Tally()
    kept = 0
    for rows, done in records.read(file, plan, lambda n, t, i: i, tally, need_label=True):
        assert np.isfinite(rows.numeric).all()
        assert np.isfinite(rows.content).all()
        assert (rows.label >= 0).all()
        assert 0 <= done <= 1
        kept += len(rows.label)
    assert tally.kept == kept
    assert tally.rows == kept + sum(tally.summary().values())
    recorded.check_file(path, tally, level)
    return "read"


def _ratings(config: str, path: pathlib.Path) -> str:
    spec = _spec(config)
    table, report, identity = rated.read_rated(path, spec, [c.name for c in spec.columns])
    assert np.isfinite(table.x).all()
    scores = table.mos[table.mos_mask]
    assert ((scores >= 1) & (scores <= 5)).all()
    assert len(table.label) == len(identity["row"]) == report.kept > 0
    assert report.rows == report.kept + sum(report.dropped.values())
    assert (np.diff(identity["row"]) > 0).all()
    return "read"


def _windows(config: str, path: pathlib.Path) -> str:
    spec = ton_iot_windows.spec(config.partition("/")[2])
    level = ton_iot_windows.level(config.partition("/")[2])
    file = rawfile.open_raw(path)
    plan, missing = records.layout(file, level, level.schema.columns, with_label=True)
    if not missing:
        tally, bins = records.Tally(), Bins(10)
        for _ in windowed.read(file, plan, bins, tally, need_label=True):
            pass
        assert tally.rows == tally.kept + sum(tally.summary().values())
        held = [bins.dense(first, last) for first, last in bins.blocks(3600)]
        assert sum(d.label.sum() for d in held) <= tally.kept
    table, report, _ = windowed.read_windows(path, spec, ())
    assert np.isfinite(table.x).all()
    assert np.isfinite(table.mos).all()
    assert ((table.mos >= 1) & (table.mos <= 5))[table.mos_mask].all()
    assert report.rows == report.kept + sum(report.dropped.values())
    return "read"


def main() -> None:
    """Fuzzes every config in turn, by the first byte, from the valid files."""

    def one(folder: pathlib.Path, data: bytes) -> None:
        if data:
            path = folder / "rows.csv"
            path.write_bytes(data[1:])
            read_all(CONFIGS[data[0] % len(CONFIGS)], path)

    seeds = [bytes([i]) + valid(config) for i, config in enumerate(CONFIGS)]
    harness.run(seeds, (cells, rawfile, records, raw, rated, windowed), one)


if __name__ == "__main__":
    main()
