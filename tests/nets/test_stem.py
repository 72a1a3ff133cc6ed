import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.nets.stem import PatchConv, Stem, pad_amounts
from tests.nets.helpers import jit
from tests.reference import nets as reference

CASES = [
    (kernel, stride, padding, length)
    for kernel, stride in [(1, 1), (3, 1), (3, 2), (2, 3), (4, 4), (5, 3)]
    for padding in ("SAME", "VALID")
    for length in (5, 8, 13)
]


@pytest.mark.parametrize(("kernel", "stride", "padding", "length"), CASES)
def test_patches_equal_the_convolution(kernel, stride, padding, length):
    x = jax.random.normal(jax.random.key(1), (2, length, 3))
    ours = PatchConv(4, kernel, stride, padding)
    flax = nn.Conv(4, (kernel,), strides=(stride,), padding=padding)
    params = ours.init(jax.random.key(0), x)
    # The same parameters fit both, and nn.Conv starts from the same numbers.
    same = flax.init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, params, same)
    bias = jnp.arange(4.0)
    params = {"params": {**params["params"], "bias": bias}}
    out = ours.apply(params, x)
    np.testing.assert_allclose(out, flax.apply(params, x), atol=1e-5)
    weights = params["params"]["kernel"]
    direct = jax.lax.conv_general_dilated(
        x, weights, (stride,), padding, dimension_numbers=("NWC", "WIO", "NWC")
    )
    np.testing.assert_allclose(out, direct + bias[None, None], atol=1e-5)
    by_loops = [reference.conv1d(*map(np.asarray, (r, weights, bias)), stride, padding) for r in x]
    np.testing.assert_allclose(out, by_loops, atol=1e-5)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (4, 4)])
def test_gradients_equal_those_of_the_convolution(kernel, stride):
    x = jax.random.normal(jax.random.key(1), (2, 9, 3))
    ours, flax = PatchConv(4, kernel, stride), nn.Conv(4, (kernel,), strides=(stride,))
    params = ours.init(jax.random.key(0), x)

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
