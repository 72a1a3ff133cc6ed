"""Simulated episodes a second, by how many run at once. One JSON line each.

    python -m experiments.bench.simulator

An episode is 60 s of one site in 10 ms slots: traffic, queue, features, scores of four services,
examples. ``episodes_per_s`` is over all timed chunks together and ``cpu_s`` the processor seconds
that they took, all threads; ``compile_s`` is the first call, beyond one chunk. ``ratio`` is
episodes a second against the first chunk size.
"""

import time
from typing import Any

from absl import flags

from experiments import cli
from experiments.bench import common

_CHUNKS = flags.DEFINE_list("chunks", ["1", "20", "80", "320"], "Episodes simulated at once.")
_EPISODES = flags.DEFINE_integer("episodes", 1600, "Timed episodes of each size.", lower_bound=1)


def _measure(chunk: int, episodes: int) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp

    from qoejax.data.builders.simulated_iot import simulated_iot_dataset_builder as simulated
    from qoejax.simulate.episodes import World

    key = jax.random.key(simulated.SEED, impl="threefry2x32")
    number = jnp.arange(chunk, dtype=jnp.int32)

    def run(site: int) -> None:
        sites = jnp.full(chunk, site, jnp.int32)
        jax.block_until_ready(simulated.simulate(key, sites, number, None, World()))

    start = time.perf_counter()
    run(0)
    first = time.perf_counter() - start
    calls = -(-episodes // chunk)
    start, cpu = time.perf_counter(), time.process_time()
    for call in range(calls):
        run(1 + call)
    seconds, cpu_s = time.perf_counter() - start, time.process_time() - cpu
    return {
        "chunk": chunk,
        "episodes": calls * chunk,
        "seconds": seconds,
        "cpu_s": cpu_s,
        "episodes_per_s": calls * chunk / seconds,
        "episodes_per_cpu_s": calls * chunk / cpu_s,
        "compile_s": first - seconds / calls,
    }


def main() -> dict[str, Any]:
    """Prints one line for each chunk size, and returns the fastest of them."""
    rows = []
    for chunk in map(int, _CHUNKS.value):
        rows.append(_measure(chunk, _EPISODES.value))
        rows[-1]["ratio"] = rows[-1]["episodes_per_s"] / rows[0]["episodes_per_s"]
        common.emit({"bench": "simulator", **rows[-1]})
    best = max(rows, key=lambda row: row["episodes_per_s"])
    return {"bench": "simulator", "fastest_chunk": best["chunk"], "most": best["episodes_per_s"]}


if __name__ == "__main__":
    cli.run(main)
