"""Algorithms against drift: against NumPy, and on quadratics, whose optimum is known.

Client i has ``a_i/2 |w - t_i|^2``, elementwise, so ``s`` steps at rate r contract its error by
``(1 - r a_i) ** s``, and the optimum of the federation is the mean of t_i weighted by p_i a_i.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.fed import round
from qoejax.fed.protocol import Turnout
from tests.reference import fed_numpy

from . import tiny
from .test_round import reference_batches

LR = 0.05
CURVATURE = np.array([0.5, 1.0, 2.0, 4.0, 1.5])
TARGET = np.random.default_rng(5).normal(size=(5, 3)) * 3
STEPS = np.array([2, 9, 5, 12, 3], np.int32)
P = tiny.COUNT / tiny.COUNT.sum()
OPTIMUM = (P * CURVATURE) @ TARGET / (P @ CURVATURE)


def quadratic(params, batch, key):
    """Rows are labelled with their client, so every batch has that client's gradient."""
    curvature = jnp.asarray(CURVATURE, jnp.float32)[batch.label[0]]
    error = params["w"] - jnp.asarray(TARGET, jnp.float32)[batch.label[0]]
    return 0.5 * curvature * (error @ error), {"n": batch.weight.sum()}


def labelled():
    return tiny.examples()._replace(label=jnp.asarray(np.repeat(np.arange(5), tiny.COUNT)))


@functools.cache
def jitted(name, loss=quadratic, lr=LR, **kwargs):
    """An algorithm, and a number of its rounds, which is traced."""
    algorithm = tiny.algorithm(name, loss=loss, lr=lr, **kwargs)
    one = round.make_round(algorithm)

    @jax.jit
    def rounds(state, data, cohort, key, number):
        return jax.lax.fori_loop(0, number, lambda _, s: one(s, data, cohort, key)[0], state)

    return algorithm, rounds


def play(name, rounds, steps=STEPS, **kwargs):
    algorithm, run = jitted(name, **kwargs)
    state = round.init_state(algorithm, tiny.params(), 5)
    return run(state, labelled(), tiny.cohort(steps=steps), tiny.key(), rounds)


def weights(state):
    return np.asarray(state.params["w"], np.float64)


@pytest.mark.slow
def test_what_averaging_converges_to_and_the_others_do_not():
    """FedAvg ends at the mean of t_i weighted by p_i (1 - contraction_i); SCAFFOLD at the optimum.

    FedNova's weights are these per step, which for small steps are p_i a_i.
    """
    reach = 1 - (1 - LR * CURVATURE) ** STEPS
    biased = (P * reach) @ TARGET / (P @ reach)
    assert np.abs(biased - OPTIMUM).max() > 0.2
    tiny.close(weights(play("fedavg", 300)), biased, rtol=1e-4, atol=1e-4)
    per_step = reach / STEPS
    fairer = (P * per_step) @ TARGET / (P @ per_step)
    tiny.close(weights(play("fednova", 300)), fairer, rtol=1e-4, atol=1e-4)
    tiny.close(weights(play("scaffold", 400)), OPTIMUM, rtol=1e-3, atol=1e-3)
    tiny.close(weights(play("feddyn", 600, alpha=0.5)), OPTIMUM, rtol=1e-3, atol=1e-3)


def test_with_equal_steps_fednova_is_fedavg():
    tiny.close(play("fednova", 3, steps=4).params, play("fedavg", 3, steps=4).params)


def test_scaffold_at_the_optimum_rests_with_the_clients_own_gradients():
    state = play("scaffold", 400)
    slope = CURVATURE[:, None] * (weights(state) - TARGET)
    tiny.close(state.client_state["w"], slope, rtol=1e-2, atol=1e-2)
    tiny.close(state.memory["w"], P @ slope, atol=1e-2)


def test_scaffold_one_round_in_closed_form():
    """From zero controls: y as FedAvg's; c_i the mean gradient on the way; c their mean."""
    w0 = np.asarray(tiny.params()["w"], np.float64)
    state = play("scaffold", 1)
    ends = TARGET + (1 - LR * CURVATURE[:, None]) ** STEPS[:, None] * (w0 - TARGET)
    own = (w0 - ends) / (STEPS[:, None] * LR)
    tiny.close(weights(state), P @ ends, rtol=1e-4)
    tiny.close(state.client_state["w"], own, rtol=1e-4, atol=1e-4)
    tiny.close(state.memory["w"], P @ own, rtol=1e-4, atol=1e-4)
    exact = play("scaffold", 1, option="gradient")
    tiny.close(exact.client_state["w"], CURVATURE[:, None] * (w0 - TARGET), rtol=1e-4, atol=1e-4)


def test_feddyn_one_round_in_closed_form():
    """A client contracts by 1 - lr (a + alpha) towards (a t + alpha w) / (a + alpha)."""
    alpha, w0 = 0.5, np.asarray(tiny.params()["w"], np.float64)
    a = CURVATURE[:, None]
    goal = (a * TARGET + alpha * w0) / (a + alpha)
    ends = goal + (1 - LR * (a + alpha)) ** STEPS[:, None] * (w0 - goal)
    state = play("feddyn", 1, alpha=alpha)
    h = -alpha * P @ (ends - w0)
    tiny.close(weights(state), P @ ends - h / alpha, rtol=1e-4, atol=1e-4)
    tiny.close(state.client_state["w"], -alpha * (ends - w0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["scaffold", "feddyn"])
def test_the_servers_memory_moves_by_the_share_of_clients_that_counted(name):
    algorithm, step = jitted(name)
    state, data = round.init_state(algorithm, tiny.params(), 5), labelled()
    few = tiny.cohort((3, -1, 1, -1, -1), steps=4)
    after = step(state, data, few, tiny.key(), 1)
    new = np.asarray(after.client_state["w"])
    assert (np.abs(new).sum(1) > 0).tolist() == [False, True, False, True, False]
    share = np.average(new[[3, 1]], axis=0, weights=tiny.COUNT[[3, 1]]) * 2 / 5
    tiny.close(after.memory["w"], share, rtol=1e-4, atol=1e-5)


def test_scaffold_and_feddyn_with_nobody_change_nothing():
    for name in ("scaffold", "feddyn"):
        algorithm, step = jitted(name)
        state = round.init_state(algorithm, tiny.params(), 5)
        after = step(state, labelled(), tiny.cohort((-1,) * 5), tiny.key(), 1)
        tiny.equal(state._replace(round=jnp.int32(1)), after)


def test_two_rounds_on_real_batches_equal_numpy():
    cohort = tiny.cohort(steps=[1, 3, 5, 2, 4])
    w0 = np.asarray(tiny.params()["w"], np.float64)
    zeros = [np.zeros(3)] * 5
    loss = tiny.Loss()
    ref = {"scaffold": (w0, np.zeros(3), zeros), "feddyn": (w0, np.zeros(3), zeros)}
    ref |= {"fednova": (w0,), "shared_moments": (w0, np.zeros(3), np.zeros(3), 0.0)}
    play_one = {
        "scaffold": lambda s, b: fed_numpy.scaffold_round(*s, b, tiny.COUNT, LR),
        "feddyn": lambda s, b: fed_numpy.feddyn_round(*s, b, tiny.COUNT, LR, 0.5),
        "fednova": lambda s, b: (fed_numpy.fednova_round(*s, b, tiny.COUNT, LR),),
        "shared_moments": lambda s, b: fed_numpy.shared_moments_round(*s, b, tiny.COUNT, LR),
    }
    kwargs = {"feddyn": {"alpha": 0.5}, "shared_moments": {"optimizer": "adam"}}
    batches = [reference_batches(cohort, number) for number in range(2)]
    for name, state in ref.items():
        algorithm, step = jitted(name, loss=loss, **kwargs.get(name, {}))
        ours = round.init_state(algorithm, tiny.params(), 5)
        for drawn in batches:
            ours = step(ours, tiny.examples(), cohort, tiny.key(), 1)
            state = play_one[name](state, drawn)
            np.testing.assert_allclose(ours.params["w"], state[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_shared_moments_of_clients_alike_are_those_of_one_in_one_place(optimizer):
    """Where all have the same gradient, rounds of one step are steps of one optimizer."""

    def loss(params, batch, key):
        error = params["w"] - jnp.array([3.0, 1.0, -2.0])
        return 0.5 * error @ error, {"n": batch.weight.sum()}

    algorithm, rounds = jitted("shared_moments", loss=loss, optimizer=optimizer)
    state = round.init_state(algorithm, tiny.params(), 5)
    state = rounds(state, labelled(), tiny.cohort(steps=1), tiny.key(), 6)
    step, w = fed_numpy.OPTIMIZERS[optimizer](), np.asarray(tiny.params()["w"], np.float64)
    for _ in range(6):
        w = w + LR * step(w - np.array([3.0, 1.0, -2.0]))
    np.testing.assert_allclose(weights(state), w, rtol=1e-5, atol=1e-6)
    assert state.memory["steps"] == 6


def test_shared_second_moments_stay_above_zero_whatever_arrives():
    server = tiny.update("shared_moments", optimizer="adam").server
    memory = server.init(tiny.params())
    message = jax.tree.map(lambda a: -jnp.ones_like(a), server.message(tiny.params()))
    turnout = Turnout(share=jnp.float32(1), steps=jnp.float32(2))
    _, after = server.absorb(tiny.params(), memory, message, turnout)
    assert np.all(np.asarray(after["moments"]["nu"]) == 0)
    assert np.all(np.asarray(after["moments"]["mu"]) == -1)
    assert after["steps"] == 2


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="option is 'II'"):
        tiny.update("scaffold", option="II")
    with pytest.raises(ValueError, match="alpha > 0"):
        tiny.update("feddyn", alpha=0.0)
