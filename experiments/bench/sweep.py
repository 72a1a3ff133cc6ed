"""Several seeds at once against as many single runs. One JSON line a setting.

    python -m experiments.bench.sweep

``seconds`` are those of a round of all seeds: as members of one program (``fed.sweep``), and one
run after the other. Both are alive at a time and take turns; ``ratio`` is of the medians and
``ratio_of_fastest`` of the fastest rounds, single runs over the sweep. Compilation is apart.
"""

import functools
import statistics
import time
from typing import Any

from absl import flags

from experiments import cli
from experiments.bench import common

_SEEDS = flags.DEFINE_integer("seeds", 5, "Seeds.", lower_bound=1)
_CLIENTS = flags.DEFINE_integer("clients", 20, "Clients of a round.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 5, "Local steps.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Timed rounds of each.", lower_bound=1)
_AT_ONCE = flags.DEFINE_list("at_once", ["0", "1"], "Members under one vmap, 0 for all.")
_MODELS = flags.DEFINE_list("models", ["mlp", "qoenet"], "Networks.")
_AXIS = flags.DEFINE_list("axis", ["turn", "shard"], "Client axis modes: turn, chunk, shard.")

MLP = {"net": "mlp", "width": 64, "depth": 2}


def _contenders(name: str, axis: str) -> dict[str, Any]:
    """By name, a function that runs a round of all seeds and waits for it."""
    import jax
    import jax.numpy as jnp

    from configs import base
    from experiments.bench import random_rows
    from qoejax.fed.sweep import make_sweep
    from qoejax.run import build

    config = base.get_config()
    config.clients.count, config.client.steps = _CLIENTS.value, _STEPS.value
    config.client.batch, config.perf.client_axis = 32, axis
    if name == "mlp":
        config.model = MLP
    spec, examples, offset, count = random_rows.make(_CLIENTS.value, 256, 40)
    objective = build.objective(config, spec, [1.0] * len(spec.label_names))

    def engine(rates: Any = None) -> Any:
        return build.make_engine(config, objective.loss_fn, offset, count, rates=rates)

    single = engine()
    examples = single.place(examples)
    keys = jnp.stack([jax.random.key(seed) for seed in range(_SEEDS.value)])
    params = jax.vmap(objective.init, (0, None))(keys, examples.x[:1])
    many = {n: make_sweep(engine, {}, n) for n in map(int, _AT_ONCE.value)}
    states: dict[Any, Any] = {n: sweep.init(params) for n, sweep in many.items()} | {
        "singles": [
            single.init(jax.tree.map(lambda leaf, i=i: leaf[i], params)) for i in range(len(keys))
        ],
    }

    def sweep(n: int) -> None:
        states[n], _ = many[n].block(states[n], examples, keys, 1)
        jax.block_until_ready(states[n])

    def singles() -> None:
        for i, state in enumerate(states["singles"]):
            states["singles"][i], _ = single.block(state, examples, keys[i], 1)
            jax.block_until_ready(states["singles"][i])

    return {str(n): functools.partial(sweep, n) for n in many} | {"singles": singles}


def measure(name: str, axis: str) -> list[dict[str, Any]]:
    """One network in one mode: a row for each way to run the sweep."""
    contenders = _contenders(name, axis)
    seconds: dict[str, list[float]] = {who: [] for who in contenders}
    for _ in range(_ROUNDS.value + 1):
        for who, round_of_all in contenders.items():
            start = time.perf_counter()
            round_of_all()
            seconds[who].append(time.perf_counter() - start)
    timed = {who: times[1:] for who, times in seconds.items()}
    median = {who: statistics.median(times) for who, times in timed.items()}
    alone = timed.pop("singles")
    return [
        {
            "bench": "sweep", "model": name, "client_axis": axis,
            "at_once": int(who) or _SEEDS.value, "seeds": _SEEDS.value,
            "clients": _CLIENTS.value, "steps": _STEPS.value,
            "sweep_seconds": median[who], "singles_seconds": median["singles"],
            "ratio": median["singles"] / median[who],
            "ratio_of_fastest": min(alone) / min(times),
            "sweep_compile_s": seconds[who][0] - median[who],
            "singles_compile_s": seconds["singles"][0] - median["singles"],
        }
        for who, times in timed.items()
    ]  # fmt: skip


def main() -> dict[str, Any]:
    """Prints a line for each setting; the last line sums up."""
    from configs import base
    from qoejax.run import build

    build.set_devices(base.get_config())
    ratios = {}
    for name in _MODELS.value:
        for axis in _AXIS.value:
            for row in measure(name, axis):
                ratios[f"{name}/{axis}/{row['at_once']} at once"] = row["ratio"]
                common.emit(row)
    return {"bench": "sweep", "seeds": _SEEDS.value, "ratios": ratios}


if __name__ == "__main__":
    cli.run(main)
