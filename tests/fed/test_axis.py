"""The client axis: who works where, in what chunks; sums made on the way equal sums made after."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.fed import aggregate, attacks, axis, engine, receive, round, server
from qoejax.fed.client import constant
from qoejax.types import Cohort, Examples

from . import tiny

ROUNDS = 3
MODES = {
    "turn": {"client_axis": "turn"},
    "chunk": {"client_axis": "chunk", "chunk": 3},
    "shard": {"client_axis": "shard", "devices": jax.devices()[:2]},
    "chunks on shards": {"client_axis": "shard", "chunk": 2, "devices": jax.devices()[:2]},
    "home": {"client_axis": "shard", "devices": jax.devices()[:2], "placement": "home"},
}


@functools.cache
def played(mode, name="fedavg"):
    """State and metrics after a few rounds."""
    eng = tiny.make_engine(name=name, optimizer="sgd", **MODES[mode])
    out = eng.block(eng.init(tiny.params(name)), eng.place(tiny.examples()), tiny.key(), ROUNDS)
    return jax.device_get(out)


def stacked(name):
    """The same rule without its form as a sum."""
    return aggregate.AGGREGATORS[name]()._replace(linear=None)


@pytest.mark.multidevice
@pytest.mark.parametrize(
    "mode",
    [
        pytest.param(mode, marks=() if mode == "chunks on shards" else pytest.mark.slow)
        for mode in list(MODES)[1:]
    ],
)
@pytest.mark.parametrize("name", [pytest.param("fedavg", marks=pytest.mark.slow), "feddyn"])
def test_modes_agree(name, mode):
    state, metrics = played(mode, name)
    own = jax.tree.map(lambda s: s[: len(tiny.COUNT)], state.client_state)
    out = (state._replace(client_state=own), metrics)
    tiny.close(out, played("turn", name), rtol=1e-4, atol=1e-5)


@pytest.mark.multidevice
@pytest.mark.parametrize("mode", ["turn", pytest.param("chunks on shards", marks=pytest.mark.slow)])
def test_sums_on_the_way_equal_sums_of_all_messages(mode):
    eng = tiny.make_engine(optimizer="sgd", aggregator=stacked("weighted_mean"), **MODES[mode])
    out = eng.block(eng.init(tiny.params()), eng.place(tiny.examples()), tiny.key(), ROUNDS)
    check = tiny.equal if mode == "turn" else functools.partial(tiny.close, rtol=1e-5, atol=1e-6)
    check(out, played(mode))


def broken(rows, client, value):
    """Rows on which one client's training diverges."""
    own = slice(int(tiny.OFFSET[client]), int(tiny.OFFSET[client] + tiny.COUNT[client]))
    return rows._replace(mos=rows.mos.at[own].set(value))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weighted_mean", np.nan),
        ("mean", 1e30),
        pytest.param("mean", np.nan, marks=pytest.mark.slow),
        pytest.param("weighted_mean", 1e30, marks=pytest.mark.slow),
    ],
)
def test_a_client_without_a_sound_update_is_left_out_of_the_sum_and_counted(name, value):
    """The others' weights grow in proportion, as if it had not been asked."""
    algorithm = tiny.algorithm(aggregator=name, lr=0.02)
    step = jax.jit(round.make_round(algorithm, axis.Axis(axis.in_chunks(3))))
    state = round.init_state(algorithm, tiny.params(), 5)
    rows, cohort = broken(tiny.examples(), 2, value), tiny.cohort((0, 1, 2, 3, 4, -1))
    bad, metrics = step(state, rows, cohort, tiny.key())
    weight = cohort.weight.at[2].set(0)
    good, others = step(state, rows, cohort._replace(weight=weight), tiny.key())
    tiny.close(bad.params, good.params)
    assert (metrics.pop("clients"), metrics.pop("refused"), metrics.pop("absent")) == (4, 1, 0)
    assert (others.pop("clients"), others.pop("refused"), others.pop("absent")) == (4, 0, 1)
    tiny.close(metrics, others)


def test_nothing_moves_where_every_update_is_refused():
    algorithm = tiny.algorithm(lr=0.02)
    state = round.init_state(algorithm, tiny.params(), 5)
    rows = tiny.examples()
    rows = rows._replace(mos=jnp.full_like(rows.mos, np.nan))
    after, metrics = jax.jit(round.make_round(algorithm))(state, rows, tiny.cohort(), tiny.key())
    tiny.equal(after.params, state.params)
    assert (metrics["clients"], metrics["refused"]) == (0, 5)


RULES = {
    "weighted_mean": aggregate.weighted_mean,
    "mean": aggregate.mean,
    "norm_bounding": lambda: aggregate.AGGREGATORS["norm_bounding"](byzantine=1, bound=0.05),
}


@pytest.mark.parametrize(
    "name", ["mean", *(pytest.param(n, marks=pytest.mark.slow) for n in RULES if n != "mean")]
)
@pytest.mark.parametrize("chunk", [pytest.param(1, marks=pytest.mark.slow), 5])
def test_a_rules_two_forms_agree(name, chunk):
    both = []
    for rule in (RULES[name](), RULES[name]()._replace(linear=None)):
        algorithm = tiny.algorithm("scaffold")._replace(aggregator=rule)
        state = round.init_state(algorithm, tiny.params(), 5)
        step = jax.jit(round.make_round(algorithm, axis.Axis(axis.in_chunks(chunk))))
        both.append(step(state, tiny.examples(), tiny.cohort(), tiny.key()))
    tiny.close(*both)
    assert np.abs(np.asarray(both[0][0].params["w"] - tiny.params()["w"])).max() > 1e-3


def test_only_lone_messages_are_summed_on_the_way():
    algorithm = tiny.algorithm()
    assert receive.sum_of(algorithm) is algorithm.aggregator.linear is not None
    enemy = attacks.Adversary(attacks.sign_flip(), np.zeros(5, bool))
    assert receive.sum_of(algorithm._replace(adversary=enemy)) is None
    assert receive.sum_of(algorithm._replace(weigh=lambda *a: a[-1])) is None
    assert receive.sum_of(tiny.algorithm(aggregator="coordinate_median", byzantine=1)) is None


def wide(clients, aggregator, **mode):
    """Temporary memory in bytes of a round of ``clients`` with 20,000 weights."""
    weights, rows = 20_000, 2
    examples = Examples(
        x=np.ones((clients * rows, 1, 1), np.float32),
        label=np.zeros(clients * rows, np.int32),
        mos=np.ones((clients * rows, 1), np.float32),
        mos_mask=np.ones((clients * rows, 1), bool),
        weight=np.ones(clients * rows, np.float32),
    )

    def loss(params, batch, key):
        error = batch.x[:, 0, 0] * (params["w"] ** 2).mean() - batch.mos[:, 0]
        return (error**2 * batch.weight).mean(), {"n": batch.weight.sum()}

    eng = engine.make_engine(
        client_update=tiny.update("fedavg", loss), aggregator=aggregator, server_opt=server.sgd(),
        schedule=constant(1), offset=np.arange(clients, dtype=np.int32) * rows,
        count=np.full(clients, rows, np.int32), cohort_size=clients, epochs=1, batch_size=rows,
        **mode,
    )  # fmt: skip
    state = eng.init({"w": jnp.ones(weights)})
    lowered = eng.lower(state, eng.place(examples), tiny.key(), 1)
    return lowered.compile().memory_analysis().temp_size_in_bytes


@pytest.mark.slow
@pytest.mark.multidevice
def test_memory_of_a_mean_grows_with_the_chunk_and_not_with_the_cohort():
    mode = {"client_axis": "shard", "devices": jax.devices()[:2]}
    small, large = (wide(clients, aggregate.mean(), **mode) for clients in (8, 80))
    assert large < 1.2 * small
    # 20,000 weights of 4 bytes for each of a device's 40 clients: what stacking them would take.
    assert wide(80, stacked("mean"), **mode) > 40 * 80_000 > 4 * large
    assert wide(80, aggregate.mean(), chunk=8, **mode) > 2 * small


@pytest.mark.slow
def test_a_block_length_is_compiled_once():
    eng = tiny.make_engine(optimizer="sgd")
    data, state = eng.place(tiny.examples()), eng.init(tiny.params())
    for length in (1, 2):
        state, _ = eng.block(state, data, tiny.key(), length)
    with tiny.count_compilations() as compiled:
        for length in [1, 2] * 10:
            state, _ = eng.block(state, data, tiny.key(), length)
    assert not compiled
    assert state.round == 33


@pytest.mark.multidevice
def test_cpu_devices_share_one_copy_of_the_rows():
    eng = tiny.make_engine(client_axis="shard", devices=jax.devices())
    rows = jax.device_get(tiny.examples())
    odd = jax.tree.map(lambda a: np.concatenate([a[:1], a])[1:], rows)  # seldom aligned
    for tree in (rows, odd):
        placed = eng.place(tree)
        tiny.equal(placed, rows)
        for leaf in placed:
            assert len(leaf.addressable_shards) == 4
            assert len({s.data.unsafe_buffer_pointer() for s in leaf.addressable_shards}) == 1


@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_chunk_larger_than_a_share_is_that_share(size):
    eng = tiny.make_engine(client_axis="chunk", chunk=size)
    assert eng.size == -(-4 // min(size, 4)) * min(size, 4)
    shard = tiny.make_engine(client_axis="shard", chunk=size, devices=jax.devices()[:2])
    assert shard.size == 4


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_deal_balances_steps(devices):
    steps = np.random.default_rng(0).integers(1, 100, 16).astype(np.int32)
    ids = jnp.arange(16)
    out = axis.deal(Cohort(ids, ids, ids, jnp.asarray(steps), jnp.ones(16)), devices)
    np.testing.assert_array_equal(np.sort(out.client_id), ids)
    np.testing.assert_array_equal(out.steps, steps[np.asarray(out.client_id)])
    share = np.asarray(out.steps).reshape(devices, -1)
    assert np.all(np.diff(share, axis=1) <= 0)
    assert np.ptp(share.sum(1)) <= steps.max()


def test_deal_goes_there_and_back():
    ids = jnp.arange(8)
    out = axis.deal(Cohort(ids, ids, ids, 8 - ids, jnp.ones(8)), 2)
    np.testing.assert_array_equal(out.steps, [8, 5, 4, 1, 7, 6, 3, 2])


@pytest.mark.slow
@pytest.mark.multidevice
def test_at_home_rows_and_states_are_on_one_device_each():
    eng = tiny.make_engine(name="feddyn", optimizer="sgd", **MODES["home"])
    state, rows = eng.init(tiny.params()), jax.device_get(tiny.examples())
    placed = eng.place(rows)
    where = eng.homes
    for d, shard in enumerate(placed.x.addressable_shards):
        np.testing.assert_array_equal(shard.data, rows.x[where.rows[d]])
    (kept,) = jax.tree.leaves(state.client_state)
    assert kept.shape == (6, 3)
    assert [s.data.shape for s in kept.addressable_shards] == [(3, 3)] * 2
    cohort = jax.device_get(eng.cohort_for(jnp.int32(0), tiny.key()))
    share = np.split(cohort.client_id, 2)
    for d, ids in enumerate(share):
        assert set(where.device[ids[ids >= 0]]) <= {d}
        assert np.all(np.diff(cohort.steps.reshape(2, -1)[d]) <= 0)
    there = tiny.make_engine(optimizer="sgd").cohort_for(jnp.int32(0), tiny.key())
    assert sorted(cohort.client_id[cohort.client_id >= 0]) == sorted(there.client_id.tolist())
    state, _ = eng.block(state, placed, tiny.key(), 1)
    (kept,) = jax.tree.leaves(state.client_state)
    assert [s.data.shape for s in kept.addressable_shards] == [(3, 3)] * 2


@pytest.mark.slow
@pytest.mark.multidevice
@pytest.mark.parametrize("name", ["feddyn"])
def test_at_home_halves_give_the_same_bits(name):
    eng = tiny.make_engine(name=name, optimizer="sgd", **MODES["home"])
    data = eng.place(tiny.examples())
    apart, _ = tiny.apart(eng, eng.init(tiny.params()), data, tiny.key(), ROUNDS)
    tiny.equal(apart, played("home", name)[0])


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"placement": "away"}, "placement is 'away'"),
        ({"placement": "home"}, "placement 'home' wants 'shard'"),
        ({"placement": "home", "client_axis": "shard", "devices": [0] * 6}, "6 devices for 5"),
        ({"client_axis": "shard", "chunk": 0}, "chunk is 0"),
    ],
)
def test_bad_arguments_are_named(kwargs, words):
    with pytest.raises(ValueError, match=words):
        tiny.make_engine(**kwargs)


@pytest.mark.multidevice
def test_rows_that_were_not_placed_are_refused_at_home():
    eng = tiny.make_engine(**MODES["home"])
    with pytest.raises(ValueError, match=r"examples have 101 rows: expected the 106 that"):
        eng.block(eng.init(tiny.params()), tiny.examples(), tiny.key(), 1)
