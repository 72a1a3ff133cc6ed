"""Latency of one record and throughput of many, raw columns to outputs in one program. JSON lines.

    python -m experiments.bench.latency
    python -m experiments.bench.latency --mode=throughput

``latency`` keeps to one core and one thread. The joint hybrid and its two single-task twins (one
has the class head, one the MOS heads; all else is equal) take turns, each compiled ahead for one
record; so do their parts, features and network, to say what the ratio is where the twins share the
features. ``ratio`` is the joint p99 over the sum of the twins'.

``throughput`` uses every core: a device a core, micro-batches that stay in its cache, calls in turn
with the square products of experiments.bench.roofline. ``fraction`` is the rate of operations of
matrix products, counted by hand, over that of the square products; ``products_alone`` is that of
the same products when there is nothing else.
"""

import os
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

DEFAULTS = {"width": 64, "depth": 2, "heads": 4, "mlp": 128, "embed_size": 8, "hidden": 128}

SIZES: dict[str, dict[str, int]] = {
    "hybrid": DEFAULTS,
    "narrow": DEFAULTS | {"width": 32, "depth": 1, "heads": 2, "mlp": 64},
    "small": {"width": 16, "depth": 1, "heads": 2, "mlp": 32, "embed_size": 4, "hidden": 32},
}
"""Arguments of ``qoenet``; the first are its defaults."""


def latency() -> dict[str, Any]:
    """Microseconds of one record on one core."""
    from qoejax.run.studies import latency as one  # its process keeps to one core before JAX starts

    one.on_one_core()
    stats, x = one.statistics()
    calls = one.programs(stats, x, SIZES["hybrid"], one.CLASSES, one.SERVICES)
    us = one.percentiles(one.in_turn(calls, _CALLS.value))
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


def throughput() -> dict[str, Any]:
    """Records a second on all cores, features included or not."""
    import jax

    jax.config.update("jax_num_cpu_devices", os.cpu_count())
    from qoejax.data import features, preprocess
    from qoejax.run.studies import latency as one

    stats, x = one.statistics()
    see, seen = features.make(stats), preprocess.apply(stats, x)
    rates = {}
    peak, peak_flops = products.peak_call(_SIZE.value, 16)
    for name in _NETS.value:
        net = one.network(SIZES[name], one.CLASSES, one.SERVICES, (1, one.FEATURES))
        # Positions, stride and kernel are those of qoenet's own defaults.
        counted = SIZES[name] | {"frequencies": 8, "kernel": 4, "stride": 4}
        heads = one.CLASSES + 17 * one.SERVICES
        flops = products.matmul_flops(counted, one.FEATURES, heads - 17, 1) / 3
        for batch in map(int, _BATCHES.value):
            shapes = products.shapes(counted, one.FEATURES, heads - 17, batch)
            own, own_flops = products.own_call(shapes, 20_000 // batch, train=False)
            calls = {
                "net": _many(net, seen, batch),
                "whole": _many(lambda v, net=net: net(see(v)), x, batch),
                "peak": peak, "own": own,
            }  # fmt: skip
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
            row["products_alone"] = own_flops / best["own"] / 1e9 / row["peak_gflops"]
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
