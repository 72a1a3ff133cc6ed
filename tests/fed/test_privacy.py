"""Clipping bounds what one record adds, and noise is as large as is accounted for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoejax.fed import client, privacy, round, server
from tests.reference import fed_numpy

from . import tiny

CLIP = 0.7


@functools.cache
def stepped(noise, microbatch=0):
    """(gradient, sums) of one step, as a compiled function of (data, who, seed)."""
    gradient = privacy.example_level(
        tiny.Loss(), batch_size=8, clip=CLIP, noise=noise, microbatch=microbatch
    )

    def one(data, who, key):
        return gradient.fn(tiny.params(), data, who, tuple(jax.random.split(key)), jnp.int32(0))

    return jax.jit(one)


# A client of at most a batch of rows: all are in every draw, so the sum has a closed form.


def test_gradient_is_the_mean_of_clipped_rows():
    data = jax.device_get(tiny.examples())
    got, sums = stepped(1e-6)(tiny.examples(), tiny.one(0), tiny.key())
    rows = [
        fed_numpy.gradient(np.asarray(tiny.params()["w"]), (data.x[i : i + 1, 0], data.mos[i, :1]))
        for i in range(5)
    ]
    short = [g * min(1, CLIP / np.linalg.norm(g)) for g in rows]
    assert any(np.linalg.norm(g) > CLIP for g in rows)
    np.testing.assert_allclose(got["w"], np.mean(short, axis=0), atol=1e-5)
    assert sums["n"] == 5


def test_microbatches_are_invisible():
    """All of a client's rows are in the draw, and there is next to no noise."""
    whole = stepped(1e-6)(tiny.examples(), tiny.one(0), tiny.key())
    tiny.close(stepped(1e-6, 4)(tiny.examples(), tiny.one(0), tiny.key()), whole, atol=1e-5)


@pytest.mark.parametrize("wild", [1e6, np.inf, np.nan])
def test_one_row_moves_the_sum_by_at_most_the_bound(wild):
    """Replacing a row by a null one: 5 * 0.7 / 5 at most, whatever the row holds."""
    data = tiny.examples()
    bad = data._replace(mos=data.mos.at[2].set(wild))
    null = data._replace(weight=data.weight.at[2].set(0.0))
    step = stepped(1e-6)
    with_it, _ = step(bad, tiny.one(0), tiny.key())
    without, _ = step(null, tiny.one(0), tiny.key())
    moved = np.linalg.norm(np.asarray(with_it["w"] - without["w"]))
    assert np.isfinite(moved)
    assert moved <= CLIP / 5 * (1 + 1e-4)


def noise_of(noise, tries=1500):
    step = jax.vmap(lambda key: stepped(noise)(tiny.examples(), tiny.one(0), key)[0]["w"])
    out = np.asarray(step(jax.random.split(tiny.key(), tries)))
    return 5 * (out - out.mean(0))  # of the sum: 5 rows


def test_noise_of_a_step_is_that_of_the_accountant():
    """Standard deviation noise * clip, with a margin of 4 standard errors; half of it fails."""
    expected = 1.5 * CLIP
    margin = 4 / np.sqrt(2 * 1500 * 3)
    assert noise_of(1.5).std() == pytest.approx(expected, rel=margin)
    assert noise_of(0.75).std() != pytest.approx(expected, rel=margin)


def test_steps_and_clients_have_noise_of_their_own():
    update = client.fedavg(
        privacy.example_level(tiny.Loss(), batch_size=8, clip=1e-6, noise=1e6),
        client.OPTIMIZERS["sgd"](), lr=1.0, batch_size=8,
    )  # fmt: skip
    step = jax.jit(update.update)
    args = (tiny.params(), (), tiny.examples())
    out = [
        step(*args, tiny.one(0, s), tiny.key(k), jnp.float32(1))[0]["w"]
        for s, k in ((1, 0), (2, 0), (1, 1))
    ]
    first, second = out[0], out[1] - out[0]
    assert np.abs(first).min() > 1e-4
    assert np.abs(first - second).min() > 1e-4
    assert np.abs(first - out[2]).min() > 1e-4


def test_rows_are_drawn_at_the_rate_of_the_accountant():
    """Client 2 has 40 rows, batches of 8: rate 0.2, sizes binomial, not fixed."""
    step = jax.vmap(lambda key: stepped(1.0)(tiny.examples(), tiny.one(2), key)[1]["n"])
    n = np.asarray(step(jax.random.split(tiny.key(), 2000)))
    assert n.mean() == pytest.approx(8, abs=4 * np.sqrt(6.4 / 2000))
    assert n.var() == pytest.approx(6.4, rel=0.15)


# The server's mean.


def deltas_of(rows):
    rows = np.asarray(rows, np.float32)
    return {"w": jnp.asarray(rows[:, :3]), "b": jnp.asarray(rows[:, 3])}


@functools.cache
def aggregator(noise, clients=4.0, bands=0):
    matrix = privacy.noising(privacy.square_root(bands)) if bands else None
    made = privacy.user_level(clip=CLIP, noise=noise, clients=clients, matrix=matrix)
    return made, jax.jit(functools.partial(made.update, params=None))


def combined(rows, weight, noise=1e-9, seed=0):
    made, update = aggregator(noise)
    deltas = deltas_of(rows)
    state = made.init(jax.tree.map(lambda d: d[0], deltas))
    out, _ = update(deltas, state, weight=jnp.asarray(weight, jnp.float32), key=tiny.key(seed))
    return np.concatenate([np.asarray(out["w"]), [np.asarray(out["b"])]])


vectors = st.lists(st.floats(-1e6, 1e6, width=32), min_size=4, max_size=4)


@given(st.lists(vectors, min_size=5, max_size=5), st.integers(0, 4))
def test_one_client_moves_the_mean_by_at_most_its_share(rows, who):
    """Whatever it sends, and whatever the others did."""
    weight = np.ones(5)
    null = np.where(np.arange(5) == who, 0, weight)
    moved = np.linalg.norm(combined(rows, weight) - combined(rows, null))
    assert moved <= CLIP / 4 * (1 + 1e-5)


def test_without_the_bound_one_client_moves_it_at_will():
    """The negative control of the test above: the plain mean."""
    rows = np.zeros((5, 4))
    rows[1] = 1e6
    assert np.linalg.norm(rows.mean(0)) > CLIP / 4


def test_short_deltas_are_averaged_with_equal_weight_by_the_expected_number():
    rows = np.eye(5, 4) * 0.1
    np.testing.assert_allclose(combined(rows, [1, 9, 3, 0, 1]), [0.025, 0.025, 0.025, 0], atol=1e-6)


def test_noise_of_the_mean_is_that_of_the_accountant_and_comes_without_clients():
    _, update = aggregator(2.0)
    zero = deltas_of(np.zeros((5, 4)))
    one = lambda key, w: update(zero, (), weight=w, key=key)[0]["w"]  # noqa: E731
    for weight in (jnp.ones(5), jnp.zeros(5)):
        keys = jax.random.split(tiny.key(), 1500)
        draws = np.asarray(jax.vmap(one, in_axes=(0, None))(keys, weight))
        margin = 4 / np.sqrt(2 * draws.size)
        assert draws.std() == pytest.approx(2.0 * CLIP / 4, rel=margin)
        assert draws.std() != pytest.approx(2.2 * CLIP / 4, rel=margin)


def test_a_round_adds_noise_though_nobody_came():
    """Else the models would say who was drawn."""
    made = privacy.user_level(clip=CLIP, noise=1.0, clients=4.0)
    algorithm = round.Algorithm(tiny.update("fedavg"), made, server.sgd(), client.constant(1))
    state = round.init_state(algorithm, tiny.params(), 5)
    step = jax.jit(round.make_round(algorithm))
    after, metrics = step(state, tiny.examples(), tiny.cohort((-1, -1)), tiny.key())
    assert metrics["clients"] == 0
    assert np.abs(np.asarray(after.params["w"]) - np.asarray(state.params["w"])).min() > 1e-4


# Correlated noise.


@pytest.mark.parametrize(("bands", "rounds"), [(1, 6), (3, 8)])
def test_noise_is_that_of_the_inverse_strategy(bands, rounds):
    """C times the noise of all rounds is fresh noise: uncorrelated, of the stated size."""
    made, update = aggregator(1.0, 1.0, bands)
    zero = deltas_of(np.zeros((1, 4)))
    first = made.init(jax.tree.map(lambda d: d[0], zero))

    def run(key):
        def one(state, i):
            k = jax.random.fold_in(key, i)
            out, state = update(zero, state, weight=jnp.ones(1), key=k)
            return state, out["w"]

        return jax.lax.scan(one, first, jnp.arange(rounds))[1]

    noise = np.asarray(jax.jit(jax.vmap(run))(jax.random.split(tiny.key(), 4000)))
    strategy = np.zeros((rounds, rounds))
    for i, c in enumerate(np.asarray(privacy.square_root(bands))):
        strategy += c * np.eye(rounds, k=-i)
    fresh = np.einsum("ij,njd->nid", strategy, noise).transpose(1, 0, 2).reshape(rounds, -1)
    np.testing.assert_allclose(np.cov(fresh), CLIP**2 * np.eye(rounds), atol=0.03)
    if bands > 1:
        raw = np.cov(noise.transpose(1, 0, 2).reshape(rounds, -1))
        assert raw[0, 1] < -0.1  # neighbours cancel: sums have less noise


@pytest.mark.parametrize(("clip", "noise"), [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0)])
def test_no_bound_or_no_noise_is_refused(clip, noise):
    with pytest.raises(ValueError, match="above 0"):
        privacy.user_level(clip=clip, noise=noise, clients=2.0)
    with pytest.raises(ValueError, match="above 0"):
        privacy.example_level(tiny.Loss(), batch_size=8, clip=clip, noise=noise)
