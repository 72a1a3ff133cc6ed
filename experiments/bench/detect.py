"""What experiments.detect takes: packets a second and memory, and how late its verdicts are.

    python -m experiments.bench.detect --packets=1000000 --rates=1000,10000

A new hybrid of the default size judges made-up packets, so it is the work that counts, not the
verdicts. First, finished captures, the larger ten times the smaller, each in a process of its own;
then packets that another process writes to a pipe at a given rate, stamped with the time.
"""

import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
from absl import flags

from experiments import cli
from experiments.bench import made_up

_PACKETS = flags.DEFINE_integer("packets", 1_000_000, "Of the larger capture.", lower_bound=10)
_CONFIG = flags.DEFINE_enum("windows", "packets", ["packets", "seconds"], "What a window is.")
_RATES = flags.DEFINE_list("rates", ["1000", "10000"], "Packets a second into the pipe.")
_FOR_S = flags.DEFINE_float("for_s", 20.0, "Seconds of each rate.")
_READ = flags.DEFINE_string("read", "", "Internal: watch this capture.")
_LIVE = flags.DEFINE_integer("live", 0, "Internal: watch so many packets a second.")
_FEED = flags.DEFINE_integer("feed", 0, "Internal: write so many packets a second.")


COMMAND = (sys.executable, "-m", "experiments.bench.detect")


def judge(config: str) -> Any:
    """A hybrid whose features and weights are made up, compiled for all its sizes."""
    import jax
    import jax.numpy as jnp

    from qoejax.data import capture, features, preprocess
    from qoejax.data.table import make_table
    from qoejax.nets import NETS
    from qoejax.qoe.decide import Costs
    from qoejax.run import detect

    spec = capture.spec(config, ("benign", *"abcdef"))
    rng = np.random.default_rng(0)
    x = np.exp(3 * rng.standard_normal((4096, spec.window, len(spec.columns)))).astype(np.float32)
    stats = preprocess.fit(spec, make_table(x, rng.integers(0, 7, len(x))))
    net, see = NETS["qoenet"](classes=7, services=len(spec.services)), features.make(stats)
    params = net.init(jax.random.key(0), jnp.asarray(preprocess.apply(stats, x[:1])))
    run = jax.jit(lambda rows: net.apply(params, see(rows)))
    made = detect.Judge(spec, np.full(len(spec.services), 4.0), run, Costs())
    made.warm()
    return made


def watch() -> dict[str, Any]:
    """One watch over a file or a pipe: its summary, CPU seconds and peak memory."""
    from qoejax.run import detect, files, taps

    made = judge(_CONFIG.value)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if _LIVE.value:
        command = [*COMMAND, f"--feed={_LIVE.value}", f"--for_s={_FOR_S.value}"]
        here, there = os.pipe()
        subprocess.Popen(command, stdout=there)
        os.close(there)
        tap = taps.descriptor(here, "a pipe", lambda: False)
        idle = detect.idle_s(made.windowing)
    else:
        tap, idle = taps.file(pathlib.Path(_READ.value), False, lambda: False), 0.0
    cpu = time.process_time()
    with open(os.devnull, "w") as sink:
        out = detect.detect(made, tap, lambda rows: print(*map(files.dumps, rows), file=sink), idle)
    return out | {
        "cpu_seconds": time.process_time() - cpu,
        "megabytes_before": before / 1024,
        "megabytes_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def feed(rate: int, seconds: float) -> None:
    """Writes packets to standard output, a hundred times a second."""
    out = sys.stdout.buffer
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "a.pcap"
        made_up.write(path, max(100, rate), hosts=200)
        data = path.read_bytes()
    out.write(data[:24])
    some = np.frombuffer(data[24:], made_up.RECORD).copy()
    step, start = max(1, rate // 100), time.time()
    for i in range(0, int(rate * seconds), step):
        now = time.time()
        rows = some[(i + np.arange(step)) % len(some)]
        rows["sec"], rows["usec"] = int(now), int(now % 1 * 1e6)
        out.write(rows.tobytes())
        out.flush()
        time.sleep(max(0.0, start + (i + step) / rate - time.time()))


def main() -> dict[str, Any] | None:
    """Prints a line for each size and each rate, and one of ratios."""
    if _FEED.value:
        feed(_FEED.value, _FOR_S.value)
        return None
    if _READ.value or _LIVE.value:
        return watch()
    from experiments.bench import common

    found, late = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for packets in (_PACKETS.value // 10, _PACKETS.value):
            path = pathlib.Path(folder) / f"{packets}.pcap"
            made_up.write(path, packets)
            found.append(_measured(f"--read={path}"))
            common.emit({"bench": "detect", "windowing": _CONFIG.value, **found[-1]})
    for rate in _RATES.value:
        row = _measured(f"--live={rate}", f"--for_s={_FOR_S.value}")
        row["cpu_share"] = row["cpu_seconds"] / row["seconds"]
        common.emit({"bench": "detect_live", "windowing": _CONFIG.value, "rate": int(rate), **row})
        late[rate] = row["latency_s"]
    small, large = found
    return {
        "bench": "detect",
        "packets_per_s": large["packets_per_s"],
        "megabytes_ratio": large["megabytes_peak"] / small["megabytes_peak"],
        "latency_s": late,
    }


def _measured(*more: str) -> dict[str, Any]:
    command = [*COMMAND, f"--windows={_CONFIG.value}", *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    row = json.loads(done.stdout.splitlines()[-1])
    keys = ("packets", "windows", "seconds", "cpu_seconds", "latency_s", "delay_s")
    rates = {
        "packets_per_s": row["packets"] / row["seconds"],
        "packets_per_cpu_second": row["packets"] / row["cpu_seconds"],
    }
    memory = {k: row[k] for k in ("megabytes_before", "megabytes_peak")}
    return {k: row[k] for k in keys} | rates | memory | {"load": os.getloadavg()[0]}


if __name__ == "__main__":
    cli.run(main)
