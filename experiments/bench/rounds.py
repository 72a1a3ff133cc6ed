"""A federated round of qoejax against other ways to run it. JSON lines.

    pip install 'qoejax[contenders]'
    python -m experiments.bench.rounds

The work is that of ``experiments.bench.workload``, and who does it is in
``experiments.bench.contenders``: all are alive at the same time and take turns, a round each.
``seconds`` is the median of a contender's timed rounds, ``minimum`` the fastest, ``first_s`` what
it took until its first round was done (compilation included). ``ratio`` and ``ratio_fastest`` are
against ours, of medians and of fastest rounds: above 1, we are faster. A contender that has used
``--most_seconds`` sits the other rotations out, and one that cannot run says why.

After the rotations, ours goes on alone for ``--recompile_rounds`` at the smallest number of
clients: ``compilations`` are those of that time.
"""

import os
import statistics
import time
from typing import Any

from absl import flags

from experiments import cli
from experiments.bench import common

_MODELS = flags.DEFINE_list("models", ["mlp", "cnn", "hybrid"], "Nets of the workload.")
_CONTENDERS = flags.DEFINE_list("contenders", [], "Who runs beside qoejax; all by default.")
_CLIENTS = flags.DEFINE_list("clients", ["10", "100"], "Clients of a round, out of --population.")
_POPULATION = flags.DEFINE_integer("population", 100, "Clients.", lower_bound=1)
_ROWS = flags.DEFINE_integer("rows", 640, "Rows of each client.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 20, "Local steps of 32 rows.", lower_bound=1)
_ROTATIONS = flags.DEFINE_integer("rotations", 7, "Timed rounds of each.", lower_bound=1)
_MOST = flags.DEFINE_float("most_seconds", 60.0, "Time of a contender's timed rounds.")
_RECOMPILE = flags.DEFINE_integer("recompile_rounds", 100, "Rounds alone, to count; 0 is off.")
_FLOWER = flags.DEFINE_string("flower_python", "", "Python that has flwr; this one by default.")

OURS = "qoejax"
COMPILATION = "/jax/core/compile/backend_compile_duration"


def _names() -> list[str]:
    """Ours first.

    Raises:
      RunError: An unknown contender.
    """
    from experiments.bench.contenders import CONTENDERS
    from qoejax.run.errors import RunError

    names = _CONTENDERS.value or list(CONTENDERS)
    if unknown := sorted(set(names) - set(CONTENDERS)):
        raise RunError(f"contender {unknown[0]!r}: expected one of {', '.join(CONTENDERS)}")
    return [OURS, *(n for n in names if n != OURS)]


def _start(name: str, workload: Any) -> tuple[Any, dict[str, Any]]:
    """A contender after its first round, or None; and what can be said of that."""
    from experiments.bench import contenders

    options = {"python": _FLOWER.value} if name == "flower" else {}
    contender, start = None, time.perf_counter()
    try:
        contender = contenders.prepare(name, workload, **options)
        contender.round()
    except Exception as e:  # whatever breaks a contender must not break the others
        if name == OURS:
            raise
        if contender is not None:
            contender.close()
        return None, {"error": f"{type(e).__name__}: {e}"}
    return contender, {"first_s": time.perf_counter() - start}


def _rotate(alive: dict[str, Any], failed: dict[str, dict[str, Any]]) -> dict[str, list[float]]:
    """Seconds of every round; who breaks moves to ``failed``."""
    seconds: dict[str, list[float]] = {name: [] for name in alive}
    for _ in range(_ROTATIONS.value):
        for name, contender in list(alive.items()):
            if sum(seconds[name]) > _MOST.value:
                continue
            start = time.perf_counter()
            try:
                contender.round()
            except Exception as e:
                if name == OURS:
                    raise
                failed[name] = {"error": f"{type(e).__name__}: {e}"}
                alive.pop(name).close()
                continue
            seconds[name].append(time.perf_counter() - start)
    return seconds


def _setting(model: str, clients: int, compiled: list[float], alone: int) -> dict[str, float]:
    """Prints a line a contender; their ratios of fastest rounds."""
    from experiments.bench import workload as workloads
    from experiments.bench.contenders import nets

    plain = workloads.make(
        model, clients, clients=_POPULATION.value, rows=_ROWS.value, steps=_STEPS.value
    )
    work = nets.with_params(plain)
    shared = {
        "bench": "rounds", "model": model, "clients": clients, "steps": work.steps,
        "params": sum(leaf.size for leaf in work.params.values()),
    }  # fmt: skip
    alive, rows = {}, {}
    for name in _names():
        compiled.clear()
        contender, rows[name] = _start(name, work)
        if contender is not None:
            alive[name] = contender
            rows[name] |= {"compile_s": sum(compiled)} if compiled else {}
    seconds = _rotate(alive, rows)
    ratios = {}
    for name, row in rows.items():
        if (times := seconds.get(name)) and "error" not in row:
            ours = seconds[OURS]
            ratios[name] = min(times) / min(ours)
            row |= {
                "seconds": statistics.median(times), "minimum": min(times), "rounds": len(times),
                "ratio": statistics.median(times) / statistics.median(ours),
                "ratio_fastest": ratios[name],
            }  # fmt: skip
        if name == OURS and alone:
            row |= _alone(alive[OURS], compiled, alone)
        common.emit(shared | {"contender": name} | row | {"load": os.getloadavg()[0]})
    for contender in alive.values():
        contender.close()
    return ratios


def _alone(ours: Any, compiled: list[float], rounds: int) -> dict[str, int]:
    """How often XLA compiled while ours went on."""
    compiled.clear()
    for _ in range(rounds):
        ours.round()
    return {"compilations": len(compiled), "compilation_rounds": rounds}


def main() -> dict[str, Any]:
    """Prints the lines; the last one sums up the ratios of fastest rounds."""
    import jax

    from configs import base
    from qoejax.run import build

    build.set_devices(base.get_config())
    compiled: list[float] = []

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if event == COMPILATION:
            compiled.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    clients = [int(c) for c in _CLIENTS.value]
    ratios: dict[str, dict[str, float]] = {}
    for model in _MODELS.value:
        for count in clients:
            alone = _RECOMPILE.value if count == min(clients) else 0
            ratios[f"{model}/{count}"] = _setting(model, count, compiled, alone)
    return {"bench": "rounds", "ratios_fastest": ratios}


if __name__ == "__main__":
    cli.run(main)
