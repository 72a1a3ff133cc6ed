"""Every algorithm in every mode: fused = by halves = resumed, to the bit; modes agree.

By default the grid is two algorithms with states, one that sends more than a delta and one that
sends less. ``-m slow`` runs the rest.
"""

import functools

import jax
import numpy as np
import pytest

from qoejax.fed.algorithms import CLIENT_UPDATES
from qoejax.fed.participation import Participation

from . import tiny

ROUNDS = 4
QUICK = {("scaffold", "shard"), ("fedper", "chunk")}
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


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mode"), GRID)
def test_halves_through_host_memory_give_the_same_bits(name, mode):
    eng, data, whole, metrics = played(name, mode)
    apart, last = tiny.apart(eng, eng.init(tiny.params(name)), data, tiny.key(), ROUNDS)
    tiny.equal(apart, whole)
    tiny.close(last, jax.tree.map(lambda m: m[-1], metrics))
    assert metrics["absent"].sum() + (4 - metrics["clients"]).sum() > 0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mode"), [p for p in GRID if p.values[1] != "turn"])
def test_modes_agree(name, mode):
    tiny.close(played(name, mode)[2], played(name, "turn")[2], rtol=1e-4, atol=1e-5)


def test_the_model_is_the_same_for_all_or_each_client_has_one():
    eng, _, state, _ = played("fedper", "chunk")
    models = eng.models(state)
    tiny.equal(models["b"], state.client_state["b"])
    tiny.equal(models["w"], np.broadcast_to(state.params["w"], (5, 3)))
    assert played("scaffold", "shard")[0].models is None
