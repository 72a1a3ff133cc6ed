import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.nets.encoder import Attention, Block, Dropout, LayerNorm, attend, draw_noise, normalise
from tests.nets.helpers import jit, started
from tests.reference import nets as reference


@pytest.mark.parametrize("tokens", [3, 5])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_equals_the_loops(causal, tokens):
    rows = np.random.default_rng(0).normal(size=(3, 2, tokens, 3, 4))
    q, k, v = jnp.asarray(rows, jnp.float32)
    out = np.asarray(jit(functools.partial(attend, causal=causal))(q, k, v))
    for b in range(2):
        for h in range(3):
            one = reference.attention(*(np.asarray(a[b, :, h]) for a in (q, k, v)), causal)
            np.testing.assert_allclose(out[b, :, h], one, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_a_place_that_is_added_has_no_part_in_gradients(causal):
    """With three tokens one is added."""
    x = jax.random.normal(jax.random.key(0), (3, 2, 4, 3, 4))

    def total(x, tokens):
        scores = jnp.einsum("bqha,bkha->bhqk", x[0], x[1]) / 2.0
        seen = jnp.tri(tokens, dtype=bool) if causal else jnp.ones((tokens, tokens), bool)
        scores = jnp.where(jnp.broadcast_to(seen, scores.shape), scores, -jnp.inf)
        return jnp.sin(jnp.einsum("bhqk,bkha->bqha", jax.nn.softmax(scores), x[2])).sum()

    wanted = jit(jax.grad(functools.partial(total, tokens=3)))(x[:, :, :3])
    found = jit(jax.grad(lambda x: jnp.sin(attend(*x, causal=causal)).sum()))(x[:, :, :3])
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert jnp.isfinite(found).all()


def test_the_past_never_reads_the_future():
    """Whatever comes later leaves earlier outputs as they were, to the bit; not so without it."""
    x = jax.random.normal(jax.random.key(0), (1, 6, 8))
    later = x.at[:, 4:].set(1e3)
    params, apply = started(Block(heads=2, mlp=8, causal=True), x)
    np.testing.assert_array_equal(apply(params, x)[:, :4], apply(params, later)[:, :4])
    read = jit(jax.grad(lambda x: apply.__wrapped__(params, x)[0, 3, 0]))(x)
    assert jnp.abs(read).max((0, 2)).astype(bool).tolist() == [True] * 4 + [False] * 2
    blind = jit(lambda x: Block(heads=2, mlp=8).apply(params, x))
    assert (blind(x)[:, :4] != blind(later)[:, :4]).any(-1).all()


def test_tokens_without_positions_are_a_set():
    x = jax.random.normal(jax.random.key(0), (1, 5, 8))
    params, apply = started(Block(heads=2, mlp=8), x)
    order = jnp.array([3, 1, 4, 0, 2])
    np.testing.assert_allclose(apply(params, x[:, order]), apply(params, x)[:, order], atol=1e-5)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="width 8 is not a multiple of heads 3"):
        jax.eval_shape(Attention(heads=3).init, jax.random.key(0), jnp.ones((1, 2, 8)))


def test_softmax_and_norms_stay_float32_in_half_precision():
    x = jnp.ones((1, 4, 8), jnp.bfloat16)
    block = Block(heads=2, mlp=8, dtype=jnp.dtype("bfloat16"))
    params, _ = started(block, x)
    text = str(jax.make_jaxpr(lambda p, x: block.apply(p, x))(params, x))
    exponentials = [line for line in text.splitlines() if " exp " in line or " rsqrt " in line]
    assert len(exponentials) == 3
    assert all("f32" in line and "bf16" not in line for line in exponentials)


def test_layer_norm_is_that_of_flax():
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (4, 8))
    params = {"params": {"scale": jnp.arange(8.0), "bias": jnp.ones(8)}}
    np.testing.assert_allclose(
        LayerNorm().apply(params, x), nn.LayerNorm().apply(params, x), atol=1e-5
    )


@pytest.mark.parametrize("shape", [(8,), (4, 8), (3, 2, 5, 8)])
def test_the_gradient_of_a_norm_is_that_of_its_formula(shape):
    def formula(x, scale, bias):
        centred = x - x.mean(-1, keepdims=True)
        unit = centred / jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-3)
        return unit * jnp.broadcast_to(scale, shape) + jnp.broadcast_to(bias, shape)

    def results(norm):
        value = lambda *args: jnp.sum(jnp.sin(norm(*args) + jnp.arange(8.0).reshape(last)))  # noqa: E731
        return jit(jax.value_and_grad(value, (0, 1, 2)))(x, scale, bias)

    last = (1,) * (len(shape) - 1) + (8,)
    keys = jax.random.split(jax.random.key(0), 3)
    x = 3 + 2 * jax.random.normal(keys[0], shape)
    scale, bias = jax.random.normal(keys[1], (8,)), jax.random.normal(keys[2], (8,))
    own, by_autodiff = results(lambda *args: normalise(*args, 1e-3)), results(formula)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), own, by_autodiff
    )


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.99])
def test_dropout_drops_its_share_and_keeps_the_mean(rate):
    x = jnp.ones((400, 500))
    out = np.asarray(Dropout(rate).apply({}, x, train=True, rngs={"dropout": jax.random.key(0)}))
    share = round(rate * 256) / 256
    error = np.sqrt(share * (1 - share) / x.size)
    assert abs((out == 0).mean() - share) < 5 * error
    assert abs(share - rate) <= 1 / 512
    np.testing.assert_allclose(out[out != 0], 1 / (1 - share), rtol=1e-6)


def test_dropout_is_independent_along_every_axis():
    x = jnp.ones((300, 300))
    out = Dropout(0.5).apply({}, x, train=True, rngs={"dropout": jax.random.key(1)})
    kept = np.asarray(out) > 0
    for a, b in ((kept[1:], kept[:-1]), (kept[:, 1:], kept[:, :-1])):
        assert abs((a == b).mean() - 0.5) < 5 * 0.5 / np.sqrt(a.size)


class _Places(nn.Module):
    """What ``draw_noise`` hands out."""

    shapes: tuple[tuple[int, ...], ...]

    @nn.compact
    def __call__(self):
        return draw_noise(self, 0.5, True, self.shapes)


def test_noise_of_several_places_is_one_draw_without_a_shared_byte():
    shapes = ((301,), (7, 43), (2, 150))
    noise = _Places(shapes).apply({}, rngs={"dropout": jax.random.key(2)})
    assert [one.shape for one in noise] == list(shapes)
    flat = np.concatenate([np.asarray(one).reshape(-1) for one in noise])
    whole = _Places(((len(flat),),)).apply({}, rngs={"dropout": jax.random.key(2)})
    np.testing.assert_array_equal(flat, whole[0])
    a, b, c = flat[:300], flat[301:601], flat[602:902]
    for x, y in ((a, b), (b, c), (a, c)):
        assert abs((x == y).mean() - 1 / 256) < 5 / 16 / np.sqrt(300)


def test_a_block_drops_what_its_noise_says():
    """Bytes of 255 are kept and scaled, of 0 dropped: two halves that can be told apart."""
    x = jax.random.normal(jax.random.key(0), (2, 3, 8))
    block = Block(heads=2, mlp=8, dropout=0.5)
    params, apply = started(block, x)
    kept, gone = jnp.full(x.shape, 255, jnp.uint8), jnp.zeros(x.shape, jnp.uint8)
    np.testing.assert_array_equal(apply(params, x, (gone, gone)), x)
    attended = apply(params, x, (kept, gone))
    assert jnp.abs(attended - x).max() > 0.01
    np.testing.assert_allclose(
        apply(params, attended, (gone, kept)), apply(params, x, (kept, kept)), atol=1e-5
    )


def test_no_dropout_draws_no_bits():
    x = jnp.ones((4, 4))
    np.testing.assert_array_equal(Dropout(0.0).apply({}, x, train=True), x)
    np.testing.assert_array_equal(Dropout(0.5).apply({}, x, train=False), x)
