"""Latency of one record, raw columns to outputs, on one core: joint, twins, boosting.

Measured in a process of its own, which keeps to one core and one thread from its start.
"""

import concurrent.futures
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from qoejax.data import features, preprocess, table
from qoejax.nets import NETS
from qoejax.run import cache, estimators, plots, tables
from qoejax.run.studies import draw, fits
from qoejax.run.study import FAILS, HOLDS, Context, Outcome, once, scaled

LIMIT = 0.65
FULL_CALLS = 4000
BLOCKS = 10
"""Parts of the calls: a ratio of percentiles is taken in each, and their median is what counts."""

BOOSTED_ROWS = 2000
"""Training rows of the boosting that is timed: what it takes depends on its trees, not on them."""

FEATURES, CLASSES, SERVICES = 39, 10, 4
"""Of a single record: columns of CICIoT2023's second release, ten classes, four scores."""


def on_one_core() -> None:
    """Keeps this process to one core and one thread; to be called before JAX starts."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["XLA_FLAGS"] = flags
    os.environ["OMP_NUM_THREADS"] = "1"


def statistics() -> tuple[Any, np.ndarray]:
    """Rank maps fitted to made-up columns that span decades, and rows [N,1,D] of them."""
    rng = np.random.default_rng(0)
    x = np.exp(3 * rng.standard_normal((4096, 1, FEATURES))).astype(np.float32)
    columns = tuple(table.Column(f"x{i}", "", "numeric", False, "") for i in range(FEATURES))
    spec = table.Spec("bench", columns, tuple(map(str, range(CLASSES))), (), {}, "0", 1)
    return preprocess.fit(spec, table.make_table(x, rng.integers(0, CLASSES, len(x)))), x


def network(
    sizes: Mapping[str, Any], classes: int, services: int, shape: tuple[int, int]
) -> Callable[[Any], Any]:
    """``features [B,T,F] -> outputs`` of a hybrid of any parameters; ``shape`` is [T,F]."""
    net = NETS["qoenet"](classes=classes, services=services, **sizes)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *shape), "f4"))
    rng = np.random.default_rng(0)  # to compile ``init`` would take longer than what is timed
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.05, leaf.shape).astype(leaf.dtype), shapes)
    return lambda x: net.apply(params, x)


def ahead(f: Callable[[Any], Any], rows: np.ndarray) -> Callable[[np.ndarray], Any]:
    """``f`` compiled for one of the rows."""
    return jax.jit(f).lower(jax.ShapeDtypeStruct((1, *rows.shape[1:]), rows.dtype)).compile()


def programs(
    stats: Any, x: np.ndarray, sizes: Mapping[str, Any], classes: int, services: int
) -> dict[str, tuple[Callable[[Any], Any], np.ndarray]]:
    """What is timed, by name, with the rows that it is given one at a time.

    ``joint``, ``class_twin`` and ``mos_twin`` take raw columns; ``*_net`` what features makes of
    them.
    """
    see, seen = features.make(stats), preprocess.apply(stats, x)
    shape = (seen.shape[1], seen.shape[2])
    raw = {
        "joint": network(sizes, classes, services, shape),
        "class_twin": network(sizes, classes, 0, shape),
        "mos_twin": network(sizes, 1, services, shape),
    }
    out = {name: (ahead(lambda v, f=f: f(see(v)), x), x) for name, f in raw.items()}
    out |= {f"{name}_net": (ahead(f, seen), seen) for name, f in raw.items()}
    return out | {"features": (ahead(see, x), x)}


def in_turn(
    calls: Mapping[str, tuple[Callable[[Any], Any], np.ndarray]], count: int, warm: int = 100
) -> dict[str, np.ndarray]:
    """Microseconds [count] of every call with one row, the calls taking turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(count + warm):
        for name, (call, rows) in calls.items():
            one = rows[i % len(rows)][None]
            start = time.perf_counter()
            jax.block_until_ready(call(one))
            if i >= warm:
                times[name].append(time.perf_counter() - start)
    return {name: 1e6 * np.array(each) for name, each in times.items()}


def percentiles(us: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """p50, p95 and p99 by name."""
    levels = (50, 95, 99)
    return {
        n: {f"p{q}": float(v) for q, v in zip(levels, np.percentile(t, levels), strict=True)}
        for n, t in us.items()
    }


def ratios(us: Mapping[str, np.ndarray], level: float = 99, part: str = "") -> list[float]:
    """The joint percentile over the sum of the twins', in each of ``BLOCKS`` parts of the calls."""
    cut = {name: np.array_split(each, BLOCKS) for name, each in us.items()}
    names = ("joint", "class_twin", "mos_twin")
    at = np.array([[np.percentile(b, level) for b in cut[n + part]] for n in names])
    return (at[0] / (at[1] + at[2])).tolist()


def judge(found: Mapping[str, float]) -> tuple[str, str]:
    """Holds if the ratio is within the limit for every shape."""
    text = ", ".join(f"{ratio:.2f} for {shape}" for shape, ratio in found.items())
    passed = all(ratio <= LIMIT for ratio in found.values())
    return HOLDS if passed else FAILS, f"p99 of joint over the sum of the twins': {text}"


def study(context: Context) -> Outcome:
    """See ``claims.CLAIMS``."""
    calls = scaled(context.scale, FULL_CALLS, 300)
    own = {fits.SIMULATED: context.configs[fits.SIMULATED]}
    inner = context._replace(configs=own, pool=None)
    work = {"latency": calls, "scale": context.scale}

    def compute() -> dict[str, Any]:
        spawn = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, spawn, initializer=_begin) as pool:
            return pool.submit(_measure, inner, calls).result()

    kept = once(context.folder, work, compute)
    rows, found = [], {}
    for shape, one in kept.items():
        found[shape] = float(np.median(one["ratios"]))
        for name, each in one["us"].items():
            rows.append({"shape": shape, "what": name, **{f"{k}, us": v for k, v in each.items()}})
        rows.append({"shape": shape, "what": "joint / twins (p99, parts)",
                     "ratio": [found[shape], min(one["ratios"]), max(one["ratios"])]})  # fmt: skip
    figure = draw.bars(
        {f"{shape}: {name}": (each["p50"] / 1e3, 0.0) for shape, one in kept.items()
         for name, each in one["us"].items() if "_net" not in name},
        "milliseconds of one record (p50)", (1.0, "1 ms"),
    )  # fmt: skip
    plots.save(figure, context.folder / "latency.png")
    return Outcome(*judge(found), rows, ["latency.png"])


def _begin() -> None:
    on_one_core()
    cache.keep_compiled()


def _measure(context: Context, calls: int) -> dict[str, Any]:
    """Both shapes; runs in the process of one core."""
    stats, x = statistics()
    single = in_turn(programs(stats, x, {}, CLASSES, SERVICES), calls)
    task = fits.task(context, fits.SIMULATED)
    windows = tables.held_out(task.config).x[:512]
    sizes = {k: v for k, v in task.config.model.to_dict().items() if k != "net"}
    spec = task.data.spec
    several = programs(task.data.stats, windows, sizes, len(spec.label_names), len(spec.services))
    few = max(300, calls // 4)
    timed = in_turn(several, few)
    timed |= in_turn(_boosting(task, windows), few)  # apart: its threads would delay the others
    return {
        name: {"us": percentiles(us), "ratios": ratios(us)}
        for name, us in (("single records", single), ("windows of 8 records", timed))
    }


def _boosting(task: fits.Task, windows: np.ndarray) -> dict[str, Any]:
    """LightGBM for the class alone, from raw columns too."""
    few = jax.tree.map(lambda leaf: leaf[:BOOSTED_ROWS], task.data.train)
    classes = len(task.data.spec.label_names)
    make = estimators.CLASSIFIERS["lightgbm"]
    probability = estimators.classifier(make, few, classes, {"n_jobs": 1}, 0)

    def detect(raw: np.ndarray) -> np.ndarray:
        none = jax.tree.map(lambda leaf: leaf[:1], few)
        return probability(none._replace(x=preprocess.apply(task.data.stats, raw)))

    return {"lightgbm_class": (detect, windows)}
