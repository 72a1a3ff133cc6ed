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

from absl import app, flags

from experiments.bench import made_up

_PACKETS = flags.DEFINE_integer(
    "packets", 300_000, "Packets of the larger capture.", lower_bound=10
)
_CONFIG = flags.DEFINE_enum("windows", "packets", ["packets", "seconds"], "What a window is.")
_MEASURE = flags.DEFINE_string("measure", "", "Internal: measure this capture and stop.")


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
            made_up.write(path, packets)
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
