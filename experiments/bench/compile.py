"""Seconds to compile a block of rounds, cold and from the persistent cache, in fresh processes.

    python -m experiments.bench.compile

Each model is compiled in a new process with an empty cache folder, then in another with the folder
that the first has filled. ``compile_s`` is XLA's part (or that of reading its result back),
``trace_s`` what JAX does in front of it either way, ``first_s`` all from the first call to the end
of its rounds. ``ratio`` is cold over warm ``compile_s``. Both give the same parameters, to the bit.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import flags

from experiments import cli
from experiments.bench import common

_MODELS = flags.DEFINE_list("models", ["qoenet", "mlp"], "Networks.")
_CLIENTS = flags.DEFINE_integer("clients", 100, "Clients of a round.", lower_bound=1)
_CHILD = flags.DEFINE_string("child", "", "Compile this model here (used by the command itself).")

MLP = {"net": "mlp", "width": 128, "depth": 2}
TRACE = "/jax/core/compile/jaxpr_trace_duration"
LOWER = "/jax/core/compile/jaxpr_to_mlir_module_duration"
COMPILE = "/jax/core/compile/backend_compile_duration"


def _seconds_by_event() -> dict[str, float]:
    """Totals of JAX's own clocks, from now on; XLA's includes reading its cache."""
    import jax

    total: dict[str, float] = {}

    def listen(event: str, duration_secs: float, **kwargs: Any) -> None:
        total[event] = total.get(event, 0.0) + duration_secs

    jax.monitoring.register_event_duration_secs_listener(listen)
    return total


def compile_here(name: str, clients: int) -> dict[str, Any]:
    """Compiles and runs one block of ``configs/base.py`` with the network ``name``."""
    import jax

    from configs import base
    from experiments.bench import random_rows
    from qoejax import trees
    from qoejax.run import build, cache

    config = base.get_config()
    config.clients.count = clients
    config.client.steps = 1
    if name == "mlp":
        config.model = MLP
    cache.keep_compiled()
    build.set_devices(config)
    spec, examples, offset, count = random_rows.make(clients, 64, 40)
    objective = build.objective(config, spec, [1.0] * len(spec.label_names))
    engine = build.make_engine(config, objective.loss_fn, offset, count)
    params = objective.init(jax.random.key(0), examples.x[:1])
    state, examples = engine.init(params), engine.place(examples)
    key = jax.block_until_ready(jax.random.key(1))
    jax.block_until_ready((state, examples))
    total = _seconds_by_event()
    start = time.perf_counter()
    state, _ = jax.block_until_ready(engine.block(state, examples, key, 2))
    return {
        "first_s": time.perf_counter() - start,
        "trace_s": total.get(TRACE, 0.0) + total.get(LOWER, 0.0),
        "compile_s": total[COMPILE],
        "params": trees.count(params),
        "params_sha256": trees.sha256(jax.device_get(state.params)),
    }


def _fresh(name: str, folder: str) -> dict[str, Any]:
    command = [
        sys.executable, "-m", "experiments.bench.compile", f"--child={name}",
        f"--clients={_CLIENTS.value}",
    ]  # fmt: skip
    environment = os.environ | {"QOEJAX_CACHE": folder}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(name: str) -> dict[str, Any]:
    """One network, cold and warm."""
    with tempfile.TemporaryDirectory() as folder:
        cold, warm = _fresh(name, folder), _fresh(name, folder)
    if cold["params_sha256"] != warm["params_sha256"]:
        raise RuntimeError(f"{name}: a cached executable gave other parameters than a new one")
    return {
        "bench": "compile", "model": name, "clients": _CLIENTS.value, "params": cold["params"],
        **{f"{when}_{k}": run[k] for when, run in (("cold", cold), ("warm", warm))
           for k in ("compile_s", "trace_s", "first_s")},
        "ratio": cold["compile_s"] / warm["compile_s"],
    }  # fmt: skip


def main() -> dict[str, Any]:
    """Prints a line for each network; the last line sums up."""
    if _CHILD.value:
        return compile_here(_CHILD.value, _CLIENTS.value)
    ratios = {}
    for name in _MODELS.value:
        row = measure(name)
        ratios[name] = row["ratio"]
        common.emit(row)
    return {"bench": "compile", "ratios": ratios}


if __name__ == "__main__":
    cli.run(main)
