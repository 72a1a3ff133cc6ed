"""Runs the tiny problem on meshes of growing size and prints how far each is from one device.

    python -m tests.fed.meshes 8

A program of its own, since the number of CPU devices is fixed when JAX starts.
"""

import json
import sys

import jax
import numpy as np

CASES = {
    "fedavg": ("fedavg", "weighted_mean", 0),
    "scaffold": ("scaffold", "weighted_mean", 0),
    "median": ("fedavg", "coordinate_median", 1),
}
ROUNDS = 3


def parameters(case, devices):
    """After three rounds in which three of five clients take part."""
    from tests.fed import tiny

    name, aggregator, byzantine = CASES[case]
    eng = tiny.engine.make_engine(
        client_update=tiny.update(name, lr=0.02), server_opt=tiny.server.sgd(),
        aggregator=tiny.aggregator_of(aggregator, byzantine),
        schedule=tiny.client.constant(1), offset=tiny.OFFSET, count=tiny.COUNT,
        batch_size=tiny.BATCH, cohort_size=3, epochs=1, client_axis="shard",
        devices=jax.devices()[:devices],
    )  # fmt: skip
    state = eng.init(tiny.params(name))
    state, _ = eng.block(state, eng.place(tiny.examples()), tiny.key(), ROUNDS)
    return jax.device_get((state.params, state.client_state))


def distance(a, b):
    each = jax.tree.map(lambda x, y: float(np.max(np.abs(x - y), initial=0)), a, b)
    return max(jax.tree.leaves(each))


def main():
    jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
    for case in CASES:
        one = parameters(case, 1)
        moved = distance(one[0], {"w": np.array([0.5, -1.0, 2.0], np.float32)})
        for devices in (2, 4, 8):
            far = distance(parameters(case, devices), one)
            print(json.dumps({"case": case, "devices": devices, "far": far, "moved": moved}))


if __name__ == "__main__":
    main()
