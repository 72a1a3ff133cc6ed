"""What equal bits cost: a round in strict mode against the default, taking turns. One JSON line.

    python -m experiments.bench.strict

Both engines live in one process, with the same devices and threads, and play a round each in
rotation. ``ratio`` is of the medians, ``ratio_fastest`` of the fastest rounds; ``compile_s`` is
what the first round took beyond the median: strict mode compiles its clients for every device.
"""

import statistics
import time
from typing import Any

from absl import flags

from experiments import cli
from experiments.bench import common

_CLIENTS = flags.DEFINE_integer("clients", 20, "Clients of a round.", lower_bound=1)
_ROWS = flags.DEFINE_integer("rows", 256, "Rows of each client.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Timed rounds of each.", lower_bound=1)
_NET = flags.DEFINE_string("net", "qoenet", "Network, by its name in a config.")

FEATURES = 40


def _config(axis: str) -> Any:
    from configs import base

    c = base.get_config()
    c.clients.count = _CLIENTS.value
    c.perf.client_axis = axis
    if _NET.value != c.model.net:
        c.model = {"net": _NET.value}
    return c


def _players() -> dict[str, Any]:
    """For each mode, a function that plays a round and returns its seconds."""
    import jax

    from experiments.bench import random_rows
    from qoejax.run import build

    spec, examples, offset, count = random_rows.make(_CLIENTS.value, _ROWS.value, FEATURES)
    objective = build.objective(_config("strict"), spec, [1.0] * random_rows.CLASSES)
    params = objective.init(jax.random.key(0), examples.x[:1])

    def player(axis: str) -> Any:
        engine = build.make_engine(_config(axis), objective.loss_fn, offset, count)
        staged, held = engine.place(examples), [engine.init(params)]

        def play() -> float:
            start = time.perf_counter()
            state, metrics = engine.block(held.pop(), staged, jax.random.key(1), 1)
            jax.block_until_ready((state, metrics))
            held.append(state)
            return time.perf_counter() - start

        return play

    return {axis: player(axis) for axis in ("shard", "strict")}


def main() -> dict[str, Any]:
    """Plays in rotation and prints the line."""
    from qoejax.run import build, runtime

    config = _config("strict")
    build.set_devices(config)
    players = _players()
    first = {axis: play() for axis, play in players.items()}
    seconds: dict[str, list[float]] = {axis: [] for axis in players}
    for _ in range(_ROUNDS.value):
        for axis, play in players.items():
            seconds[axis].append(play())
    median = {axis: statistics.median(each) for axis, each in seconds.items()}
    row = {
        "bench": "strict",
        "net": _NET.value,
        "clients": _CLIENTS.value,
        "rows_per_client": _ROWS.value,
        "chunk": config.perf.chunk,
        "threads": runtime.pool_size(),
        "seconds": median,
        "minimum": {axis: min(each) for axis, each in seconds.items()},
        "compile_s": {axis: first[axis] - median[axis] for axis in players},
        "ratio": median["strict"] / median["shard"],
        "ratio_fastest": min(seconds["strict"]) / min(seconds["shard"]),
    }
    common.emit(row)
    return {"bench": "strict", "ratio": row["ratio"], "ratio_fastest": row["ratio_fastest"]}


if __name__ == "__main__":
    cli.run(main)
