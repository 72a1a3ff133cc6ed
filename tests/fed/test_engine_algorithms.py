"""Every algorithm in every mode: fused = by halves = resumed, to the bit; modes agree.

A small part of the grid runs by default, chosen so that each kind of message and of state is seen
in two modes; ``-m slow`` runs the rest.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.fed.algorithms import CLIENT_UPDATES
from qoejax.fed.participation import Participation

from . import tiny

ROUNDS = 4
QUICK = {("scaffold", "shard"), ("fedper", "shard"), ("ditto", "chunk")}
PART = Participation(
    weight=tiny.COUNT.astype(np.float32), dropout=0.2, stragglers=0.5,
    trace=np.array([[1, 1, 1, 0, 1], [1, 0, 1, 1, 1], [0, 1, 0, 0, 1]], bool),
)  # fmt: skip


def case(name, mode):
    marks = [pytest.mark.multidevice] if mode == "shard" else []
    marks += [] if (name, mode) in QUICK else [pytest.mark.slow]
    return pytest.param(name, mode, marks=marks)


GRID = [case(name, mode) for name in CLIENT_UPDATES for mode in ("turn", "chunk", "shard")]


@functools.cache
def played(name, mode):
    """Engine, staged rows, state and last metrics of four rounds in two blocks."""
    loss = tiny.Loss()
    eng = tiny.make_engine(
        loss, name, optimizer="sgd", client_axis=mode, devices=jax.devices()[:2],
        participation=PART,
    )  # fmt: skip
    data = eng.place(tiny.examples())
    state, _ = eng.block(eng.init(tiny.params(name)), data, tiny.key(), ROUNDS // 2)
    traces = loss.traces
    state = jax.device_get(state)  # what a checkpoint holds
    with tiny.count_compilations() as compiled:
        state, metrics = eng.block(state, data, tiny.key(), ROUNDS // 2)
    assert not compiled
    assert loss.traces == traces
    return eng, data, jax.device_get(state), jax.device_get(metrics)


@pytest.mark.parametrize(("name", "mode"), GRID)
def test_halves_through_host_memory_give_the_same_bits(name, mode):
    eng, data, whole, metrics = played(name, mode)
    apart, last = tiny.apart(eng, eng.init(tiny.params(name)), data, tiny.key(), ROUNDS)
    tiny.equal(apart, whole)
    tiny.close(last, jax.tree.map(lambda m: m[-1], metrics))
    assert metrics["absent"].sum() + (4 - metrics["clients"]).sum() > 0


@pytest.mark.parametrize(("name", "mode"), [p for p in GRID if p.values[1] != "turn"])
def test_modes_agree(name, mode):
    tiny.close(played(name, mode)[2], played(name, "turn")[2], rtol=1e-4, atol=1e-5)


def test_the_model_is_the_same_for_all_or_each_client_has_one():
    eng, _, state, _ = played("fedper", "shard")
    models = eng.models(state)
    tiny.equal(models["b"], state.client_state["b"])
    tiny.equal(models["w"], np.broadcast_to(state.params["w"], (5, 3)))
    assert played("scaffold", "shard")[0].models is None


def test_a_weighing_rule_sees_steps_of_the_parameters_whatever_travels():
    """Judging by the delta's first weight, SCAFFOLD's message gives what FedAvg's delta gives."""
    seen = {}

    def weigh(params, delta_of, deltas, weight):
        first = jax.vmap(lambda m: delta_of(m)["w"][0])(deltas)
        return weight * jnp.exp(10 * first)

    for name in ("fedavg", "scaffold"):
        eng = tiny.make_engine(tiny.Loss(), name, optimizer="sgd", weigh=weigh)
        state, _ = eng.block(eng.init(tiny.params()), tiny.examples(), tiny.key(), 1)
        seen[name] = np.asarray(state.params["w"])
    np.testing.assert_allclose(seen["fedavg"], seen["scaffold"], rtol=1e-5)
    plain = tiny.make_engine(tiny.Loss(), "fedavg", optimizer="sgd")
    state, _ = plain.block(plain.init(tiny.params()), tiny.examples(), tiny.key(), 1)
    assert np.abs(np.asarray(state.params["w"]) - seen["fedavg"]).max() > 1e-3
