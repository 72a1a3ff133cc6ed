"""The buffered server's plan, and rounds that follow it, against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoejax.fed import buffered
from qoejax.fed.participation import Participation
from tests.reference import fed_numpy

from . import tiny
from .test_round import reference_batches


@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 10), st.integers(0, 99), st.booleans())
def test_plan_keeps_its_rules(buffer, concurrency, spare, seed, timed):
    population = buffer + concurrency - 1 + spare
    seconds = np.random.default_rng(seed).uniform(0.5, 9, population) if timed else None
    plan = buffered.plan(
        population, rounds=12, buffer=buffer, concurrency=concurrency, seed=seed, seconds=seconds
    )
    assert plan.client.shape == plan.staleness.shape == (12, buffer)
    assert all(len(set(row)) == buffer for row in plan.client.tolist())
    assert 0 <= plan.client.min() <= plan.client.max() < population
    assert np.all(np.diff(plan.seconds) >= 0)
    assert np.all(plan.staleness >= 0)
    assert np.all(plan.staleness <= np.arange(12)[:, None])  # no model is older than the first


@pytest.mark.parametrize(("buffer", "concurrency"), [(1, 1), (1, 7), (4, 10), (10, 4)])
def test_mean_staleness_follows_from_counting(buffer, concurrency):
    """Each step of the server ages the models of all that still train: concurrency - 1 of them."""
    plan = buffered.plan(40, rounds=2000, buffer=buffer, concurrency=concurrency, seed=1)
    assert plan.staleness.mean() == pytest.approx((concurrency - 1) / buffer, abs=0.02)


def test_fast_clients_answer_more_often_and_a_limit_on_age_holds():
    seconds = np.where(np.arange(20) < 10, 1.0, 8.0)
    make = functools.partial(
        buffered.plan, 20, rounds=300, buffer=2, concurrency=6, seed=0, seconds=seconds
    )
    free, capped = make(), make(most_stale=3)
    fast = (free.client < 10).mean()
    assert 0.55 < fast < 1  # half the clients; at equal times half of the answers
    assert free.staleness.max() > 3 >= capped.staleness.max()
    assert (capped.client < 10).mean() > fast


def test_same_seed_same_plan():
    plans = [buffered.plan(9, rounds=9, buffer=2, concurrency=3, seed=s) for s in (0, 0, 1)]
    tiny.equal(plans[0], plans[1])
    assert (plans[0].client != plans[2].client).any()


def test_bad_plans_are_named():
    make = functools.partial(buffered.plan, 5, rounds=2, buffer=2, concurrency=2, seed=0)
    with pytest.raises(ValueError, match="at least 1 of rounds, buffer and concurrency"):
        make(buffer=0)
    with pytest.raises(ValueError, match="need 7 clients: expected as many, there are 5"):
        make(concurrency=6)
    with pytest.raises(ValueError, match="one finite time above 0"):
        make(seconds=np.zeros(5))


def test_rounds_equal_numpy():
    """Each client starts from the model of its age; its delta counts (1 + age) ** -0.5."""
    rounds, lr = 5, 0.02
    plan = buffered.plan(5, rounds=rounds, buffer=2, concurrency=4, seed=2)
    assert plan.staleness.max() >= 2
    eng = tiny.make_engine(
        name="fedavg", optimizer="sgd", cohort_size=2, weight="uniform",
        participation=Participation(schedule=plan), server_lr=1.0,
    )  # fmt: skip
    data = eng.place(tiny.examples())
    state, _ = eng.block(eng.init(tiny.params()), data, tiny.key(), rounds)
    models = [np.asarray(tiny.params()["w"], np.float64)]
    for number in range(rounds):
        cohort = jax.device_get(eng.cohort_for(jnp.int32(number), tiny.key()))
        np.testing.assert_array_equal(cohort.client_id, plan.client[number])
        rate = lr * 0.5 * (1 + np.cos(np.pi * number / 8))
        total = np.zeros(3)
        for drawn, age in zip(
            reference_batches(cohort, number), plan.staleness[number], strict=True
        ):
            start = models[number - age]
            total += (fed_numpy.descend(start, drawn, rate) - start) / np.sqrt(1 + age)
        models.append(models[-1] + total / 2)
    np.testing.assert_allclose(state.params["w"], models[-1], rtol=1e-4, atol=1e-5)

    again = eng.init(tiny.params())
    for n in (2, 3):  # resumed from host memory
        again, _ = eng.block(jax.device_get(again), data, tiny.key(), n)
    tiny.equal(again, state)
