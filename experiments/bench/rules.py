"""Time and memory of every aggregation rule. One JSON line each.

    python -m experiments.bench.rules

``seconds`` is the median of calls that take turns with all other rules, ``minimum`` the fastest,
and ``temp_mb`` what XLA sets aside beside arguments and result; ``temp_mb_many`` is the same for
``--memory`` clients, where nothing runs. ``of_round`` is against a round of the default hybrid on
one device, 20 local steps of 32 rows a client, with ``weighted_mean``; the deltas are of its shape.
Median and trimmed mean also stand against their form by sorting: ``by_sort`` times faster.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

from absl import flags

from experiments import cli
from experiments.bench import common

_CLIENTS = flags.DEFINE_integer("clients", 100, "Clients of a round.", lower_bound=3)
_MEMORY = flags.DEFINE_integer("memory", 1000, "Clients for memory alone; 0 is off.")
_BYZANTINE = flags.DEFINE_float("byzantine", 0.2, "Share of clients that rules expect.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "Timed calls of each.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 20, "Local steps of the round; 0 leaves it out.")
_RULES = flags.DEFINE_list("rules", [], "Rules; all by default.")


def _objective(config: Any) -> Any:
    from qoejax.data.table import Column, Spec
    from qoejax.run import build

    names = tuple(f"class{i}" for i in range(34))
    columns = tuple(Column(f"x{i}", "", "numeric", False, "") for i in range(46))
    return build.objective(config, Spec("bench", columns, names, (), {}, names[0], 1), [1.0] * 34)


def _sorted(name: str, byzantine: int) -> Callable[..., Any] | None:
    """The same rule by sorting, where that is how it is usually done."""
    import jax
    import jax.numpy as jnp

    if name == "coordinate_median":
        return lambda deltas, weight, key: jax.tree.map(lambda d: jnp.median(d, axis=0), deltas)
    if name == "trimmed_mean":

        def trimmed(leaf: Any) -> Any:
            inner = jnp.sort(leaf, axis=0)[byzantine : leaf.shape[0] - byzantine]
            return jnp.tensordot(jnp.full(len(inner), 1 / len(inner)), inner, 1)

        return lambda deltas, weight, key: jax.tree.map(trimmed, deltas)
    return None


def _rule(name: str, clients: int, params: Any) -> Callable[..., Any]:
    from qoejax.fed import aggregate

    options: dict[str, Any] = {}
    if name in aggregate.ROBUST:
        options["byzantine"] = int(_BYZANTINE.value * clients)
    if name == "fltrust":  # the server's own training is a client's, and not counted here
        options["root_delta"] = lambda params, number, key: params
    rule = aggregate.AGGREGATORS[name](**options)
    state = rule.init(params)

    def call(deltas: Any, weight: Any, key: Any) -> Any:
        return rule.update(deltas, state, weight=weight, key=key, params=params)[0]

    return call


def _compiled(function: Callable[..., Any], params: Any, clients: int) -> tuple[Any, float]:
    """The executable for so many clients, and its temporary megabytes."""
    import jax

    shapes = jax.tree.map(lambda p: jax.ShapeDtypeStruct((clients, *p.shape), p.dtype), params)
    weight = jax.ShapeDtypeStruct((clients,), "float32")
    done = jax.jit(function).lower(shapes, weight, jax.random.key(0)).compile()
    analysis = done.memory_analysis()
    return done, float("nan") if analysis is None else analysis.temp_size_in_bytes / 1e6


def _round(config: Any, objective: Any, params: Any, clients: int) -> Callable[[], Any]:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from qoejax.data.cohort import stage
    from qoejax.run import build
    from qoejax.types import Examples

    rng, n = np.random.default_rng(0), clients * 640
    rows = Examples(
        x=rng.standard_normal((n, 1, 46), np.float32),
        label=rng.integers(0, 34, n, dtype=np.int32),
        mos=np.zeros((n, 1), np.float32),
        mos_mask=np.zeros((n, 1), bool),
        weight=np.ones(n, np.float32),
    )
    staged, offset, count = stage(rows, np.split(np.arange(n), clients))
    engine = build.make_engine(config, objective.loss_fn, offset, count)
    examples = engine.place(jax.tree.map(jnp.asarray, staged))
    state = engine.init(params)

    def call() -> Any:
        nonlocal state
        state, sums = engine.block(state, examples, jax.random.key(1), 1)
        return sums

    return call


def _contenders(
    names: list[str], params: Any, clients: int
) -> tuple[dict[str, Callable[[], Any]], dict[str, float]]:
    """Calls of every rule, and of those by sorting, on random deltas; temporary megabytes."""
    import jax

    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    deltas = jax.tree.unflatten(
        structure,
        [jax.random.normal(k, (clients, *p.shape)) for k, p in zip(keys, leaves, strict=True)],
    )
    weight = jax.numpy.ones(clients)
    functions = {name: _rule(name, clients, params) for name in names}
    slow = {name: _sorted(name, int(_BYZANTINE.value * clients)) for name in names}
    functions |= {f"{name} by sort": f for name, f in slow.items() if f is not None}
    calls, memory = {}, {}
    for name, function in functions.items():
        done, memory[name] = _compiled(function, params, clients)
        calls[name] = lambda done=done: done(deltas, weight, jax.random.key(3))
    return calls, memory


def _take_turns(calls: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Seconds of every call but the first."""
    import jax

    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(_REPEATS.value + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            seconds[name].append(time.perf_counter() - start)
    return {name: all_[1:] for name, all_ in seconds.items()}


def main() -> dict[str, Any]:
    """Prints one line a rule; the last line sums up."""
    import jax

    from configs import base
    from qoejax import trees
    from qoejax.fed import aggregate

    config = base.get_config()
    config.client.update(optimizer="sgd", lr=0.05, batch=32, steps=max(1, _STEPS.value))
    config.perf.client_axis = "turn"
    objective = _objective(config)
    params = objective.init(jax.random.key(0), jax.numpy.zeros((1, 1, 46)))
    clients, many, size = _CLIENTS.value, _MEMORY.value, trees.count(params)
    names = _RULES.value or list(aggregate.AGGREGATORS)
    calls, memory = _contenders(names, params, clients)
    if _STEPS.value:
        calls["round"] = _round(config, objective, params, clients)
    seconds = _take_turns(calls)
    median = {name: statistics.median(s) for name, s in seconds.items()}
    summary: dict[str, dict[str, Any]] = {}
    for name in calls:
        row: dict[str, Any] = {"rule": name, "seconds": median[name]}
        if name in memory:
            row["temp_mb"] = memory[name]
        if name in names:
            if _STEPS.value:
                row["of_round"] = median[name] / median["round"]
            if f"{name} by sort" in median:
                row["by_sort"] = median[f"{name} by sort"] / median[name]
            if many:
                row["temp_mb_many"] = _compiled(_rule(name, many, params), params, many)[1]
        summary[name] = row
        shared = {"bench": "rules", "clients": clients, "params": size, "memory_clients": many}
        common.emit(shared | row | {"minimum": min(seconds[name])})
    return {"bench": "rules", "rules": summary}


if __name__ == "__main__":
    cli.run(main)
