"""Contract of every client update, closed forms, optimizers and schedules."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from qoejax.fed import client
from qoejax.fed.algorithms import CLIENT_UPDATES
from qoejax.fed.protocol import Turnout
from qoejax.types import Examples

from . import tiny

NAMES = list(CLIENT_UPDATES)
LOCAL = [CLIENT_UPDATES[name] for name in tiny.LOCAL]


@functools.cache
def jitted(name):
    """Update, its compiled form, and its loss; weight decay moves even without a gradient."""
    loss = tiny.Loss()
    update = tiny.update(name, loss, "adamw")
    return update, jax.jit(update.update), loss


def received(name):
    """What a server sends before the first round."""
    server, params = jitted(name)[0].server, tiny.params(name)
    return server.send(params, server.init(params))


def run(name, who, key=None, lr_scale=1.0, data=None):
    update, step, _ = jitted(name)
    state = update.init(tiny.params(name))
    data = tiny.examples() if data is None else data
    key = tiny.key() if key is None else key
    return step(received(name), state, data, who, key, jnp.float32(lr_scale))


def learnt(name, out):
    """How far the client's model moved, wherever the algorithm keeps it."""
    message, state, _ = out
    update, before = jitted(name)[0], tiny.params(name)
    turnout = Turnout(share=jnp.float32(0), steps=jnp.float32(1))
    delta, _ = update.server.absorb(before, update.server.init(before), message, turnout)
    after = jax.tree.map(jnp.add, before, delta)
    if update.personal is not None:
        after = update.personal(after, state)
    return jax.tree.map(jnp.subtract, after, before)


@pytest.mark.parametrize("name", NAMES)
def test_contract_nothing_to_do(name):
    """No steps or no rows: zero delta, zero sums, the state as it was."""
    update = jitted(name)[0]
    before = update.init(tiny.params(name))
    nothing = optax.tree.zeros_like(update.server.message(tiny.params(name)))
    for who in (tiny.one(steps=0), tiny.one()._replace(count=jnp.int32(0))):
        message, state, sums = run(name, who)
        tiny.equal(message, nothing)
        tiny.equal(state, before)
        tiny.equal(sums, {"loss": 0.0, "n": 0.0})


@pytest.mark.parametrize("name", NAMES)
def test_contract_learns_from_own_rows_only(name):
    base = run(name, tiny.one())
    assert np.abs(learnt(name, base)["w"]).max() > 0.01
    data = tiny.examples()
    a = int(tiny.OFFSET[2])
    own = (np.arange(len(data.label)) >= a) & (np.arange(len(data.label)) < a + tiny.COUNT[2])
    other = data._replace(x=jnp.where(own[:, None, None], data.x, 1e6))
    tiny.equal(run(name, tiny.one(), data=other), base)


@pytest.mark.parametrize("name", NAMES)
def test_contract_counts_each_row_once_an_epoch(name):
    for who, n in ((tiny.one(0, 1), 5), (tiny.one(1, 3), 17), (tiny.one(2, 10), 80)):
        assert run(name, who)[2]["n"] == n


@pytest.mark.parametrize("name", NAMES)
def test_contract_rows_of_weight_zero_are_invisible(name):
    data = tiny.examples()
    last = int(tiny.OFFSET[2]) + np.arange(32, 40)
    blank = data._replace(weight=data.weight.at[last].set(0.0))
    other = blank._replace(x=blank.x.at[last].set(7.0), mos=blank.mos.at[last].set(-7.0))
    out = run(name, tiny.one(steps=5), data=blank)
    assert out[2]["n"] == 32
    tiny.close(out, run(name, tiny.one(steps=5), data=other))


@pytest.mark.parametrize("name", NAMES)
def test_contract_key_and_rate_matter(name):
    base = learnt(name, run(name, tiny.one()))["w"]
    assert np.any(base != learnt(name, run(name, tiny.one(), jax.random.key(1)))["w"])
    still = learnt(name, run(name, tiny.one(), lr_scale=0.0))
    tiny.equal(still, optax.tree.zeros_like(still))
    half, whole = (
        learnt(name, run(name, tiny.one(steps=1), lr_scale=scale)) for scale in (0.5, 1.0)
    )
    tiny.close(optax.tree.scale(2.0, half), whole)


@pytest.mark.parametrize("name", NAMES)
def test_contract_one_trace_serves_all_sizes(name):
    loss = jitted(name)[2]
    run(name, tiny.one())
    before = loss.traces
    for client_id, steps in ((0, 1), (1, 7), (4, 0)):
        run(name, tiny.one(client_id, steps))
    assert before == loss.traces > 0


@pytest.mark.parametrize(("name", "mu"), [("fedavg", 0.0), ("persistent", 0.0), ("fedprox", 0.5)])
def test_closed_form_on_a_quadratic(name, mu):
    """Steps on 1/2 |w - t|^2 contract by 1 - lr (1 + mu) towards (t + mu w0) / (1 + mu)."""

    def loss(params, batch, key):
        error = params["w"] - jnp.array([3.0, 1.0, -2.0])
        return 0.5 * error @ error, {"n": batch.weight.sum()}

    kwargs = {"mu": mu} if name == "fedprox" else {}
    update = tiny.update(name, loss, lr=0.1, **kwargs)
    w0 = tiny.params()
    delta, _, _ = update.update(
        w0, update.init(w0), tiny.examples(), tiny.one(steps=7), tiny.key(), jnp.float32(1)
    )
    target = (np.array([3.0, 1.0, -2.0]) + mu * np.asarray(w0["w"])) / (1 + mu)
    factor = 1 - (1 - 0.1 * (1 + mu)) ** 7
    tiny.close(delta, {"w": factor * (target - np.asarray(w0["w"]))})


def test_a_step_has_its_own_key():
    """Sums of a draw per step: as many different numbers as steps, and the same when run again."""

    def loss(params, batch, key):
        draw = jnp.round(jax.random.uniform(key) * 1000)
        return 0.0 * params["w"].sum(), {"draw": draw, "square": draw**2}

    update = tiny.update("fedavg", loss)
    step = jax.jit(update.update)
    args = (tiny.params(), (), tiny.examples())
    out = [step(*args, tiny.one(steps=s), tiny.key(), jnp.float32(1))[2] for s in (1, 2, 3)]
    draws = np.diff([0.0, *(float(o["draw"]) for o in out)])
    assert len(set(draws)) == 3
    np.testing.assert_allclose((draws**2).sum(), float(out[2]["square"]), rtol=1e-6)


def test_persistent_keeps_what_fedavg_forgets():
    """A client's optimizer carries over the round border, as if there were none."""
    data, who = tiny.examples(), tiny.one(0, 2)  # 5 rows: every batch is a full batch
    whole = run("persistent", tiny.one(0, 4))[0]["w"]
    for name, same in (("persistent", True), ("fedavg", False)):
        update, step, _ = jitted(name)
        params = tiny.params()
        first, state, _ = step(params, update.init(params), data, who, tiny.key(), jnp.float32(1))
        middle = jax.tree.map(jnp.add, params, first)
        second, _, _ = step(middle, state, data, who, tiny.key(), jnp.float32(1))
        assert np.allclose(first["w"] + second["w"], whole, rtol=1e-5) == same


def test_local_only_ignores_the_global_model():
    update, step, _ = jitted("local_only")
    state = update.init(tiny.params())
    moved = {"w": jnp.full(3, 9.0)}
    rest = (state, tiny.examples(), tiny.one())
    out = [step(p, *rest, tiny.key(), jnp.float32(1)) for p in (moved, tiny.params())]
    tiny.equal(*out)


@pytest.mark.parametrize("name", client.OPTIMIZERS)
def test_optimizers_have_unit_rate_clip_and_decay(name):
    make = client.OPTIMIZERS[name]
    w, g = {"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([30.0, 40.0])}

    def first(grads, **kwargs):
        opt = make(**kwargs)
        return np.asarray(opt.update(grads, opt.init(w), w)[0]["w"])

    plain = first(g, weight_decay=0.0)
    expected = [-1.0, -1.0] if name.startswith("adam") else [-30.0, -40.0]
    np.testing.assert_allclose(plain, expected, rtol=1e-5)
    clipped = make(clip=5.0, weight_decay=0.0)
    small = make(weight_decay=0.0)
    same = small.update({"w": jnp.array([3.0, 4.0])}, small.init(w), w)
    tiny.close(clipped.update(g, clipped.init(w), w)[0], same[0])
    decayed = first(optax.tree.zeros_like(g), weight_decay=0.1)
    np.testing.assert_allclose(decayed, [-1, -1] if name == "adam" else [-0.3, -0.4], rtol=1e-5)
    with pytest.raises(ValueError, match="weight_decay"):
        make(weight_decay=-1.0)
    with pytest.raises(ValueError, match="clip"):
        make(clip=-1.0)


def test_schedules():
    values = {
        name: np.array([float(make(10)(jnp.int32(r))) for r in range(12)])
        for name, make in client.SCHEDULES.items()
    }
    np.testing.assert_array_equal(values["constant"], 1.0)
    wave = 0.5 * (1 + np.cos(np.pi * np.minimum(np.arange(12), 10) / 10))
    np.testing.assert_allclose(values["cosine"], wave, atol=1e-6)
    assert client.cosine(10, floor=0.2)(jnp.int32(10)) == pytest.approx(0.2)
    warm = values["warmup_cosine"]
    assert warm[0] == pytest.approx(0.5)
    assert warm[1] == pytest.approx(1.0)
    assert np.all(np.diff(warm[1:11]) < 0)
    assert client.warmup_cosine(1)(jnp.int32(0)) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="warmup"):
        client.warmup_cosine(3, warmup=3)


def test_bad_arguments_are_named():
    for kwargs, word in (({"lr": -1.0}, "lr"), ({"lr": 1.0, "batch_size": 0}, "batch_size")):
        for make in CLIENT_UPDATES.values():
            local = {"personal": ("b",)} if make in LOCAL else {}
            with pytest.raises(ValueError, match=word):
                make(tiny.Loss(), client.sgd(), **{"batch_size": 8, **kwargs, **local})
    with pytest.raises(ValueError, match="mu"):
        tiny.update("fedprox", mu=-0.1)


def test_draw_weights_places_without_a_row_zero():
    data = tiny.examples()
    batch = client.draw(data, tiny.one(0), tiny.key(), jnp.int32(0), tiny.BATCH)
    assert isinstance(batch, Examples)
    np.testing.assert_array_equal(np.sort(batch.weight), [0, 0, 0, 1, 1, 1, 1, 1])
    rows = np.sort(np.asarray(batch.mos[:, 0])[np.asarray(batch.weight) > 0])
    np.testing.assert_array_equal(rows, np.sort(np.asarray(data.mos[:5, 0])))
