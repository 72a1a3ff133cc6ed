"""Packets a second from a capture to windows, and the memory that it takes.

python -m experiments.bench.captures --packets=300000

Each size runs in a process of its own, so that the peak is its own; the larger is ten times the
smaller. CPU seconds count: they include opening, framing, decoding, windows and sequences.
"""

import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import app, flags

_PACKETS = flags.DEFINE_integer(
    "packets", 300_000, "Packets of the larger capture.", lower_bound=10
)
_CONFIG = flags.DEFINE_enum("windows", "packets", ["packets", "seconds"], "What a window is.")
_MEASURE = flags.DEFINE_string("measure", "", "Internal: measure this capture and stop.")

RECORD = np.dtype(
    [("sec", "<u4"), ("usec", "<u4"), ("captured", "<u4"), ("wire", "<u4"), ("macs", "V12"),
     ("kind", ">u2"), ("version", "u1"), ("tos", "u1"), ("total", ">u2"), ("id", ">u2"),
     ("piece", ">u2"), ("ttl", "u1"), ("protocol", "u1"), ("check", ">u2"), ("source", ">u4"),
     ("target", ">u4"), ("sport", ">u2"), ("dport", ">u2"), ("seq", ">u4"), ("ack", ">u4"),
     ("offset", "u1"), ("flags", "u1"), ("window", ">u2"), ("sum", ">u4"), ("data", "V26")]
)  # fmt: skip
"""A record of 80 bytes of Ethernet, IPv4 and TCP; all packets of the capture are alike in size."""


def write(path: pathlib.Path, packets: int, hosts: int = 5000, seed: int = 0) -> None:
    """A capture of ``packets`` TCP segments between ``hosts`` clients and twenty servers."""
    rng = np.random.default_rng(seed)
    with open(path, "wb") as file:
        file.write(bytes.fromhex("d4c3b2a1020004000000000000000000ffff000001000000"))
        for start in range(0, packets, 100_000):
            n = min(100_000, packets - start)
            rows = np.zeros(n, RECORD)
            rows["sec"] = 1_700_000_000 + (start + np.arange(n)) // 10_000
            rows["usec"] = (start + np.arange(n)) % 10_000 * 100
            rows["captured"] = rows["wire"] = RECORD.itemsize - 16
            rows["kind"], rows["version"], rows["total"] = 0x0800, 0x45, RECORD.itemsize - 30
            rows["ttl"], rows["protocol"], rows["offset"] = 64, 6, 0x50
            client = 0x0A000000 + rng.integers(1, hosts, n)
            server = 0xC0A80000 + rng.integers(1, 21, n)
            port, down = 32_768 + rng.integers(0, 8, n), rng.random(n) < 0.4
            rows["source"], rows["target"] = np.where(down, (server, client), (client, server))
            rows["sport"], rows["dport"] = np.where(
                down, (1883 + 0 * port, port), (port, 1883 + 0 * port)
            )
            rows["flags"] = rng.choice([2, 16, 24, 17], n)
            rows["flags"] |= np.where(down & (rows["flags"] == 2), 16, 0).astype(np.uint8)
            file.write(rows.tobytes())


def measure(path: pathlib.Path, config: str) -> dict[str, float]:
    """CPU seconds and peak memory of one pass."""
    from qoejax.data import capture

    for _ in capture.Reading(path, capture.CONFIGS[config], (0.0, 1e-9)):
        pass  # imports and first compilations are not the pass
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    reading = capture.Reading(path, capture.CONFIGS[config])
    for _ in reading:
        pass
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "packets": reading.report.packets,
        "windows": reading.report.windows,
        "cpu_seconds": seconds,
        "packets_per_cpu_second": reading.report.packets / seconds,
        "megabytes_before": before / 1024,
        "megabytes_peak": peak / 1024,
    }


def main(argv: list[str]) -> None:
    """Prints a line for each size, and one with the ratios."""
    del argv
    if _MEASURE.value:
        print(json.dumps(measure(pathlib.Path(_MEASURE.value), _CONFIG.value)))
        return
    from experiments.bench.common import emit

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for packets in (_PACKETS.value // 10, _PACKETS.value):
            path = pathlib.Path(folder) / f"{packets}.pcap"
            write(path, packets)
            command = [sys.executable, "-m", "experiments.bench.captures", f"--measure={path}"]
            command.append(f"--windows={_CONFIG.value}")
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append({"name": "captures", "windowing": _CONFIG.value} | json.loads(done.stdout))
            emit(rows[-1])
    small, large = rows
    emit(
        {
            "name": "captures_ratio",
            "packets_ratio": large["packets"] / small["packets"],
            "megabytes_ratio": large["megabytes_peak"] / small["megabytes_peak"],
            "cpu_ratio": large["cpu_seconds"] / small["cpu_seconds"],
        }
    )


if __name__ == "__main__":
    app.run(main)
