"""Quantities that several datasets have: rates, sizes, shares of flags and of protocols.

A model of this view can be tried on a dataset that it has never seen. Each row says how one dataset
gives one quantity; a quantity whose columns a prepared dataset lacks is left out, and no value is
made up. Labels are benign and attack. NumPy only.

What is lacking, and what is not quite the same: a record of CICIoT2023 is a window of 10 or 100
packets, of the simulated network and of captures a window of time or of equally many packets. A
record of TON_IoT is a whole connection, without flags and without the spread of sizes; a connection
of one packet lasts no time, and its rates are 0. Edge-IIoTset has single packets: no rate, no view.
"""

from collections.abc import Callable, Collection
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from qoejax.data.errors import DataError
from qoejax.data.table import CATEGORICAL, NUMERIC, Column, Spec, Table, make_table

BENIGN, ATTACK = "Benign", "Attack"

COLUMNS = {
    c.name: c
    for c in (
        Column("packet_rate", "packets/s", NUMERIC, False, "packets over the time of the record"),
        Column("byte_rate", "bytes/s", NUMERIC, False, "bytes over the time of the record"),
        Column("size_mean", "bytes", NUMERIC, False, "mean packet size"),
        Column("size_std", "bytes", NUMERIC, False, "standard deviation of the packet size"),
        *(
            Column(f"{flag}_share", "", NUMERIC, False, f"share of packets with {flag.upper()}")
            for flag in ("fin", "syn", "rst", "psh", "ack")
        ),
        *(
            Column(f"{p}_share", "", NUMERIC, False, f"share of {p.upper()} packets")
            for p in ("tcp", "udp", "icmp")
        ),
    )
}


class Source(NamedTuple):
    """The columns that a quantity is computed from, and how (None: it is the only column)."""

    columns: tuple[str, ...]
    compute: Callable[..., np.ndarray] | None = None


def _per_second(duration: np.ndarray, *amounts: np.ndarray) -> np.ndarray:
    total = np.sum(amounts, axis=0)
    return np.where(duration > 0, total / np.where(duration > 0, duration, 1), 0)


def _ratio(*halves: np.ndarray) -> np.ndarray:
    """First half of the arguments summed, over the second half summed; 0 where that is 0."""
    middle = len(halves) // 2
    top, bottom = np.sum(halves[:middle], axis=0), np.sum(halves[middle:], axis=0)
    return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1), 0)


_FLAGS = {f"{f}_share": Source((f"{f}_flag_number",)) for f in ("fin", "syn", "rst", "psh", "ack")}
_CICIOT2023 = {
    "packet_rate": Source(("Rate",)),
    "byte_rate": Source(("Rate", "AVG"), np.multiply),
    "size_mean": Source(("AVG",)),
    "size_std": Source(("Std",)),
    **_FLAGS,
    **{f"{p}_share": Source((p.upper(),)) for p in ("tcp", "udp", "icmp")},
}
_BYTES, _PACKETS = ("src_ip_bytes", "dst_ip_bytes"), ("src_pkts", "dst_pkts")

SOURCES: dict[str, dict[str, Source]] = {
    "ciciot2023": _CICIOT2023,
    "simulated_iot": _CICIOT2023 | {"byte_rate": Source(("Tot sum",))},
    "pcap_folder": {
        "packet_rate": Source(("rate",)),
        **{name: Source((name,)) for name in ("byte_rate", "size_mean", "size_std")},
        **{f"{f}_share": Source((f"{f}_flag",)) for f in ("fin", "syn", "rst", "psh", "ack")},
        **{f"{p}_share": Source((p,)) for p in ("tcp", "udp", "icmp")},
    },
    "ton_iot": {
        "packet_rate": Source(("duration", *_PACKETS), _per_second),
        "byte_rate": Source(("duration", *_BYTES), _per_second),
        "size_mean": Source((*_BYTES, *_PACKETS), _ratio),
        **{f"{p}_share": Source((f"proto={p}",)) for p in ("tcp", "udp", "icmp")},
    },
}
"""How each dataset gives each quantity; "column=value" is 1 where a category has that value."""


def apply(spec: Spec, rows: Table) -> tuple[Spec, Table]:
    """The last record of each window in the shared view; groups and order stay, scores go.

    Raises:
      DataError: the dataset is not in ``SOURCES``, or has no quantity of the view.
    """
    sources = SOURCES.get(spec.dataset.partition("/")[0])
    if sources is None:
        known = ", ".join(sorted(SOURCES))
        raise DataError(f"{spec.dataset} has no shared view; {known} have.")
    there = {name: s for name, s in sources.items() if _has(spec, s)}
    if not there:
        raise DataError(f"{spec.dataset} as prepared has no column of the shared view.")
    last = rows.x[:, -1:]
    x = np.stack([_value(spec, last, there[name]) for name in COLUMNS if name in there], -1)
    attack = np.array([name != spec.benign for name in spec.label_names], np.int32)
    label = np.where(rows.label >= 0, attack[rows.label], -1)
    view = Spec(
        dataset=spec.dataset,
        columns=tuple(c for name, c in COLUMNS.items() if name in there),
        label_names=(BENIGN, ATTACK),
        services=(),
        vocab={},
        benign=BENIGN,
        window=1,
    )
    return view, make_table(x.astype(np.float32), label, rows.group)


def lacking(spec: Spec) -> tuple[str, ...]:
    """Quantities of the view that a dataset cannot give."""
    sources = SOURCES.get(spec.dataset.partition("/")[0], {})
    return tuple(n for n in COLUMNS if n not in sources or not _has(spec, sources[n]))


def align(model: Spec, needed: Collection[str], spec: Spec, rows: Table) -> Table:
    """The rows (already in the view) with the columns of a model's view, in its order.

    Columns that the model does not see (all but ``needed``) are 0 where the rows lack them.

    Raises:
      DataError: the rows lack a column that the model sees.
    """
    names = [c.name for c in spec.columns]
    missing = [c.name for c in model.columns if c.name in needed and c.name not in names]
    if missing:
        raise DataError(
            f"{spec.dataset} cannot give {', '.join(missing)} of the shared view; expected a model "
            "that was trained without (config.data.drop)."
        )
    absent = np.zeros((*rows.x.shape[:2], 1), np.float32)
    wide = np.concatenate([rows.x, absent], axis=2)
    at = [names.index(c.name) if c.name in names else -1 for c in model.columns]
    return rows._replace(x=np.ascontiguousarray(wide[:, :, at]))


def _has(spec: Spec, source: Source) -> bool:
    return {name.partition("=")[0] for name in source.columns} <= {c.name for c in spec.columns}


def _value(spec: Spec, x: Float32[np.ndarray, "N T F"], source: Source) -> np.ndarray:
    parts = [_column(spec, x, name).astype(np.float64) for name in source.columns]
    return parts[0] if source.compute is None else source.compute(*parts)


def _column(spec: Spec, x: np.ndarray, name: str) -> np.ndarray:
    plain, _, value = name.partition("=")
    j = [c.name for c in spec.columns].index(plain)
    if spec.columns[j].kind != CATEGORICAL:
        return x[:, :, j]
    values = spec.vocab[plain]
    return x[:, :, j] == values.index(value) if value in values else np.zeros(x.shape[:2])
