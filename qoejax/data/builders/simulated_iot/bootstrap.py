"""Rows of CICIoT2023's second release as attacks of the simulator. NumPy, on the host.

A row describes a window of packets; here it stands for one second. What it says of sizes, headers,
flags and protocols is taken as it is, and the shape over time from its rate; the height comes from
the simulator. Nothing of the rows is shipped: they are read from the user's own files.
"""

import pathlib
from typing import Any

import numpy as np

from qoejax.data import raw, schema, sources
from qoejax.data.errors import DataError
from qoejax.data.rawfile import sha256
from qoejax.data.table import Table
from qoejax.simulate import attacks, mixes

DATASET = "ciciot2023/merged_34class"

INSTRUCTIONS = schema.find(DATASET).schema.instructions

MOST_ROWS = 20_000
"""Of each label; files are read in order until there are enough of every one."""

COLUMNS = {
    "size": "AVG",
    "size_std": "Std",
    "header": "Header_Length",
    "ttl": "Time_To_Live",
    **{flag: f"{flag}_flag_number" for flag in ("fin", "syn", "rst", "psh", "ack")},
    "tcp": "TCP",
    "udp": "UDP",
    "icmp": "ICMP",
    "arp": "ARP",
    "http": "HTTP",
    "https": "HTTPS",
    "dns": "DNS",
    "telnet": "Telnet",
    "ssh": "SSH",
}
"""Column of each field of ``mixes.Kind``."""


def read(manual_dir: pathlib.Path | None) -> tuple[attacks.Recording, list[dict[str, Any]]]:
    """Attack rows of the files in ``manual_dir``, label by label, and which files were read.

    Raises:
        DataError: no folder, no files of that release, damaged files, or no row of an attack.
    """
    if manual_dir is None:
        raise DataError(f"simulated_iot/bootstrap needs a manual_dir: {INSTRUCTIONS}.")
    level = schema.find(DATASET)
    spec = schema.spec_of(level)
    parts, used = [], []
    count = np.zeros(len(mixes.LABELS), int)
    for file, _ in sources.find(manual_dir, level).files:
        table, report = raw.read_raw(file.path, spec, [*COLUMNS.values(), "Rate"])
        parts.append(rows(table, spec.label_names, [c.name for c in spec.columns]))
        count += np.bincount(parts[-1][2], minlength=len(count))
        name = file.path.relative_to(manual_dir).as_posix()
        used.append({"path": name, "sha256": sha256(file.path), "rows": report.rows})
        if count[1:].min() >= MOST_ROWS:
            break
    kinds, rate, label = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    # Of each label, the first rows only: which row of its label each one is decides.
    order = np.argsort(label, kind="stable")
    rank = np.empty(len(label), int)
    rank[order] = np.arange(len(label)) - (np.cumsum(count) - count)[label[order]]
    few = rank < MOST_ROWS
    if not (label[few] > 0).any():
        raise DataError(f"{manual_dir}: has no usable row of an attack.")
    return attacks.recording(kinds[few], rate[few], label[few]), used


def rows(
    table: Table, label_names: tuple[str, ...], columns: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``mixes.Kind`` [n,A], bytes/s [n] and label [n] of the rows that have a size and a rate."""
    family = {
        fine: i
        for i, name in enumerate(mixes.LABELS)
        for fine in mixes.FAMILIES[name]["ciciot2023"]
    }
    to_label = np.array([family[name] for name in label_names])
    x = table.x[:, 0]
    kinds = x[:, [columns.index(COLUMNS[field]) for field in mixes.Kind._fields]]
    kinds = np.concatenate(
        [np.maximum(kinds[:, :3], 0), np.clip(kinds[:, 3:4], 0, 255), np.clip(kinds[:, 4:], 0, 1)],
        axis=1,
    )
    rate = x[:, columns.index("Rate")] * kinds[:, 0]
    usable = (table.label >= 0) & (kinds[:, 0] >= 1) & (rate > 0)
    return kinds[usable], rate[usable], to_label[table.label[usable]]
