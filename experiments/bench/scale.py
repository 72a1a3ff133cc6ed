"""What grows with the number of clients: time and memory of a round, staged rows, start-up.

    python -m experiments.bench.scale

One JSON line each:

    round    the default hybrid on records (T = 1): seconds a round and the temporary memory of its
             program, per device, as XLA states it; ratios are against the smallest cohort
    staging  bytes in device memory over bytes of the raw rows, on all devices together, at each
             Dirichlet alpha and number of clients; memory that devices share counts once.
             ``home_ratio`` is the same with ``perf.placement=home``, which pads the emptier devices
    start    seconds from rows on the host to an engine that can be dispatched (compilation apart):
             partition, staging, initial state; an algorithm without and one with clients' states

A round here has ``--steps`` local steps where a full one has tens: its time is linear in the steps,
and what a round costs beside them weighs all the more.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from absl import flags

from experiments import cli
from experiments.bench import common

_COHORTS = flags.DEFINE_list("cohorts", ["100", "1000"], "Clients of a round, ascending.")
_STEPS = flags.DEFINE_integer("steps", 1, "Local steps of a client.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Timed rounds of each size, in turns.", lower_bound=1)
_ROWS = flags.DEFINE_integer("rows", 20_000, "Rows to stage.", lower_bound=1)
_ALPHAS = flags.DEFINE_list("alphas", ["0.1", "0.3", "1", "10"], "Dirichlet parameters.")
_CLIENTS = flags.DEFINE_list("clients", ["10", "100", "1000"], "Clients that share the rows.")
_REGISTERED = flags.DEFINE_integer("registered", 10_000, "Clients at start.", lower_bound=1)

FEATURES, CLASSES, BATCH = 46, 34, 32


def _config(cohort: int, clients: int, algorithm: str = "fedavg") -> Any:
    from configs import base

    c = base.get_config()
    c.clients.count, c.fed.cohort, c.fed.algorithm = clients, cohort, algorithm
    c.client.update(optimizer="sgd", lr=0.05, batch=BATCH, steps=_STEPS.value)
    return c


def _objective(config: Any) -> Any:
    from qoejax.data.table import Column, Spec
    from qoejax.run import build

    names = tuple(f"class{i}" for i in range(CLASSES))
    columns = tuple(Column(f"x{i}", "", "numeric", False, "") for i in range(FEATURES))
    spec = Spec("bench", columns, names, (), {}, names[0], 1)
    return build.objective(config, spec, [1.0] * CLASSES)


def _rows(n: int) -> Any:
    import numpy as np

    from qoejax.types import Examples

    rng = np.random.default_rng(0)
    rarity = 1 / np.arange(1, CLASSES + 1)  # as attacks are: a few classes have most rows
    return Examples(
        x=rng.standard_normal((n, 1, FEATURES), np.float32),
        label=rng.choice(CLASSES, n, p=rarity / rarity.sum()).astype(np.int32),
        mos=np.zeros((n, 1), np.float32),
        mos_mask=np.zeros((n, 1), bool),
        weight=np.ones(n, np.float32),
    )


def _engine(config: Any, offset: Any, count: Any) -> tuple[Any, Callable[[], Any]]:
    """The engine, and a function that makes its state before round 0."""
    import jax

    from qoejax.run import build

    objective = _objective(config)
    engine = build.make_engine(config, objective.loss_fn, offset, count)

    def init() -> Any:
        params = objective.init(jax.random.key(0), _rows(1).x)
        return jax.block_until_ready(engine.init(params))

    return engine, init


def _program(cohort: int) -> tuple[Callable[[], float], dict[str, Any]]:
    """A function that times one round of ``cohort`` clients, and its compiled memory."""
    import jax
    import numpy as np

    offset = np.arange(cohort, dtype=np.int32) * BATCH
    engine, init = _engine(_config(cohort, cohort), offset, np.full(cohort, BATCH, np.int32))
    state = init()
    examples = engine.place(_rows(cohort * BATCH))
    start = time.perf_counter()
    compiled = engine.lower(state, examples, jax.random.key(1), 1).compile()
    memory = compiled.memory_analysis()
    facts = {
        "compile_s": time.perf_counter() - start,
        "temporary_mb": memory.temp_size_in_bytes / 1e6,
    }

    def play() -> float:
        nonlocal state
        start = time.perf_counter()
        state, metrics = engine.block(state, examples, jax.random.key(1), 1)
        jax.block_until_ready((state, metrics))
        return time.perf_counter() - start

    play()
    return play, facts


def rounds() -> Iterator[dict[str, Any]]:
    """Rounds of all sizes, taking turns."""
    sizes = [int(size) for size in _COHORTS.value]
    programs = [_program(size) for size in sizes]
    seconds = [[play() for play, _ in programs] for _ in range(_ROUNDS.value)]
    medians = [statistics.median(column) for column in zip(*seconds, strict=True)]
    least = programs[0][1]["temporary_mb"]
    for i, size in enumerate(sizes):
        yield {
            "bench": "scale", "part": "round", "clients": size, "steps": _STEPS.value,
            "seconds": medians[i], "time_ratio": medians[i] / medians[0],
            "memory_ratio": programs[i][1]["temporary_mb"] / least, **programs[i][1],
        }  # fmt: skip


def resident(tree: Any) -> int:
    """Bytes of the buffers behind a tree of arrays; a buffer that devices share counts once."""
    import jax

    shards = [s.data for leaf in jax.tree.leaves(tree) for s in leaf.addressable_shards]
    return sum({s.unsafe_buffer_pointer(): s.nbytes for s in shards}.values())


def staging(clients: int, alpha: float) -> dict[str, Any]:
    """Bytes of staged rows, offsets and counts over those of the rows."""
    import jax

    from qoejax.data import cohort, partition
    from qoejax.fed.homes import settle

    rows = _rows(_ROWS.value)
    parts = partition.dirichlet(rows.label, clients, seed=0, alpha=alpha)
    staged, offset, count = cohort.stage(rows, parts)
    engine, _ = _engine(_config(clients, clients), offset, count)
    placed = jax.block_until_ready(engine.place(staged))
    raw = sum(leaf.nbytes for leaf in jax.tree.leaves(rows))
    return {
        "bench": "scale", "part": "staging", "clients": clients, "alpha": alpha,
        "largest_over_mean": float(count.max() / count.mean()), "raw_mb": raw / 1e6,
        "ratio": (resident(placed) + offset.nbytes + count.nbytes) / raw,
        "home_ratio": settle(offset, count, jax.device_count()).rows.size / len(rows.label),
    }  # fmt: skip


def start(algorithm: str) -> dict[str, Any]:
    """Seconds until ``--registered`` clients are there."""
    import jax

    from qoejax.data import cohort, partition

    clients = _REGISTERED.value
    rows = _rows(20 * clients)
    used, marks = time.process_time(), [time.perf_counter()]
    parts = partition.dirichlet(rows.label, clients, seed=0, alpha=0.5)
    marks.append(time.perf_counter())
    staged, offset, count = cohort.stage(rows, parts)
    marks.append(time.perf_counter())
    engine, init = _engine(_config(min(100, clients), clients, algorithm), offset, count)
    state = init()
    marks.append(time.perf_counter())
    jax.block_until_ready(engine.place(staged))
    marks.append(time.perf_counter())
    names = ("partition", "order", "engine", "place")
    parts_s = {f"{n}_s": b - a for n, a, b in zip(names, marks, marks[1:], strict=False)}
    return {
        "bench": "scale", "part": "start", "clients": clients, "algorithm": algorithm,
        "rows": 20 * clients, "state_mb": resident(state.client_state) / 1e6, **parts_s,
        "seconds": marks[-1] - marks[0], "cpu_s": time.process_time() - used,
    }  # fmt: skip


def _emitted(row: dict[str, Any]) -> dict[str, Any]:
    common.emit(row)
    return row


def main() -> dict[str, Any]:
    """Prints one line a figure; the last line sums up."""
    from qoejax.run import build

    build.set_devices(_config(1, 1))
    cells = [(int(n), float(a)) for n in _CLIENTS.value for a in _ALPHAS.value]
    begun = [_emitted(start(algorithm)) for algorithm in ("fedavg", "fedper")]
    staged = [_emitted(staging(*cell)) for cell in cells]
    played = [_emitted(row) for row in rounds()]
    return {
        "bench": "scale",
        "start_s": {row["algorithm"]: row["seconds"] for row in begun},
        "staged_ratio": max(row["ratio"] for row in staged),
        "time_ratio": played[-1]["time_ratio"],
        "memory_ratio": played[-1]["memory_ratio"],
        "temporary_mb": played[-1]["temporary_mb"],
    }


if __name__ == "__main__":
    cli.run(main)
