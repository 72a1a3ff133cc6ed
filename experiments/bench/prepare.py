"""Preparing and loading the full CICIoT2023 form, on made-up rows. One JSON line each.

    python -m experiments.bench.prepare --rows=5000000

Writes ``rows`` rows into part-*.csv files of 276,000 (46 features and the label, the published
shares of the 34 classes, cells as wide as the real ones), prepares them with the prepare command,
counts equal rows with it, and loads the training split into one array. ``full_*`` are the same
figures for the 46,686,579 rows of the real files, in proportion (counting keeps 8 bytes a row in
memory). Rates are wall-clock; ``*_cpu_*`` is what counts on a busy machine. The folder is removed
at the end.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import flags

from experiments import cli
from experiments.bench import common

_ROWS = flags.DEFINE_integer("rows", 20_000, "Rows to make up.", lower_bound=1000)
_DIR = flags.DEFINE_string("dir", None, "Folder for the files (a temporary one).")

FULL_ROWS = 46_686_579
PART_ROWS = 276_000
TARGETS = {"peak_mb": 1000, "full_cpu_minutes": 15, "bytes_per_row": 60, "load_rows_per_s": 1e6}

# Published rows of each class (Neto et al. 2023), in thousands.
SHARES = {
    "DDoS-ICMP_Flood": 7200.5,
    "DDoS-UDP_Flood": 5412.3,
    "DDoS-TCP_Flood": 4497.7,
    "DDoS-PSHACK_Flood": 4094.8,
    "DDoS-SYN_Flood": 4059.2,
    "DDoS-RSTFINFlood": 4045.3,
    "DDoS-SynonymousIP_Flood": 3598.1,
    "DoS-UDP_Flood": 3318.6,
    "DoS-TCP_Flood": 2671.4,
    "DoS-SYN_Flood": 2028.8,
    "BenignTraffic": 1098.2,
    "Mirai-greeth_flood": 991.9,
    "Mirai-udpplain": 890.6,
    "Mirai-greip_flood": 751.7,
    "DDoS-ICMP_Fragmentation": 452.5,
    "MITM-ArpSpoofing": 307.6,
    "DDoS-UDP_Fragmentation": 286.9,
    "DDoS-ACK_Fragmentation": 285.1,
    "DNS_Spoofing": 178.9,
    "Recon-HostDiscovery": 134.4,
    "Recon-OSScan": 98.3,
    "Recon-PortScan": 82.3,
    "DoS-HTTP_Flood": 71.9,
    "VulnerabilityScan": 37.4,
    "DDoS-HTTP_Flood": 28.8,
    "DDoS-SlowLoris": 23.4,
    "DictionaryBruteForce": 13.1,
    "BrowserHijacking": 5.9,
    "CommandInjection": 5.4,
    "SqlInjection": 5.2,
    "XSS": 3.8,
    "Backdoor_Malware": 3.2,
    "Recon-PingSweep": 2.3,
    "Uploading_Attack": 1.3,
}

# Of columns that are not nearly constant: decimals (None: all 17 digits), the share of rows with a
# value of their own, and a typical size. About as in the real files; shares err on the high side.
VARYING: dict[str, tuple[int | None, float, float]] = {
    "flow_duration": (None, 0.6, 0.05),
    "Header_Length": (1, 0.6, 5000.0),
    "Protocol Type": (1, 0.05, 6.0),
    "Duration": (2, 0.1, 64.0),
    "Rate": (None, 0.98, 80.0),
    "syn_count": (2, 0.1, 0.5),
    "urg_count": (1, 0.15, 20.0),
    "rst_count": (1, 0.3, 50.0),
    "Tot sum": (1, 0.5, 600.0),
    "Min": (1, 0.2, 54.0),
    "Max": (1, 0.3, 60.0),
    "AVG": (None, 0.4, 56.0),
    "Std": (None, 0.5, 2.0),
    "Tot size": (1, 0.4, 56.0),
    "IAT": (None, 1.0, 8.3e7),
    "Magnitue": (None, 0.4, 10.6),
    "Radius": (None, 0.5, 3.0),
    "Covariance": (None, 0.5, 20.0),
    "Variance": (2, 0.5, 0.1),
}


def _write(folder: pathlib.Path, rows: int) -> int:
    """Writes the files; their bytes."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv

    from qoejax.data import schema

    names = [c.name for c in schema.find("ciciot2023/34class").schema.columns]
    options = pyarrow.csv.WriteOptions(quoting_style="none")
    share = np.array(list(SHARES.values()))
    flags = pa.array(["0.0", "1.0"])
    total = 0
    for part, start in enumerate(range(0, rows, PART_ROWS)):
        rng = np.random.default_rng(part)
        n = min(PART_ROWS, rows - start)
        classes = rng.choice(len(share), n, p=share / share.sum())
        columns: dict[str, pa.Array] = {}
        for name in names:
            if name == "Srate":
                columns[name] = columns["Rate"]
            elif name in VARYING:
                columns[name] = pa.array(_values(rng, classes, *VARYING[name]))
            else:  # A flag, nearly always the same in a class.
                usual = rng.integers(0, 2, len(share))[classes]
                columns[name] = flags.take(pa.array(usual ^ (rng.random(n) < 0.005)))
        columns["label"] = pa.array(list(SHARES)).take(pa.array(classes))
        path = folder / f"part-{part:05d}.csv"
        pyarrow.csv.write_csv(pa.table(columns), path, options)
        total += path.stat().st_size
    return total


def _values(rng: Any, classes: Any, decimals: int | None, share: float, size: float) -> Any:
    """A column: its own value in ``share`` of the rows, one of the class in the others."""
    import numpy as np

    spread = 1e-3 if size > 1e6 else 1.0  # IAT holds the date: all alike.
    own = size * rng.lognormal(0, spread, len(classes))
    usual = np.round(size * rng.lognormal(0, spread, len(SHARES)), 1)[classes]
    values = np.where(rng.random(len(classes)) < share, own, usual)
    return values if decimals is None else np.round(values, decimals)


def _prepare(manual: pathlib.Path, data: pathlib.Path, *more: str) -> dict[str, Any]:
    """Runs the command; what it printed, and its time and memory (from the kernel)."""
    command = [sys.executable, "-m", "experiments.prepare", "--dataset=ciciot2023/34class"]
    start = time.monotonic()
    process = subprocess.Popen(
        [*command, f"--manual_dir={manual}", f"--data_dir={data}", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"experiments.prepare failed with exit code {process.returncode}")
    return {
        "printed": json.loads(said),
        "seconds": time.monotonic() - start,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2),
    }


def _load(data: pathlib.Path) -> dict[str, float]:
    """The training split in one array."""
    from qoejax.data import load

    prepared = load.builder("ciciot2023/34class", data)
    start, cpu = time.monotonic(), time.process_time()
    _, rows = load.table(prepared, "train")
    seconds, cpu = time.monotonic() - start, time.process_time() - cpu
    n = len(rows.label)
    return {"rows": n, "seconds": seconds, "rows_per_s": n / seconds, "rows_per_cpu_s": n / cpu}


def main() -> dict[str, Any]:
    """Prints one line each for the files, preparing, counting equal rows, and loading."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bench-prepare-", dir=_DIR.value))
    try:
        manual, data = folder / "manual", folder / "data"
        manual.mkdir()
        rows = _ROWS.value
        raw = _write(manual, rows)
        common.emit({"bench": "files", "rows": rows, "raw_bytes_per_row": raw / rows})
        made = _prepare(manual, data, "--count_duplicates=false")
        counts = made.pop("printed")["rows"]
        disk = sum(p.stat().st_size for p in data.rglob("*") if p.is_file())
        scale = FULL_ROWS / rows
        prepared = made | {
            "rows": sum(counts.values()),
            "rows_per_s": rows / made["seconds"],
            "bytes_per_row": disk / rows,
            "full_cpu_minutes": made["cpu_s"] * scale / 60,
            "full_disk_gb": disk * scale / 1e9,
        }
        common.emit({"bench": "prepare", **prepared})
        equal = _prepare(manual, data)  # Prepared already: this only counts.
        equal.pop("printed")
        counted = equal | {
            "full_cpu_minutes": equal["cpu_s"] * scale / 60,
            "full_peak_mb": equal["peak_mb"] + 8 * (scale - 1) * counts["train"] / 2**20,
        }
        common.emit({"bench": "equal_rows", **counted})
        loaded = _load(data)
        common.emit({"bench": "load", **loaded})
    finally:
        shutil.rmtree(folder)
    measured = prepared | {f"load_{k}": loaded[k] for k in ("rows_per_s", "rows_per_cpu_s")}
    measured["peak_mb"] = max(prepared["peak_mb"], counted["full_peak_mb"])
    shown = (*TARGETS, "load_rows_per_cpu_s")
    return {"bench": "summary", "targets": TARGETS, **{k: measured[k] for k in shown}}


if __name__ == "__main__":
    cli.run(main)
