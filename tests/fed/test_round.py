"""Rounds against NumPy, and what must be invisible in them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.data.cohort import batch_index
from qoejax.fed import round, server
from qoejax.types import Cohort
from tests.reference import fed_numpy

from . import tiny

batch_index = jax.jit(batch_index, static_argnums=3)


@functools.cache
def jitted(name="fedavg", **kwargs):
    algorithm = tiny.algorithm(name, loss=tiny.Loss(), **kwargs)
    return algorithm, jax.jit(round.make_round(algorithm))


@functools.cache
def jitted_server():
    algorithm = tiny.algorithm("persistent", server_opt=server.momentum(0.5), optimizer="momentum")
    return algorithm, jax.jit(round.make_halves(algorithm)[1])


def permuted(tree, order):
    return jax.tree.map(lambda leaf: leaf[np.array(order)], tree)


def reference_batches(cohort: Cohort, number: int) -> list[list[fed_numpy.Batch]]:
    """What each client draws in round ``number``: its key is its identity's and the round's."""
    data = jax.device_get(tiny.examples())
    keys = round.round_keys(tiny.key(), jnp.int32(number))
    out = []
    for client in range(len(cohort.client_id)):
        key = jax.random.fold_in(keys.clients, cohort.client_id[client])
        order_key = jax.random.split(key)[0]
        own = []
        for step in range(int(cohort.steps[client])):
            index, valid = batch_index(order_key, cohort.count[client], jnp.int32(step), tiny.BATCH)
            rows = int(cohort.offset[client]) + np.asarray(index)[np.asarray(valid)]
            own.append((data.x[rows, 0], data.mos[rows, 0]))
        out.append(own)
    return out


@pytest.mark.parametrize(
    ("name", "optimizer", "mu"),
    [("fedavg", "sgd", 0.0), ("fedprox", "sgd", 0.3), ("fedavg", "adam", 0.0)],
)
def test_two_rounds_equal_numpy(name, optimizer, mu):
    kwargs = {"mu": mu} if mu else {}
    algorithm, step = jitted(name, optimizer=optimizer, lr=0.05, **kwargs)
    state = round.init_state(algorithm, tiny.params(), 5)
    cohort = tiny.cohort(steps=[1, 3, 5, 2, 4])
    w = np.asarray(tiny.params()["w"], np.float64)
    for number in range(2):
        state, _ = step(state, tiny.examples(), cohort, tiny.key())
        batches = reference_batches(cohort, number)
        w = fed_numpy.fedavg_round(w, batches, tiny.COUNT, optimizer, 0.05, mu)
        np.testing.assert_allclose(state.params["w"], w, rtol=1e-5, atol=1e-5)
    assert np.abs(w - np.asarray(tiny.params()["w"])).max() > 0.05


def test_centralised_is_gradient_descent():
    """One client that holds all rows, and full batches: the rounds are plain gradient descent."""
    data = tiny.examples()
    n = int(tiny.COUNT.sum())
    update = tiny.client.persistent(tiny.Loss(), tiny.client.sgd(), lr=0.1, batch_size=n)
    algorithm = tiny.algorithm()._replace(client=update)
    everyone = Cohort(*(jnp.array([v]) for v in (0, 0, n, 2)), weight=jnp.array([float(n)]))
    state = round.init_state(algorithm, tiny.params(), 1)
    step = jax.jit(round.make_round(algorithm))
    w = np.asarray(tiny.params()["w"], np.float64)
    for _ in range(3):
        state, metrics = step(state, data, everyone, tiny.key())
        for _ in range(2):
            w = w - 0.1 * fed_numpy.gradient(w, (data.x[:, 0], data.mos[:, 0]))
    np.testing.assert_allclose(state.params["w"], w, rtol=1e-5, atol=1e-6)
    assert metrics["n"] == 2 * n


@pytest.mark.parametrize(
    "aggregator",
    [
        "mean",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("weighted_mean", "coordinate_median")),
    ],
)
def test_contract_order_and_padding_are_invisible(aggregator):
    algorithm, step = jitted("persistent", aggregator=aggregator, optimizer="momentum")
    padded = tiny.cohort((0, 1, 2, 3, 4, -1, -1))
    outs = []
    for order in ([0, 1, 2, 3, 4, 5, 6], [6, 3, 1, 5, 0, 4, 2]):
        state = round.init_state(algorithm, tiny.params(), 5)
        outs.append(step(state, tiny.examples(), permuted(padded, order), tiny.key()))
    tiny.close(*outs, atol=1e-5)
    state = round.init_state(algorithm, tiny.params(), 5)
    bare = step(state, tiny.examples(), tiny.cohort(), tiny.key())
    tiny.close(bare, outs[0], atol=1e-5)
    assert bare[1]["clients"] == 5


def test_client_state_is_written_by_identity_and_never_by_padding():
    algorithm, step = jitted("persistent", aggregator="weighted_mean", optimizer="momentum")
    before = round.init_state(algorithm, tiny.params(), 5)
    chosen = tiny.cohort((3, -1, 1, -1, -1, -1, -1))
    state, metrics = step(before, tiny.examples(), chosen, tiny.key())
    (trace,) = jax.tree.leaves(state.client_state)
    assert trace.shape == (5, 3)
    np.testing.assert_array_equal(np.abs(trace).sum(1) > 0, [False, True, False, True, False])
    assert metrics["clients"] == 2
    assert metrics["n"] == 3 * 8 + 17  # three epochs of client 3's 8 rows, one of client 1's 17


def test_a_rounds_randomness_depends_on_the_round():
    algorithm, step = jitted("fedavg", optimizer="sgd", lr=0.05)
    state = round.init_state(algorithm, tiny.params(), 5)
    cohort = tiny.cohort(steps=[1, 3, 5, 2, 4])
    a, _ = step(state, tiny.examples(), cohort, tiny.key())
    b, _ = step(state._replace(round=jnp.int32(1)), tiny.examples(), cohort, tiny.key())
    assert np.any(np.asarray(a.params["w"]) != np.asarray(b.params["w"]))


def serve(deltas, arrived=(True, True, True), ids=(2, 0, 4), sums=None):
    """A server half on given deltas, from a state with momentum in it."""
    algorithm, step = jitted_server()
    state = round.init_state(algorithm, tiny.params(), 5)
    moving = jax.tree.map(lambda leaf: leaf + 0.25, state.opt_state)
    state = state._replace(opt_state=moving)
    cohort = tiny.cohort(ids)._replace(weight=jnp.array([1.0, 1.0, 2.0]))
    local = round.Local(
        {"w": jnp.asarray(deltas, jnp.float32)},
        jax.tree.map(lambda leaf: leaf[:3] + 1, state.client_state),
        {"n": jnp.array([1.0, 10.0, 100.0])} if sums is None else sums,
    )
    return state, *step(state, cohort, local, jnp.array(arrived), tiny.key())


GOOD = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [-1.0, 0.0, 1.0]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e25])
def test_a_delta_that_is_not_finite_is_refused_and_counted(bad):
    deltas = np.array(GOOD)
    deltas[1, 2] = bad
    sums = {"n": jnp.array([1.0, np.nan, 100.0])}
    _, state, metrics = serve(deltas, sums=sums)
    _, without, _ = serve(GOOD, arrived=(True, False, True))
    tiny.equal(state.params, without.params)
    tiny.equal(metrics, {"absent": 0.0, "clients": 2.0, "refused": 1.0, "n": 101.0})


def test_a_delta_that_did_not_arrive_counts_for_nothing():
    before, state, metrics = serve(GOOD, arrived=(True, False, True))
    delta = (np.array(GOOD[0]) + 2 * np.array(GOOD[2])) / 3
    step = 0.5 * (delta - 0.9 * 0.25)
    np.testing.assert_allclose(state.params["w"] - before.params["w"], step, rtol=1e-5)
    tiny.equal(metrics, {"absent": 0.0, "clients": 2.0, "refused": 0.0, "n": 101.0})
    (trace,) = jax.tree.leaves(state.client_state)
    np.testing.assert_array_equal(trace[:, 0], [1, 0, 1, 0, 1])  # the clients' own state moved on


@pytest.mark.parametrize("deltas", [GOOD, np.full((3, 3), np.nan)])
def test_a_round_without_any_client_changes_only_its_number(deltas):
    arrived = (True, True, True) if np.isnan(deltas).any() else (False, False, False)
    before, state, metrics = serve(deltas, arrived)
    tiny.equal((before.params, before.opt_state), (state.params, state.opt_state))
    assert state.round == before.round + 1
    assert metrics["clients"] == 0
    assert metrics["refused"] == sum(arrived)
    assert metrics["n"] == 0


def test_a_client_never_keeps_a_state_that_is_not_finite():
    """A client whose own model diverges is refused, though it sends a delta of zero."""
    algorithm = tiny.algorithm("local_only", optimizer="sgd", lr=0.1)
    data = tiny.examples()
    a = int(tiny.OFFSET[1])
    data = data._replace(mos=data.mos.at[a : a + 17].set(jnp.inf))
    before = round.init_state(algorithm, tiny.params(), 5)
    step = jax.jit(round.make_round(algorithm))
    after, metrics = step(before, data, tiny.cohort(), tiny.key())
    assert (metrics["clients"], metrics["refused"]) == (4, 1)
    assert np.isfinite(metrics["loss"])
    old, new = before.client_state.params["w"], after.client_state.params["w"]
    np.testing.assert_array_equal((old != new).any(1), [True, False, True, True, True])
    tiny.equal(before.params, after.params)


def test_a_rule_that_weighs_sees_steps_of_the_parameters_whatever_travels():
    """SCAFFOLD's message is more than a delta; weights by its delta decide both of its parts."""

    def weigh(params, delta_of, deltas, weight):
        return weight * jax.vmap(lambda message: delta_of(message)["w"][0])(deltas)

    algorithm = tiny.algorithm("scaffold")._replace(weigh=weigh)
    state = round.init_state(algorithm, tiny.params(), 5)
    cohort = tiny.cohort((2, 0, 4))._replace(weight=jnp.array([1.0, 1.0, 2.0]))
    model = np.array([[1.0, 0.0, 2.0], [3.0, 5.0, 1.0], [0.5, 1.0, 1.0]], np.float32)
    deltas = {"model": {"w": jnp.asarray(model)}, "control": {"w": jnp.asarray(-2 * model)}}
    local = round.Local(deltas, {"w": jnp.ones((3, 3))}, {"n": jnp.ones(3)})
    server_fn = jax.jit(round.make_halves(algorithm)[1])
    after, _ = server_fn(state, cohort, local, jnp.ones(3, bool), tiny.key())
    mean = np.average(model, axis=0, weights=[1.0, 3.0, 1.0])
    tiny.close(after.params["w"], tiny.params()["w"] + mean)
    tiny.close(after.memory["w"], 3 / 5 * -2 * mean)


def test_one_trace_per_shape():
    loss = tiny.Loss()
    algorithm = tiny.algorithm(loss=loss)
    step = jax.jit(round.make_round(algorithm))
    state = round.init_state(algorithm, tiny.params(), 5)
    state, _ = step(state, tiny.examples(), tiny.cohort(), tiny.key())
    traces = loss.traces
    for cohort in (tiny.cohort((4, 3, -1, 1, 0), 2), tiny.cohort(steps=[9, 0, 1, 1, 1])):
        state, _ = step(state, tiny.examples(1), cohort, tiny.key(2))
    assert loss.traces == traces > 0


def test_a_metric_may_not_have_the_name_of_the_rounds_own():
    with pytest.raises(ValueError, match="'refused'"):
        serve(GOOD, sums={"refused": jnp.zeros(3)})


def test_init_state_shares_no_buffer():
    params = tiny.params()
    algorithm = tiny.algorithm("local_only")
    state = round.init_state(algorithm, params, 2)
    jax.tree.map(lambda leaf: leaf.delete(), state)
    np.testing.assert_array_equal(params["w"], tiny.params()["w"])
