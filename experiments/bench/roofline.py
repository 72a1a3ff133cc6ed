"""What share of the device's float32 matmul peak a round of the default hybrid reaches. JSON lines.

    python -m experiments.bench.roofline
    python -m experiments.bench.roofline --clients=100,1000,10000 --chunks=16,64,256 --seeds=5

(the second on a GPU).

Peak is the best of several calls of ``--products`` products of ``--size``-cubed, all devices at
work at the same time. Rounds and products take turns, since the machine is not ours alone, and on
CPU a call should last about as long as a round: cores run short bursts faster than they can go on.
A client step is counted twice: by XLA for the compiled gradient step of one client, and by hand,
for matrix products only (two for each product of two numbers; the gradient costs twice the forward
pass). ``fraction`` is by hand and of the fastest round, ``fraction_xla`` by XLA's count;
``products_alone`` is the fraction that these very products reach when there is nothing else.

On CPU clients are sharded over one device a core, as is the default; elsewhere they run in chunks
under ``vmap``. ``--seeds`` also runs that many models at once as one more axis (CPU: one device).
"""

import functools
import os
import statistics
from collections.abc import Callable
from typing import Any

from absl import flags

from experiments import cli
from experiments.bench import common, products

_CLIENTS = flags.DEFINE_list("clients", ["100"], "Clients of a round; all take part.")
_CHUNKS = flags.DEFINE_list("chunks", [], "Clients at once, instead of the default of the device.")
_SEEDS = flags.DEFINE_integer("seeds", 1, "Models trained at once, for comparison.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 20, "Local steps of 32 rows.", lower_bound=1)
_ROWS = flags.DEFINE_integer("rows", 640, "Rows of each client.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 7, "Rounds, and products, timed.", lower_bound=1)
_SIZE = flags.DEFINE_integer("size", 1024, "Of the square products.", lower_bound=1)
_PRODUCTS = flags.DEFINE_integer("products", 64, "Of a timed call, one after another.")


def xla_flops(workload: Any) -> float:
    """Operations of the compiled gradient step of one client, as XLA counts them."""
    import jax

    from experiments.bench.contenders import nets

    loss = nets.objective(workload).loss_fn
    batch = jax.tree.map(lambda leaf: leaf[: workload.batch], nets.rows_of(workload))
    step = jax.jit(jax.grad(lambda p, b, k: loss(p, b, k)[0]))
    lowered = step.lower(nets.tree(workload.params), batch, jax.random.key(0))
    analysis: Any = lowered.compile().cost_analysis()
    return analysis["flops"]


def _round(workload: Any, chunk: int, seeds: int) -> Callable[[], None]:
    """A round of ``seeds`` models; 0 for the chunk is the default of the device."""
    import jax

    from experiments.bench.contenders import ours

    config = ours.settings(workload)
    if chunk:
        config.perf.update(client_axis="chunk", chunk=chunk)
    engine, params, rows = ours.start(workload, config)
    state, key = engine.init(params), jax.random.key(1)
    block = functools.partial(engine.block, rounds=1)
    if seeds > 1:
        state = jax.tree.map(lambda leaf: jax.numpy.stack([leaf] * seeds), state)
        key = jax.random.split(key, seeds)
        block = jax.jit(jax.vmap(block, in_axes=(0, None, 0)), donate_argnums=0)

    def call() -> None:
        nonlocal state
        state, sums = block(state, rows, key)
        jax.block_until_ready((state, sums))

    return call


def measure(clients: int, chunk: int, seeds: int) -> dict[str, Any]:
    """One setting."""
    import jax

    from experiments.bench import workload as workloads
    from experiments.bench.contenders import nets

    work = nets.with_params(
        workloads.make(
            "hybrid", clients, clients=clients, rows=_ROWS.value, steps=_STEPS.value
        )
    )  # fmt: skip
    by_hand = products.matmul_flops(work.sizes, workloads.FEATURES, workloads.CLASSES, work.batch)
    by_xla = xla_flops(work)
    steps = clients * work.steps * seeds
    peak, peak_flops = products.peak_call(_SIZE.value, _PRODUCTS.value)
    shapes = products.shapes(work.sizes, workloads.FEATURES, workloads.CLASSES, work.batch)
    own, own_flops = products.own_call(shapes, -(-steps // jax.device_count()))
    calls = {"peak": peak, "own": own, "round": _round(work, chunk, seeds)}
    seconds = common.turns(calls, _REPEATS.value)
    best = peak_flops / min(seconds["peak"])
    fastest, median = min(seconds["round"]), statistics.median(seconds["round"])
    usual = peak_flops / statistics.median(seconds["peak"])
    return {
        "bench": "roofline", "clients": clients, "chunk": chunk, "seeds": seeds,
        "steps": work.steps, "peak_gflops": best / 1e9,
        "peak_median_gflops": usual / 1e9,
        "step_mflop": by_hand / 1e6, "step_mflop_xla": by_xla / 1e6,
        "seconds": median, "minimum": fastest,
        "rounds_per_s": 1 / median, "clients_per_s": clients * seeds / median,
        "gflops": by_hand * steps / fastest / 1e9,
        "products_alone": own_flops / min(seconds["own"]) / best,
        "fraction": by_hand * steps / fastest / best,
        "fraction_xla": by_xla * steps / fastest / best,
        "fraction_of_medians": by_hand * steps / median / usual,
        "load": os.getloadavg()[0],
    }  # fmt: skip


def main() -> dict[str, Any]:
    """Prints a line a setting; the last one sums up the fractions."""
    import jax

    from configs import base
    from qoejax.run import build

    build.set_devices(base.get_config())
    cpu = jax.default_backend() == "cpu"
    chunks = [int(c) for c in _CHUNKS.value] or [0 if cpu else 100]
    fractions = {}
    for clients in map(int, _CLIENTS.value):
        for chunk in chunks:
            for seeds in sorted({1, _SEEDS.value}):
                row = measure(clients, chunk or (1 if seeds > 1 else 0), seeds)
                fractions[f"{clients}/{chunk}/{seeds}"] = row["fraction"]
                common.emit(row)
    return {"bench": "roofline", "fractions": fractions}


if __name__ == "__main__":
    cli.run(main)
