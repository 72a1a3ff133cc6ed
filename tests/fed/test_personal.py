"""Models of the clients' own: what stays, what travels, and whose it is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.fed import client, round
from qoejax.fed.personal import fedper
from tests.reference import fed_numpy

from . import tiny
from .test_round import reference_batches

STEPS = [1, 3, 5, 2, 4]
PERSONAL = ("fedper", "fedrep", "ditto", "local_only")


@functools.cache
def jitted(name, **kwargs):
    algorithm = tiny.algorithm(name, loss=tiny.Loss(), lr=0.05, **kwargs)
    return algorithm, jax.jit(round.make_round(algorithm))


@functools.cache
def one_round(name, ids=(0, 1, 2, 3, 4), **kwargs):
    algorithm, step = jitted(name, **kwargs)
    before = round.init_state(algorithm, tiny.params(name), 5)
    cohort = tiny.cohort(ids, steps=np.array(STEPS)[list(ids)])
    return before, step(before, tiny.examples(), cohort, tiny.key())[0]


def models(name, state):
    personal = jitted(name)[0].client.personal
    return jax.vmap(personal, in_axes=(None, 0))(state.params, state.client_state)


@pytest.mark.parametrize("name", PERSONAL)
def test_contract_models_begin_equal_and_part(name):
    before, after = one_round(name)
    whole = jax.tree.map(lambda p: np.broadcast_to(p, (5, *p.shape)), tiny.params(name))
    tiny.equal(models(name, before), whole)
    (first, *_) = jax.tree.leaves(models(name, after))
    assert len({row.tobytes() for row in np.asarray(first)}) == 5


@pytest.mark.parametrize("name", PERSONAL)
def test_contract_who_is_not_asked_keeps_the_own_part(name):
    before, after = one_round(name, ids=(1, 3))
    for old, new in zip(
        jax.tree.leaves(before.client_state), jax.tree.leaves(after.client_state), strict=True
    ):
        tiny.equal(old[jnp.array([0, 2, 4])], new[jnp.array([0, 2, 4])])


@pytest.mark.parametrize("name", tiny.LOCAL)
def test_local_parameters_never_travel(name):
    before, after = one_round(name)
    server = jitted(name)[0].client.server
    for tree in (server.message(before.params), server.send(before.params, ())):
        assert list(jax.tree.leaves(tree)) != []
        assert tree["b"] is None
    tiny.equal(after.params["b"], before.params["b"])
    assert np.all(after.params["w"] != before.params["w"])
    assert after.client_state["w"] is None


def test_fedper_equals_training_everything_and_sharing_part():
    """One round: each client as FedAvg would leave it; the shared part averaged, b kept."""
    _, after = one_round("fedper")
    batches = reference_batches(tiny.cohort(steps=STEPS), 0)
    start = np.append(np.asarray(tiny.params()["w"], np.float64), 0.25)
    ends = [fed_numpy.descend(start, with_intercept(own), 0.05) for own in batches]
    np.testing.assert_allclose(after.client_state["b"], [e[3] for e in ends], rtol=1e-4)
    mean = np.average([e[:3] for e in ends], axis=0, weights=tiny.COUNT)
    np.testing.assert_allclose(after.params["w"], mean, rtol=1e-4)


def with_intercept(batches):
    return [(np.hstack([x, np.ones((len(x), 1))]), y) for x, y in batches]


def test_fedrep_moves_the_head_first_then_the_body():
    """Of s steps the first ceil(s / 2) move b alone, the rest w alone."""
    _, after = one_round("fedrep")
    w0, heads, bodies = np.asarray(tiny.params()["w"], np.float64), [], []
    for own in reference_batches(tiny.cohort(steps=STEPS), 0):
        b, w, turn = 0.25, w0, -(-len(own) // 2)
        for i, (x, y) in enumerate(own):
            error = x @ w + b - y
            b, w = (
                (b - 0.05 * error.mean(), w) if i < turn else (b, w - 0.05 * x.T @ error / len(y))
            )
        heads.append(b)
        bodies.append(w)
    np.testing.assert_allclose(after.client_state["b"], heads, rtol=1e-4)
    np.testing.assert_allclose(
        after.params["w"], np.average(bodies, axis=0, weights=tiny.COUNT), rtol=1e-4
    )


def test_dittos_global_model_is_fedavgs_to_the_bit():
    tiny.equal(one_round("ditto")[1].params, one_round("fedavg")[1].params)


def test_ditto_in_closed_form_on_a_quadratic():
    """v contracts by 1 - lr (1 + mu) towards (t + mu w) / (1 + mu), as FedProx from w would."""
    target, mu = np.array([3.0, 1.0, -2.0]), 0.5

    def loss(params, batch, key):
        error = params["w"] - jnp.asarray(target, jnp.float32)
        return 0.5 * error @ error, {"n": batch.weight.sum()}

    update = tiny.update("ditto", loss, mu=mu)
    w, v = tiny.params(), {"w": jnp.array([1.0, 1.0, 1.0])}
    _, own, _ = update.update(w, v, tiny.examples(), tiny.one(steps=7), tiny.key(), jnp.float32(1))
    goal = (target + mu * np.asarray(w["w"])) / (1 + mu)
    tiny.close(own["w"], goal + (1 - 0.1 * (1 + mu)) ** 7 * (np.asarray(v["w"]) - goal))


def test_bad_patterns_are_named():
    for patterns, words in ((("c*",), "no parameter fits 'c\\*'"), (("*",), "2 of 2 parameters")):
        made = fedper(tiny.Loss(), client.sgd(), lr=0.1, batch_size=8, personal=patterns)
        with pytest.raises(ValueError, match=words):
            made.init(tiny.params("fedper"))
    with pytest.raises(ValueError, match="0 < head_share < 1"):
        tiny.update("fedrep", head_share=1.0)
    with pytest.raises(ValueError, match="mu >= 0"):
        tiny.update("ditto", mu=-1.0)
