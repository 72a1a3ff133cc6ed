"""The full network records of TON_IoT as windows of time: builder plan and reader (NumPy, host)."""

import collections
import datetime
import math
import pathlib
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from qoejax.data import cells, rawfile, recorded, records, sketch, sources, windows
from qoejax.data.bins import CODED, NONE, OTHER, Bins, Dense, Flows
from qoejax.data.errors import DataError
from qoejax.data.packed import Plan, Progress
from qoejax.data.schema import Level
from qoejax.data.schema import ton_iot_windows as schema
from qoejax.data.table import Spec, Table, concatenate, make_table

FEW = 2000
"""Windows with a forecast to judge below which results are a case study, not evidence."""

SHARD_WINDOWS = 16_384
PIECE_BINS = 4096

_LATEST = 2**31 - 1  # 2038: seconds must fit into the codes of a category.


class Report(NamedTuple):
    """What ``read_windows`` saw; plain values. Records are counted, but for ``windows``."""

    path: str
    rows: int
    kept: int
    dropped: dict[str, int]
    unknown_labels: dict[str, int]
    blocks: int
    windows: int


def seconds(text: str) -> int:
    """The whole second of a time stamp cell; -1 if it is none after 1970 and before 2038."""
    value = cells.number(text)
    return math.floor(value) if 0 < value <= _LATEST else -1


def encode(name: str, texts: list[str], inverse: np.ndarray) -> np.ndarray:
    """Codes of a categorical cell: its second, its place in the schema's table, or its hash."""
    if name == "ts":
        codes = [seconds(t) for t in texts]
    elif name in CODED:
        table = CODED[name]
        known = {value: i for i, value in enumerate(table)} | {"": len(table) + NONE}
        codes = [known.get(t, len(table) + OTHER) for t in texts]
    else:
        codes = [sketch.text_hash(t) for t in texts]
    return np.array(codes, np.int32)[inverse]


def read(
    file: rawfile.RawFile, plan: records.Layout, bins: Bins, tally: records.Tally, need_label: bool
) -> Iterator[float]:
    """Adds a file's usable records to ``bins``, a block at a time; yields the fraction read.

    A record that has no time stamp, or would end after 2038, is left out and counted as "no time".

    Raises:
      DataError: as ``records.read``, or the records are spread over too many bins.
    """
    for rows, done in records.read(file, plan, encode, tally, need_label):
        codes = dict(zip(plan.categorical, rows.codes.T, strict=True))
        begin = codes["ts"].astype(np.int64)
        sums = np.stack([rows.numeric[:, plan.numeric.index(name)] for name in schema.SUMS], 1)
        sums = np.maximum(sums, 0.0).astype(np.float64)  # No size is below 0.
        timed = (begin >= 0) & (begin + sums[:, 0] <= _LATEST)
        missing = int((~timed).sum())
        tally.dropped["no time"] += missing
        tally.kept -= missing
        flows = Flows(
            begin=begin[timed],
            sums=sums[timed],
            codes={name: codes[name][timed] for name in CODED},
            distinct=np.stack([codes[name][timed] for name in schema.DISTINCT], 1),
            label=rows.label[timed],
        )
        try:
            bins.add(flows)
        except DataError as e:
            raise DataError(f"{file.path}: {e}") from None
        yield done


def blocks(bins: Bins, made: schema.Windows) -> list[windows.Block]:
    """The captures that are long enough for a window, in order of time."""
    found = [(a, b) for a, b in bins.blocks(windows.GAP_S) if b - a + 1 >= made.length]
    return [windows.block(a, _pieces(bins, a, b), made) for a, b in found]


def _pieces(bins: Bins, first: int, last: int) -> Iterator[Dense]:
    for at in range(first, last + 1, PIECE_BINS):
        yield bins.dense(at, min(at + PIECE_BINS - 1, last))


def plan(config: str, manual_dir: pathlib.Path, progress: Progress | None) -> Plan:
    """Reads all files, and says how their windows are split.

    Raises:
      DataError: no files, files of another form, too many unusable records, or none that make a
        window.
    """
    made, level = schema.CONFIGS[config], schema.level(config)
    found = sources.find(manual_dir, level)
    bins = Bins(made.bin_s)
    entries = _read_all(found, level, bins, manual_dir, progress)
    captures = blocks(bins, made)
    if not captures:
        raise DataError(f"{manual_dir}: {_no_window(made)}.")
    sides = windows.split(captures, made)
    shards = {
        name: [
            _shard(captures[i], i, own[at : at + SHARD_WINDOWS], made.length)
            for i, own in enumerate(chosen)
            for at in range(0, len(own), SHARD_WINDOWS)
        ]
        for name, chosen in (("train", sides.train), ("test", sides.test))
    }
    return Plan(shards, lambda: (schema.spec(config), _metadata(made, captures, sides, entries)))


def _read_all(
    found: sources.Sources,
    level: Level,
    bins: Bins,
    manual_dir: pathlib.Path,
    progress: Progress | None,
) -> list[dict[str, Any]]:
    """Fills the bins; what was seen in each file."""
    sizes = [file.path.stat().st_size for file, _ in found.files]
    entries: list[dict[str, Any]] = []
    for i, (file, layout) in enumerate(found.files):
        tally = records.Tally()
        before = sum(entry["rows"] for entry in entries)
        for done in read(file, layout, bins, tally, need_label=True):
            if progress:
                progress(before + tally.rows, (sum(sizes[:i]) + done * sizes[i]) / sum(sizes))
        recorded.check_file(file.path, tally, level)
        entries.append(recorded.entry(file, manual_dir, tally))
    return entries


def _shard(
    block: windows.Block, group: int, last: Int64[np.ndarray, " n"], length: int
) -> Callable[[], Iterator[Table]]:
    return lambda: iter([_table(block, group, last, length)])


def _table(block: windows.Block, group: int, last: Int64[np.ndarray, " n"], length: int) -> Table:
    return make_table(
        windows.cut(block.x, last, length),
        block.label[last],
        np.full(len(last), group),
        block.mos[last],
        block.mos_mask[last],
    )


def _metadata(
    made: schema.Windows,
    captures: list[windows.Block],
    sides: windows.Split,
    entries: list[dict[str, Any]],
) -> dict[str, Any]:
    """Books of the preparation, as plain values."""
    ahead = slice(len(schema.TRANSACTIONS), None)
    names = [t.service for t in schema.TRANSACTIONS]
    usable = {}
    for name, chosen in (("train", sides.train), ("test", sides.test)):
        parts = [b.mos_mask[e, ahead] for b, e in zip(captures, chosen, strict=True)]
        rated = np.concatenate(parts)
        usable[name] = dict(zip(names, rated.sum(0).tolist(), strict=True))
        usable[name]["any"] = int(rated.any(1).sum())
    total = sum(side["any"] for side in usable.values())
    dropped: collections.Counter[str] = collections.Counter()
    for entry in entries:
        dropped.update(entry["dropped"])
    warning = (
        f"only {total} windows have a score to forecast; below {FEW}, results are a case study"
    )
    return {
        **made._asdict(),
        "gap_s": windows.GAP_S,
        "split": sides.rule,
        "blocks": [
            {
                "from": _utc(b.first * made.bin_s),
                "to": _utc((b.first + len(b.label)) * made.bin_s),
                "train": len(train),
                "test": len(test),
            }
            for b, train, test in zip(captures, sides.train, sides.test, strict=True)
        ],
        "usable_windows": usable,
        "notes": [warning] if total < FEW else [],
        "sources": entries,
        "rows_read": sum(entry["rows"] for entry in entries),
        "dropped": dict(dropped),
    }


def _utc(at: int) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _no_window(made: schema.Windows) -> str:
    return (
        f"no capture lasts {made.length} bins of {made.bin_s} s, so there is no window (a pause of "
        f"more than {windows.GAP_S} s ends a capture)"
    )


def read_windows(
    path: pathlib.Path, spec: Spec, needed: Collection[str]
) -> tuple[Table, Report, dict[str, np.ndarray]]:
    """The windows of one file of records (.csv, .csv.gz or .parquet).

    Labels may be missing: classes are then -1, and nothing is rated.

    Args:
      path: the file.
      spec: of a prepared config or a saved model.
      needed: columns that the model sees; all come from the same records.

    Returns:
      The windows, what was read, and the columns "block" and "second" (end of the window, since
      1970).

    Raises:
      DataError: the file is missing, of another form, or too short for a window.
    """
    del needed
    config = spec.dataset.partition("/")[2]
    made, level = schema.CONFIGS[config], schema.level(config)
    if not path.is_file():
        raise DataError(f"{path}: is not a file; expected .csv, .csv.gz or .parquet.")
    file = rawfile.open_raw(path)
    layout, missing = records.layout(file, level, level.schema.columns, with_label=True)
    if lacking := [name for name in missing if name != level.schema.label_column]:
        sources.refuse_missing(file, level, lacking)
    tally, bins = records.Tally(), Bins(made.bin_s)
    for _ in read(file, layout, bins, tally, need_label=False):
        pass
    captures = blocks(bins, made)
    if not captures:
        raise DataError(f"{path}: {_no_window(made)}; {tally.kept} records could be read.")
    ends = [np.arange(made.length - 1, len(b.label), dtype=np.int64) for b in captures]
    parts = [(b, i, e) for i, (b, e) in enumerate(zip(captures, ends, strict=True))]
    table = concatenate([_table(b, i, e, made.length) for b, i, e in parts])
    report = Report(
        path=str(path),
        rows=tally.rows,
        kept=tally.kept,
        dropped=tally.summary(),
        unknown_labels=dict(tally.unknown_labels.most_common()),
        blocks=len(captures),
        windows=len(table.label),
    )
    second = np.concatenate([(b.first + e + 1) * made.bin_s for b, _, e in parts])
    return table, report, {"block": table.group.copy(), "second": second}
