"""Latency of one record and throughput of many, raw columns to outputs in one program. JSON lines.

    python -m experiments.bench.latency
    python -m experiments.bench.latency --mode=throughput

``latency`` keeps to one core and one thread. The joint hybrid and its two single-task twins (one
has the class head, one the MOS heads; all else is equal) take turns, each compiled ahead for one
record; so do their parts, features and network, to say what the ratio is where the twins share the
features. ``ratio`` is the joint p99 over the sum of the twins'.

``throughput`` uses every core: a device a core, micro-batches that stay in its cache, calls in turn
with the square products of experiments.bench.roofline. ``fraction`` is the rate of operations of
matrix products, counted by hand, over that of the square products.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import flags

from experiments import cli
from experiments.bench import common, products

_MODE = flags.DEFINE_enum("mode", "latency", ["latency", "throughput"], "What is measured.")
_CALLS = flags.DEFINE_integer("calls", 5000, "Of one record, each.", lower_bound=10)
_ROWS = flags.DEFINE_integer("rows", 65_536, "Records of a call, on each device.", lower_bound=1)
_BATCHES = flags.DEFINE_list("batches", ["64", "256"], "Records of a micro-batch.")
_REPEATS = flags.DEFINE_integer("repeats", 9, "Calls of many records, and products, timed.")
_NETS = flags.DEFINE_list("nets", ["hybrid", "narrow", "small"], "Names of SIZES, for throughput.")
_SIZE = flags.DEFINE_integer("size", 1024, "Of the square products.", lower_bound=1)

FEATURES, CLASSES, SERVICES = 39, 10, 4

DEFAULTS = {"width": 64, "depth": 2, "heads": 4, "mlp": 128, "embed_size": 8, "hidden": 128}

SIZES: dict[str, dict[str, int]] = {
    "hybrid": DEFAULTS,
    "narrow": DEFAULTS | {"width": 32, "depth": 1, "heads": 2, "mlp": 64},
    "small": {"width": 16, "depth": 1, "heads": 2, "mlp": 32, "embed_size": 4, "hidden": 32},
}
"""Arguments of ``qoenet``; the first are its defaults."""


def statistics() -> tuple[Any, np.ndarray]:
    """Rank maps fitted to made-up columns that span decades, and rows [N,1,D] of them."""
    from qoejax.data import preprocess
    from qoejax.data.table import Column, Spec, make_table

    rng = np.random.default_rng(0)
    x = np.exp(3 * rng.standard_normal((4096, 1, FEATURES))).astype(np.float32)
    columns = tuple(Column(f"x{i}", "", "numeric", False, "") for i in range(FEATURES))
    spec = Spec("bench", columns, tuple(map(str, range(CLASSES))), (), {}, "0", 1)
    return preprocess.fit(spec, make_table(x, rng.integers(0, CLASSES, len(x)))), x


def networks(sizes: dict[str, int], classes: int, services: int) -> Callable[[Any], Any]:
    """``features -> outputs`` of a new hybrid at T = 1."""
    import jax
    import jax.numpy as jnp

    from qoejax.nets import NETS

    net = NETS["qoenet"](classes=classes, services=services, **sizes)
    params = net.init(jax.random.key(0), jnp.zeros((1, 1, FEATURES)))
    return lambda x: net.apply(params, x)


def latency() -> dict[str, Any]:
    """Microseconds of one record on one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    import jax

    from qoejax.data import features, preprocess

    stats, x = statistics()
    see, sizes = features.make(stats), SIZES["hybrid"]
    joint = networks(sizes, CLASSES, SERVICES)
    classes, mos = networks(sizes, CLASSES, 0), networks(sizes, 1, SERVICES)
    seen = preprocess.apply(stats, x)
    raw = {"joint": joint, "class_twin": classes, "mos_twin": mos}
    calls = {name: _ahead(lambda v, f=f: f(see(v)), x) for name, f in raw.items()}
    calls |= {f"{name}_net": _ahead(f, seen) for name, f in raw.items()}
    calls["features"] = _ahead(see, x)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(_CALLS.value + 100):
        row = i % len(x)
        for name, call in calls.items():
            one = (seen if name.endswith("_net") else x)[row : row + 1]
            start = time.perf_counter()
            jax.block_until_ready(call(one))
            if i >= 100:
                times[name].append(time.perf_counter() - start)
    us = {n: dict(zip(("p50", "p95", "p99"), 1e6 * np.percentile(t, (50, 95, 99)), strict=True))
          for n, t in times.items()}  # fmt: skip
    row = {
        "bench": "latency", "calls": _CALLS.value, "microseconds": us,
        "ratio": _ratio(us, "", "p99"), "ratio_p50": _ratio(us, "", "p50"),
        "ratio_shared_features": (us["features"]["p50"] + us["joint_net"]["p50"])
        / (us["features"]["p50"] + us["class_twin_net"]["p50"] + us["mos_twin_net"]["p50"]),
        "ratio_net": _ratio(us, "_net", "p99"), "load": os.getloadavg()[0],
    }  # fmt: skip
    common.emit(row)
    return {k: row[k] for k in ("bench", "ratio", "ratio_p50")} | {"joint_us": us["joint"]}


def _ratio(us: dict[str, dict[str, float]], part: str, level: str) -> float:
    twins = us[f"class_twin{part}"][level] + us[f"mos_twin{part}"][level]
    return us[f"joint{part}"][level] / twins


def _ahead(f: Callable[[Any], Any], rows: np.ndarray) -> Callable[[np.ndarray], Any]:
    import jax

    return jax.jit(f).lower(jax.ShapeDtypeStruct((1, *rows.shape[1:]), rows.dtype)).compile()


def throughput() -> dict[str, Any]:
    """Records a second on all cores, features included or not."""
    import jax

    jax.config.update("jax_num_cpu_devices", os.cpu_count())
    from qoejax.data import features, preprocess

    stats, x = statistics()
    see, seen = features.make(stats), preprocess.apply(stats, x)
    rates = {}
    peak, peak_flops = products.peak_call(_SIZE.value, 16)
    for name in _NETS.value:
        net = networks(SIZES[name], CLASSES, SERVICES)
        # Positions, stride and kernel are those of qoenet's own defaults.
        counted = SIZES[name] | {"frequencies": 8, "kernel": 4, "stride": 4}
        heads = CLASSES + 17 * SERVICES
        flops = products.matmul_flops(counted, FEATURES, heads - 17, 1) / 3
        for batch in map(int, _BATCHES.value):
            calls = {
                "net": _many(net, seen, batch),
                "whole": _many(lambda v, net=net: net(see(v)), x, batch),
                "peak": peak,
            }
            seconds = common.turns(calls, _REPEATS.value)
            best = {k: min(v) for k, v in seconds.items()}
            n = _ROWS.value * jax.device_count()
            row = {
                "bench": "throughput", "net": name, "batch": batch, "flop_per_record": flops,
                "records_per_s": n / best["net"], "records_per_s_with_features": n / best["whole"],
                "median_records_per_s": n / float(np.median(seconds["net"])),
                "gflops": n * flops / best["net"] / 1e9,
                "peak_gflops": peak_flops / best["peak"] / 1e9,
                "load": os.getloadavg()[0],
            }  # fmt: skip
            row["fraction"] = row["gflops"] / row["peak_gflops"]
            common.emit(row)
            rates[f"{name}/{batch}"] = [row["records_per_s"], row["fraction"]]
    return {"bench": "throughput", "records_per_s_and_fraction": rates}


def _many(f: Callable[[Any], Any], x: np.ndarray, batch: int) -> Callable[[], None]:
    """Every device runs its own rows, a micro-batch after the other."""
    import jax

    parts = max(1, _ROWS.value // batch)
    rows = np.resize(x, (parts, batch, *x.shape[1:]))
    placed = [jax.device_put(rows, d) for d in jax.devices()]
    run = jax.jit(lambda v: jax.lax.map(f, v))

    def call() -> None:
        jax.block_until_ready([run(part) for part in placed])

    return call


def main() -> dict[str, Any]:
    """Prints a line a setting."""
    return {"latency": latency, "throughput": throughput}[_MODE.value]()


if __name__ == "__main__":
    cli.run(main)
