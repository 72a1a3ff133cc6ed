"""Members of a sweep against the runs that they stand for; the model is linear."""

import jax
import jax.numpy as jnp
import pytest

from qoejax.fed import aggregate, client, engine, server
from qoejax.fed.algorithms import CLIENT_UPDATES
from qoejax.fed.sweep import make_sweep

from . import tiny

SEEDS = (11, 12)
RATES = {"lr": (0.02, 0.05), "mu": (0.5, 2.0), "server": (1.0, 0.7)}
LAST = {name: values[-1] for name, values in RATES.items()}


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
@pytest.mark.parametrize(
    ("mode", "at_once"),
    [
        ("shard", 1),
        pytest.param("chunk", 0, marks=pytest.mark.slow),
        pytest.param("shard", 0, marks=pytest.mark.slow),
    ],
)
def test_a_member_is_the_single_run(mode, at_once):
    """Whatever the size of blocks, and compiled once."""
    keys, params, rates = stacked()
    many = make_sweep(lambda own: engine_of(own, mode), rates, at_once)
    alone = engine_of(LAST, mode)
    rows = alone.place(tiny.examples())
    state, first = many.block(many.init(params), rows, keys, 1)
    with tiny.count_compilations() as seen:
        state, second = many.block(state, rows, keys, 1)
        state, third = many.block(state, rows, keys, 1)
    assert not seen
    assert first["loss"].shape == (len(SEEDS), 1)
    want, metrics = alone.block(alone.init({"w": params["w"][-1]}), rows, tiny.key(SEEDS[-1]), 3)
    tiny.close(state.params["w"][-1], want.params["w"])
    for i, sums in enumerate((first, second, third)):
        own = jax.tree.map(lambda leaf: leaf[-1, 0], sums)
        tiny.close(own, jax.tree.map(lambda leaf, i=i: leaf[i], metrics))


@pytest.mark.parametrize(
    ("algorithm", "optimizer"),
    [("feddyn", "sgd"), pytest.param("ditto", "adam", marks=pytest.mark.slow)],
)
def test_every_rate_may_be_swept(algorithm, optimizer):
    keys, params, rates = stacked()
    many = make_sweep(lambda own: engine_of(own, "turn", algorithm, optimizer), rates)
    state, _ = many.block(many.init(params), tiny.examples(), keys, 2)
    alone = engine_of(LAST, "turn", algorithm, optimizer)
    start = alone.init({"w": params["w"][-1]})
    want, _ = alone.block(start, tiny.examples(), tiny.key(SEEDS[-1]), 2)
    tiny.close(jax.tree.map(lambda leaf: leaf[-1], state.client_state), want.client_state)
    tiny.close(state.params["w"][-1], want.params["w"])
