"""Members of a sweep against the runs that they stand for; the model is linear."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.fed import aggregate, client, engine, server
from qoejax.fed.algorithms import CLIENT_UPDATES
from qoejax.fed.sweep import make_sweep

from . import tiny

ROUNDS = 3
SEEDS = (11, 12, 13)
RATES = {"lr": (0.02, 0.05, 0.02), "mu": (0.5, 0.5, 2.0), "server": (1.0, 0.7, 1.0)}


def engine_of(rates, mode, algorithm="fedprox", optimizer="sgd"):
    extra = {"fedavg": {}, "feddyn": {"alpha": rates["mu"]}}.get(algorithm, {"mu": rates["mu"]})
    return engine.make_engine(
        client_update=CLIENT_UPDATES[algorithm](
            tiny.Loss(), client.OPTIMIZERS["momentum"](), lr=rates["lr"], batch_size=tiny.BATCH,
            **extra,
        ),
        aggregator=aggregate.weighted_mean(),
        server_opt=server.SERVER_OPTIMIZERS[optimizer](rates["server"]),
        schedule=client.cosine(8),
        offset=tiny.OFFSET, count=tiny.COUNT, batch_size=tiny.BATCH, epochs=1, cohort_size=4,
        client_axis=mode, chunk=2, devices=jax.devices()[:2],
    )  # fmt: skip


def stacked():
    keys = jnp.stack([tiny.key(seed) for seed in SEEDS])
    params = {"w": jnp.stack([tiny.params()["w"] * (1 + i) for i in range(len(SEEDS))])}
    rates = {name: jnp.array(values, jnp.float32) for name, values in RATES.items()}
    return keys, params, rates


@pytest.mark.multidevice
@pytest.mark.parametrize("mode", ["turn", "chunk", "shard"])
def test_a_member_is_the_single_run(mode):
    keys, params, rates = stacked()
    many = make_sweep(lambda own: engine_of(own, mode), rates)
    placed = engine_of({k: v[0] for k, v in RATES.items()}, mode).place(tiny.examples())
    state, sums = many.block(many.init(params), placed, keys, ROUNDS)
    assert sums["loss"].shape == (len(SEEDS), ROUNDS)
    for i, seed in enumerate(SEEDS):
        alone = engine_of({k: v[i] for k, v in RATES.items()}, mode)
        start = alone.init(jax.tree.map(lambda leaf, i=i: leaf[i], params))
        want, metrics = alone.block(start, alone.place(tiny.examples()), tiny.key(seed), ROUNDS)
        tiny.close(state.params["w"][i], want.params["w"])
        tiny.close(jax.tree.map(lambda leaf, i=i: leaf[i], sums), metrics)
        assert state.round[i] == want.round == ROUNDS


@pytest.mark.parametrize(
    ("algorithm", "optimizer"),
    [("feddyn", "sgd"), ("ditto", "adam"), ("fedavg", "yogi"), ("fedavg", "adagrad"),
     ("fedavg", "momentum")],
)  # fmt: skip
def test_every_rate_may_be_swept(algorithm, optimizer):
    keys, params, rates = stacked()
    many = make_sweep(lambda own: engine_of(own, "turn", algorithm, optimizer), rates)
    state, _ = many.block(many.init(params), tiny.examples(), keys, 2)
    alone = engine_of({k: v[2] for k, v in RATES.items()}, "turn", algorithm, optimizer)
    start = alone.init({"w": params["w"][2]})
    want, _ = alone.block(start, tiny.examples(), tiny.key(SEEDS[2]), 2)
    tiny.close(jax.tree.map(lambda leaf: leaf[2], state.client_state), want.client_state)
    tiny.close(state.params["w"][2], want.params["w"])


def test_blocks_compile_once_and_their_size_is_invisible():
    keys, params, rates = stacked()
    many = make_sweep(lambda own: engine_of(own, "turn"), rates)
    whole, _ = many.block(many.init(params), tiny.examples(), keys, 4)
    state = many.init(params)
    state, _ = many.block(state, tiny.examples(), keys, 2)
    with tiny.count_compilations() as seen:
        state, _ = many.block(state, tiny.examples(), keys, 2)
    assert not seen
    np.testing.assert_array_equal(state.params["w"], whole.params["w"])
