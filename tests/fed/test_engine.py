"""The engine's promises: modes agree, and within one mode the same bits however it is run."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.fed import engine
from qoejax.types import Cohort

from . import tiny

MODES = ("turn", "chunk", pytest.param("shard", marks=pytest.mark.multidevice))
ROUNDS = 4

SLOW, SEVERAL = pytest.mark.slow, pytest.mark.multidevice
RESUMED = ("turn", pytest.param("chunk", marks=SLOW), pytest.param("shard", marks=[SEVERAL, SLOW]))
HALVED = (
    pytest.param("turn", marks=SLOW), pytest.param("chunk", marks=SLOW),
    pytest.param("shard", marks=SEVERAL),
)  # fmt: skip


@functools.cache
def shared(mode):
    """One engine a mode, with its loss and its staged rows: compiled once for all tests."""
    loss = tiny.Loss()
    eng = tiny.make_engine(loss, "persistent", client_axis=mode, devices=jax.devices()[:2])
    return eng, loss, eng.place(tiny.examples())


@functools.cache
def straight(mode):
    """State and metrics after four rounds in one block, on the host."""
    eng, _, data = shared(mode)
    out = eng.block(eng.init(tiny.params()), data, tiny.key(), ROUNDS)
    return jax.device_get(out)


@pytest.mark.parametrize("mode", RESUMED)
def test_rerun_and_resume_give_the_same_bits_without_compiling_again(mode):
    eng, loss, data = shared(mode)
    whole, metrics = straight(mode)
    traces = loss.traces
    again = eng.block(eng.init(tiny.params()), data, tiny.key(), ROUNDS)
    tiny.equal(again, (whole, metrics))
    assert loss.traces == traces

    state, first = eng.block(eng.init(tiny.params()), data, tiny.key(), 2)
    traces = loss.traces
    state, data = jax.device_get((state, data))  # what a checkpoint holds
    with tiny.count_compilations() as compiled:
        state, second = eng.block(state, data, tiny.key(), 2)
    assert not compiled
    tiny.equal(state, whole)
    tiny.equal(jax.tree.map(lambda a, b: np.concatenate([a, b]), first, second), metrics)
    assert loss.traces == traces


@pytest.mark.parametrize("mode", HALVED)
def test_halves_through_host_memory_give_the_same_bits(mode):
    eng, _, data = shared(mode)
    whole, metrics = straight(mode)
    state, _ = tiny.apart(eng, eng.init(tiny.params()), data, tiny.key(), 1)
    with tiny.count_compilations() as compiled:
        state, last = tiny.apart(eng, state, data, tiny.key(), ROUNDS - 1)
    assert not compiled
    tiny.equal(state, whole)
    tiny.close(last, jax.tree.map(lambda m: m[-1], metrics))
    assert len(eng.slices(eng.cohort_for(state.round, tiny.key()))) > 1


@pytest.mark.parametrize("mode", MODES[1:])
def test_modes_agree(mode):
    tiny.close(straight(mode), straight("turn"), rtol=1e-5, atol=1e-5)


def test_it_learns_and_metrics_are_stacked_by_round():
    state, metrics = straight("turn")
    loss = metrics["loss"] / metrics["n"]
    assert loss.shape == (ROUNDS,)
    assert loss[-1] < loss[0] / 2
    np.testing.assert_array_equal(metrics["clients"], 4)
    np.testing.assert_array_equal(metrics["refused"], 0)
    assert state.round == ROUNDS


@pytest.mark.parametrize("mode", MODES)
def test_cohorts_are_sampled_anew_each_round_and_padded(mode):
    eng, _, _ = shared(mode)
    cohorts = [jax.device_get(eng.cohort_for(jnp.int32(r), tiny.key())) for r in range(8)]
    for cohort in cohorts:
        real = cohort.client_id >= 0
        assert len(set(cohort.client_id[real])) == real.sum() == 4
        np.testing.assert_array_equal(cohort.count[real], tiny.COUNT[cohort.client_id[real]])
        np.testing.assert_array_equal(cohort.steps[~real], 0)
        pieces = eng.slices(cohort)
        tiny.equal(jax.tree.map(lambda *a: np.concatenate(a), *pieces), cohort)
    assert len({frozenset(c.client_id.tolist()) for c in cohorts}) > 1
    tiny.equal(cohorts[3], eng.cohort_for(jnp.int32(3), tiny.key()))


def test_modes_ask_the_same_clients():
    for number in range(3):
        chosen = [
            sorted(shared(mode)[0].cohort_for(jnp.int32(number), tiny.key()).client_id.tolist())
            for mode in ("turn", "chunk")
        ]
        assert chosen[0] == chosen[1]


def test_everyone_takes_part_in_order_when_the_cohort_is_the_population():
    eng = tiny.make_engine(cohort_size=5, weight="uniform", epochs=None, steps=6)
    cohort = eng.cohort_for(jnp.int32(0), tiny.key())
    tiny.equal(cohort, Cohort(np.arange(5), tiny.OFFSET, tiny.COUNT, np.full(5, 6), np.ones(5)))


def test_the_block_takes_over_its_state_but_not_the_callers_parameters():
    eng, _, data = shared("turn")
    params = tiny.params()
    state = eng.init(params)
    eng.block(state, data, tiny.key(), 2)
    assert state.params["w"].is_deleted()
    np.testing.assert_array_equal(params["w"], tiny.params()["w"])


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"client_axis": "pmap"}, "client_axis is 'pmap'"),
        ({"cohort_size": 6}, "cohort_size is 6: expected 1 to 5"),
        ({"cohort_size": 0}, "cohort_size is 0"),
        ({"epochs": None}, "epochs or steps"),
        ({"steps": 3}, "epochs or steps"),
        ({"epochs": 0}, "epochs or steps"),
        ({"client_axis": "chunk", "chunk": 0}, "chunk is 0"),
        ({"client_axis": "chunk", "chunk": 2, "slice_size": 3}, "multiple of 2"),
        ({"weight": "rows"}, "weight is 'rows'"),
    ],
)
def test_bad_arguments_are_named(kwargs, words):
    with pytest.raises(ValueError, match=words):
        tiny.make_engine(**kwargs)


def test_a_bad_population_is_named(monkeypatch):
    rest = (4, 1, None, "examples")
    with pytest.raises(ValueError, match="one offset and one count"):
        engine._check(tiny.OFFSET, tiny.COUNT[:2], *rest)
    monkeypatch.setattr(tiny, "COUNT", np.array([5, 0, 40, 8, 31], np.int32))
    with pytest.raises(ValueError, match="client 1 has no rows"):
        tiny.make_engine()


def test_bad_rounds_and_slices_are_named():
    eng, _, data = shared("chunk")
    state = eng.init(tiny.params())
    with pytest.raises(ValueError, match="at least 1 round"):
        eng.block(state, data, tiny.key(), 0)
    cohort = eng.cohort_for(state.round, tiny.key())
    with pytest.raises(ValueError, match="a slice of 3 clients: expected a multiple of 2"):
        eng.local(state, data, jax.tree.map(lambda leaf: leaf[:3], cohort), tiny.key())


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_the_real_net_gives_the_same_bits_through_host_memory(mode):
    """As above with the whole net, Adam and dropout, whose many kernels could be fused anew."""
    from qoejax.fed import aggregate, client, server
    from qoejax.nets import NETS
    from qoejax.objectives import losses

    net = NETS["qoenet"](classes=2, services=1, width=8, depth=1, heads=2, mlp=8, dropout=0.1)
    objective = losses.make_loss(net, class_weight=np.ones(2, np.float32))
    data = tiny.examples()
    params = objective.init(tiny.key(1), data.x)
    eng = engine.make_engine(
        client_update=client.fedavg(
            objective.loss_fn, client.adam(clip=1.0), lr=0.01, batch_size=tiny.BATCH
        ),
        aggregator=aggregate.weighted_mean(), server_opt=server.adam(),
        schedule=client.warmup_cosine(4), offset=tiny.OFFSET, count=tiny.COUNT, cohort_size=4,
        epochs=1, batch_size=tiny.BATCH, client_axis=mode, chunk=2, devices=jax.devices()[:2],
    )  # fmt: skip
    data = eng.place(data)
    whole, _ = eng.block(eng.init(params), data, tiny.key(), 3)
    parts, _ = tiny.apart(eng, eng.init(params), data, tiny.key(), 3)
    tiny.equal(whole, parts)


def test_the_counter_of_compilations_counts():
    with tiny.count_compilations() as compiled:
        jax.jit(lambda x: x * 3 + 1)(jnp.ones(7)).block_until_ready()
    assert compiled
