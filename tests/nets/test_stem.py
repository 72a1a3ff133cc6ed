import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.nets.stem import FeatureTokens, PatchConv, Stem, pad_amounts
from tests.nets.helpers import jit
from tests.reference import nets as reference

CASES = [
    (kernel, stride, padding, length)
    for kernel, stride in [(3, 1), (3, 2), (2, 3), (4, 4), (5, 3)]
    for padding in ("SAME", "VALID")
    for length in (5, 13)
]


@pytest.mark.parametrize(("kernel", "stride", "padding", "length"), CASES)
def test_patches_equal_the_convolution(kernel, stride, padding, length):
    """The same parameters fit both, and nn.Conv starts from the same numbers."""
    ours = PatchConv(4, kernel, stride, padding)
    flax = nn.Conv(4, (kernel,), strides=(stride,), padding=padding)

    @jit
    def run(x, bias):
        started = [m.init(jax.random.key(0), x)["params"]["kernel"] for m in (ours, flax)]
        params = {"params": {"kernel": started[0], "bias": bias}}
        direct = jax.lax.conv_general_dilated(
            x, started[0], (stride,), padding, dimension_numbers=("NWC", "WIO", "NWC")
        )
        return started, ours.apply(params, x), flax.apply(params, x), direct

    x = np.random.default_rng(1).normal(size=(2, length, 3)).astype(np.float32)
    bias = np.arange(4, dtype=np.float32)
    started, out, by_flax, direct = jax.tree.map(np.asarray, run(jnp.asarray(x), jnp.asarray(bias)))
    np.testing.assert_array_equal(*started)
    np.testing.assert_allclose(out, by_flax, atol=1e-5)
    np.testing.assert_allclose(out, direct + bias, atol=1e-5)
    by_loops = [reference.conv1d(row, started[0], bias, stride, padding) for row in x]
    np.testing.assert_allclose(out, by_loops, atol=1e-5)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (4, 4)])
def test_gradients_equal_those_of_the_convolution(kernel, stride):
    x = jax.random.normal(jax.random.key(1), (2, 9, 3))
    ours, flax = PatchConv(4, kernel, stride), nn.Conv(4, (kernel,), strides=(stride,))
    params = jit(ours.init)(jax.random.key(0), x)

    def grads(module):
        return jit(jax.grad(lambda p, x: jnp.sum(jnp.sin(module.apply(p, x))), (0, 1)))(params, x)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), grads(ours), grads(flax))


def test_no_convolution_is_left():
    x = jnp.ones((2, 3, 21, 1))
    stem = Stem(width=8)
    params = jax.eval_shape(stem.init, jax.random.key(0), x)
    text = jax.jit(stem.apply).lower(params, x).as_text()
    assert "dot_general" in text
    assert "convolution" not in text


def test_a_record_of_f_features_has_about_a_quarter_of_tokens():
    stem = Stem(width=8, kernel=3, stride=2)
    out = jax.eval_shape(stem.init_with_output, jax.random.key(0), jnp.ones((2, 3, 46, 1)))[0]
    assert out.shape == (2, 3, 12, 8)


def test_bad_padding_and_kernel_are_refused():
    with pytest.raises(ValueError, match="expected 'SAME' or 'VALID'"):
        pad_amounts(5, 3, 1, "same")
    with pytest.raises(ValueError, match="a kernel of 7 does not fit 5 features"):
        pad_amounts(5, 7, 1, "VALID")


def test_feature_tokens_are_a_layer_of_their_own_each():
    x = np.random.default_rng(2).normal(size=(3, 5, 2)).astype(np.float32)
    tokens = FeatureTokens(4)
    params = jit(tokens.init)(jax.random.key(0), x)
    kernel, bias = (params["params"][name] for name in ("kernel", "bias"))
    assert kernel.shape == (5, 2, 4)
    moved = {"params": {"kernel": kernel, "bias": bias + 1}}
    wanted = [[row[f] @ kernel[f] + 1 for f in range(5)] for row in x]
    np.testing.assert_allclose(jit(tokens.apply)(moved, x), np.array(wanted), atol=1e-5)
