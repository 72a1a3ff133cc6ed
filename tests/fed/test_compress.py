"""Contract of every compressor, and each one's own promise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from qoejax.fed import attacks, client, compress, round, server
from qoejax.fed.aggregate import AGGREGATORS
from qoejax.fed.protocol import layout

from . import tiny

NAMES = list(compress.COMPRESSORS)
RNG = np.random.default_rng(5)


def delta_of(seed=0):
    """Sizes that fill neither a byte nor a block; one matrix that low rank can shrink."""
    rng = np.random.default_rng(seed)
    return {
        "b": jnp.asarray(rng.normal(size=7), jnp.float32),
        "c": jnp.asarray(rng.normal(), jnp.float32),
        "m": jnp.asarray(rng.normal(size=(3, 8, 13)), jnp.float32),
    }


def make(name, feedback=False):
    made = compress.COMPRESSORS[name](fraction=0.2, rank=2)
    return compress.with_feedback(made) if feedback else made


@functools.cache
def jitted(name, feedback=False):
    made = make(name, feedback)
    return made.init, jax.jit(made.update), jax.jit(made.decode)


def sent(name, delta, seed=0):
    init, update, decode = jitted(name)
    return decode(update(delta, init(delta), jax.random.key(seed))[0], delta)


def norm(tree):
    return float(optax.tree.norm(tree))


@pytest.mark.parametrize("name", NAMES)
def test_contract_message_is_smaller_and_decodes_to_the_shape(name):
    delta = delta_of()
    message, _ = jitted(name)[1](delta, jitted(name)[0](delta), tiny.key())
    raw = 4 * sum(leaf.size for leaf in jax.tree.leaves(delta))
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(message)) < 0.6 * raw
    out = sent(name, delta)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), out) == jax.tree.map(
        lambda a: (a.shape, a.dtype), delta
    )


@pytest.mark.parametrize("name", NAMES)
def test_contract_error_is_shorter_than_the_delta_and_zero_stays_zero(name):
    delta = delta_of()
    error = norm(jax.tree.map(jnp.subtract, sent(name, delta), delta))
    assert error < norm(delta)
    zero = optax.tree.zeros_like(delta)
    tiny.equal(sent(name, zero), zero)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_contract_a_delta_that_is_not_finite_stays_so(name, bad):
    delta = delta_of()
    delta["m"] = delta["m"].at[1, 2, 3].set(bad)
    assert not np.isfinite(norm(sent(name, delta)))


@pytest.mark.parametrize("name", NAMES)
def test_contract_same_key_same_message(name):
    tiny.equal(sent(name, delta_of(), 3), sent(name, delta_of(), 3))


@pytest.mark.parametrize("name", NAMES)
def test_contract_feedback_telescopes(name):
    """What was decoded is the sum of deltas less the memory; without memory it is not."""
    init, update, decode = jitted(name, True)
    like = delta_of()
    memory, decoded, deltas = init(like), optax.tree.zeros_like(like), optax.tree.zeros_like(like)
    for step in range(6):
        delta = delta_of(step)
        message, memory = update(delta, memory, jax.random.key(step))
        decoded = jax.tree.map(jnp.add, decoded, decode(message, like))
        deltas = jax.tree.map(jnp.add, deltas, delta)
    tiny.close(jax.tree.map(jnp.add, decoded, memory), deltas, atol=1e-4)
    assert norm(jax.tree.map(jnp.subtract, decoded, deltas)) > 1e-3


# Quantisation.


@pytest.mark.parametrize(("bits", "count"), [(1, 9), (4, 7), (8, 5), (9, 40), (17, 3)])
def test_packing_is_dense_and_reversible(bits, count):
    codes = RNG.integers(0, 2**bits, count).astype(np.uint32)
    codes[:2] = 0, 2**bits - 1
    packed = compress.pack(jnp.asarray(codes), bits)
    assert packed.nbytes == -(-count * bits // 8)
    np.testing.assert_array_equal(compress.unpack(packed, bits, count), codes)


@pytest.mark.parametrize("bits", [8, 4])
def test_quantising_is_unbiased_and_off_by_less_than_a_level(bits):
    flat = {"w": jnp.asarray(RNG.normal(size=300), jnp.float32)}
    made = compress.quantise(bits)

    def one(key):
        return made.decode(made.update(flat, (), key)[0], flat)["w"]

    tries = 2000
    out = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(tiny.key(), tries)))
    w = np.asarray(flat["w"])
    top = 2 ** (bits - 1) - 1
    level = np.concatenate(
        [np.full(256, np.abs(w[:256]).max()), np.full(44, np.abs(w[256:]).max())]
    )
    level /= top
    assert np.all(np.abs(out - w) < level * (1 + 1e-5))
    margin = 5 * level / 2 / np.sqrt(tries)  # at most half a level of deviation, 5 standard errors
    assert np.all(np.abs(out.mean(0) - w) < margin + 1e-6)
    nearest = np.round(w / level) * level  # rounding to the nearest is biased: the control
    assert np.any(np.abs(nearest - w) > margin + 1e-6)
    assert len(np.unique(np.round(out / level))) <= 2 * top + 1


def test_bytes_of_a_quantised_message():
    flat = {"w": jnp.zeros(1000)}
    for bits, codes in ((8, 1000), (4, 500)):
        message, _ = compress.quantise(bits).update(flat, (), tiny.key())
        assert sum(leaf.nbytes for leaf in message.values()) == codes + 4 * 4  # four blocks


# Top-k and low rank.


def test_top_k_keeps_the_largest_to_the_bit():
    delta = delta_of()
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(delta)])
    out = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(sent("top_k", delta))])
    kept = int(0.2 * flat.size + 0.5)
    largest = np.argsort(-np.abs(flat))[:kept]
    expected = np.zeros_like(flat)
    expected[largest] = flat[largest]
    np.testing.assert_array_equal(out, expected)
    message, _ = jitted("top_k")[1](delta, (), tiny.key())
    assert message["place"].nbytes == -(-kept * 9 // 8)  # 320 numbers: 9 bits a place


def test_top_k_of_everything_is_everything():
    made = compress.top_k(1.0)
    tiny.equal(made.decode(made.update(delta_of(), (), tiny.key())[0], delta_of()), delta_of())


def test_low_rank_is_exact_for_a_matrix_of_that_rank_and_near_the_best_otherwise():
    low = {"m": jnp.asarray(RNG.normal(size=(20, 2)) @ RNG.normal(size=(2, 30)), jnp.float32)}
    tiny.close(sent("low_rank", low), low, rtol=1e-3, atol=1e-3)
    matrix = np.asarray(RNG.normal(size=(20, 30)) * 0.5 ** np.arange(30), np.float32)
    best = np.sqrt((np.linalg.svd(matrix, compute_uv=False)[2:] ** 2).sum())
    error = norm(jax.tree.map(jnp.subtract, sent("low_rank", {"m": matrix}), {"m": matrix}))
    assert best * (1 - 1e-5) <= error < 4 * best


# In a round.


def test_feedback_finds_the_minimum_of_a_quadratic_that_bare_top_k_misses():
    """1/2 |w - t|^2, one of four numbers a round; the others' progress is remembered."""
    target = jnp.array([4.0, -3.0, 2.0, 1.0])

    def final(made, steps=60):
        def one(step, carry):
            w, memory = carry
            message, memory = made.update({"w": 0.2 * (target - w)}, memory, jax.random.key(0))
            return w + made.decode(message, {"w": w})["w"], memory

        start = (jnp.zeros(4), made.init({"w": jnp.zeros(4)}))
        return jax.lax.fori_loop(0, steps, one, start)[0]

    np.testing.assert_allclose(
        final(compress.with_feedback(compress.top_k(0.25))), target, atol=0.2
    )


def algorithm(name, feedback=True, trained="fedavg"):
    made = make(name, feedback)
    return round.Algorithm(
        compress.compressed(tiny.update(trained), made),
        AGGREGATORS["weighted_mean"](),
        server.sgd(),
        client.constant(1),
    )


def test_a_round_sends_messages_and_remembers_by_identity():
    alg = algorithm("top_k")
    local_fn, server_fn = round.make_halves(alg)
    state = round.init_state(alg, tiny.params(), 5)
    cohort = tiny.cohort((3, -1, 1))
    local = jax.jit(local_fn)(state, tiny.examples(), cohort, tiny.key())
    shapes = jax.tree.map(lambda a: (a.shape, a.dtype), layout(alg.client, tiny.params()))
    assert jax.tree.map(lambda a: (a.shape[1:], a.dtype), local.deltas) == shapes
    after, metrics = jax.jit(server_fn)(state, cohort, local, jnp.ones(3, bool), tiny.key())
    assert metrics["clients"] == 2
    moved = np.abs(np.asarray(after.client_state.compressor["w"])).sum(1) > 0
    np.testing.assert_array_equal(moved, [False, True, False, True, False])


def test_a_message_of_a_delta_that_is_not_finite_is_refused():
    alg = algorithm("int8")
    data = tiny.examples()
    a = int(tiny.OFFSET[1])
    data = data._replace(mos=data.mos.at[a : a + 17].set(jnp.inf))
    step = jax.jit(round.make_round(alg))
    state, metrics = step(round.init_state(alg, tiny.params(), 5), data, tiny.cohort(), tiny.key())
    assert (metrics["clients"], metrics["refused"]) == (4, 1)
    assert np.isfinite(np.asarray(state.params["w"])).all()
    assert np.isfinite(np.asarray(state.client_state.compressor["w"])).all()


def test_clients_keep_their_own_parameters_and_a_memory_of_the_shared_ones():
    """``fedper`` sends ``w`` only; the personal model is read past the compressor's memory."""
    alg = algorithm("int8", trained="fedper")
    assert layout(alg.client, tiny.params("fedper"))["codes"].shape == (3,)
    state = round.init_state(alg, tiny.params("fedper"), 5)
    step = jax.jit(round.make_round(alg))
    state, metrics = step(state, tiny.examples(), tiny.cohort(), tiny.key())
    assert metrics["clients"] == 5
    one = jax.tree.map(lambda leaf: leaf[2], state.client_state)
    model = alg.client.personal(state.params, one)
    assert model["b"] == one.own["b"] != state.params["b"]
    tiny.equal(model["w"], state.params["w"])


def test_messages_are_decoded_then_attacked_then_discounted_by_age():
    """The server's half on messages = that of plain FedAvg on what they say, lied and scaled."""
    alg, plain = algorithm("low_rank", feedback=False), tiny.algorithm("fedavg")
    liar = np.arange(5) == 1
    adversary = attacks.Adversary(attacks.sign_flip(2.0), jnp.asarray(liar))
    local_fn, server_fn = round.make_halves(alg._replace(adversary=adversary))
    state, cohort = round.init_state(alg, tiny.params(), 5), tiny.cohort()
    local = jax.jit(local_fn)(state, tiny.examples(), cohort, tiny.key())
    age = np.array([0, 1, 0, 3, 2], np.int32)
    arrived = jnp.ones(5, bool)
    decode = jax.vmap(alg.client.coding.decode, in_axes=(0, None))
    factor = np.where(liar, -2.0, 1.0) / np.sqrt(1 + age)
    said = {"w": decode(local.deltas, tiny.params())["w"] * factor[:, None].astype(np.float32)}
    late = cohort._replace(staleness=jnp.asarray(age))
    got, _ = jax.jit(server_fn)(state, late, local, arrived, tiny.key())
    before = round.init_state(plain, tiny.params(), 5)
    sums = round.Local(said, (), local.sums)
    want, _ = jax.jit(round.make_halves(plain)[1])(before, cohort, sums, arrived, tiny.key())
    tiny.close(got.params, want.params)
    assert np.any(got.params["w"] != state.params["w"])


@pytest.mark.parametrize(
    ("factory", "value"), [(compress.quantise, 1), (compress.top_k, 0.0), (compress.low_rank, 0)]
)
def test_bad_settings_are_named(factory, value):
    with pytest.raises(ValueError, match=f"is {value}: expected"):
        factory(value)
