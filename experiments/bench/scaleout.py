"""Seconds a round of the same work on one device, two devices, and two processes. JSON lines.

    python -m experiments.bench.scaleout

Each layout is a program of its own, started anew for every repeat and in turn with the others;
processes meet on this machine, and CPU collectives are gloo's. ``seconds`` is the median over all
timed rounds, ``minimum`` the fastest; ``ratio`` and ``ratio_minimum`` are those of one device over
this layout's: above 1 is faster. ``same_bits`` says whether the parameters are those of two devices
in one process.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from typing import Any

from absl import flags

from experiments import cli
from experiments.bench import common

LAYOUTS = {"1 device": (1, 1), "2 devices": (1, 2), "2 processes": (2, 2)}
"""Processes, and devices in all."""


_CLIENTS = flags.DEFINE_integer("clients", 16, "Clients of a round.", lower_bound=2)
_ROWS = flags.DEFINE_integer("rows", 256, "Rows of each client.", lower_bound=1)
_FEATURES = flags.DEFINE_integer("features", 40, "Features of a record.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Timed rounds of a repeat.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 3, "Times each layout runs.", lower_bound=1)
_LAYOUT = flags.DEFINE_enum("layout", None, list(LAYOUTS), "Set by the bench: runs one layout.")
_PORT = flags.DEFINE_integer("port", 0, "Set by the bench: where processes meet.")
_PROCESS_ID = flags.DEFINE_integer("process_id", 0, "Set by the bench.")


def _problem(config: Any) -> tuple[Any, Any, Any]:
    """Engine, rows on the host, and initial parameters of the default hybrid."""
    import jax

    from experiments.bench import random_rows
    from qoejax.run import build

    spec, staged, offset, count = random_rows.make(_CLIENTS.value, _ROWS.value, _FEATURES.value)
    objective = build.objective(config, spec, [1.0] * random_rows.CLASSES)
    engine = build.make_engine(config, objective.loss_fn, offset, count)
    return engine, staged, objective.init(jax.random.key(0), staged.x[:1])


def _run_layout(layout: str) -> dict[str, Any] | None:
    """One process of one layout: seconds of the rounds, and the digest of the parameters."""
    import jax

    from configs import base
    from qoejax import trees
    from qoejax.run import build, distributed

    processes, devices = LAYOUTS[layout]
    config = base.get_config()
    config.clients.count, config.perf.devices = _CLIENTS.value, devices
    asked = None
    if processes > 1:
        asked = distributed.Asked(f"127.0.0.1:{_PORT.value}", processes, _PROCESS_ID.value, 100)
    with distributed.session(asked) as group:
        distributed.check(config, group)
        build.set_devices(config, processes=group.count)
        engine, examples, params = _problem(config)
        state, examples, key = engine.init(params), engine.place(examples), jax.random.key(1)
        seconds = []
        for _ in range(_ROUNDS.value + 1):
            start = time.perf_counter()
            state, metrics = engine.block(state, examples, key, 1)
            jax.block_until_ready((state, metrics))
            seconds.append(time.perf_counter() - start)
        digest = trees.sha256(state.params, group.host)
        return group.first(dict, seconds=seconds[1:], first=seconds[0], params_sha256=digest)


def _launch(layout: str) -> dict[str, Any]:
    """All processes of a layout; what the first one says."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    own = ("clients", "rows", "features", "rounds")
    command = [
        sys.executable, "-m", "experiments.bench.scaleout", f"--layout={layout}", f"--port={port}",
        *(f"--{name}={flags.FLAGS[name].value}" for name in own),
    ]  # fmt: skip
    started = [
        subprocess.Popen([*command, f"--process_id={i}"], stdout=subprocess.PIPE, env=os.environ)
        for i in range(LAYOUTS[layout][0])
    ]
    said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        cli.fail(f"the layout {layout!r} failed; see above")
    return json.loads(said[0])


def main() -> dict[str, Any] | None:
    """Prints one line a layout; the last line sums up."""
    if _LAYOUT.value is not None:
        return _run_layout(str(_LAYOUT.value))
    runs: dict[str, list[dict[str, Any]]] = {layout: [] for layout in LAYOUTS}
    for _ in range(_REPEATS.value):
        for layout, done in runs.items():
            done.append(_launch(layout))
    seconds = {k: [s for run in done for s in run["seconds"]] for k, done in runs.items()}
    one, bits = seconds["1 device"], runs["2 devices"][0]["params_sha256"]
    ratios = {}
    for layout, times in seconds.items():
        ratios[layout] = statistics.median(one) / statistics.median(times)
        common.emit({
            "bench": "scaleout", "layout": layout, "processes": LAYOUTS[layout][0],
            "mesh_devices": LAYOUTS[layout][1], "clients": _CLIENTS.value, "rows": _ROWS.value,
            "seconds": statistics.median(times), "minimum": min(times),
            "first_round_s": statistics.median(run["first"] for run in runs[layout]),
            "ratio": ratios[layout], "ratio_minimum": min(one) / min(times),
            "same_bits": all(run["params_sha256"] == bits for run in runs[layout]),
        })  # fmt: skip
    return {"bench": "scaleout", "ratios": ratios}


if __name__ == "__main__":
    cli.run(main)
