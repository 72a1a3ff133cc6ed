import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax import trees
from qoejax.nets import NETS, qoenet
from qoejax.nets.members import pooled
from tests.nets.helpers import jit

TINY = {"width": 8, "depth": 1, "heads": 2, "mlp": 8, "embed_size": 2, "hidden": 8, "dropout": 0.0}


@pytest.fixture(scope="module", params=["qoenet", "mlp"])
def case(request):
    """A net of three members, the same as a net of one, parameters and rows."""
    sizes = TINY if request.param == "qoenet" else {"width": 8, "dropout": 0.0, "embed": "affine"}
    make = NETS[request.param]
    many, one = (make(classes=3, services=2, bins=5, members=k, **sizes) for k in (3, 1))
    x = jax.random.normal(jax.random.key(1), (4, 2, 6))
    return many, one, jit(many.init)(jax.random.key(0), x), x


def alone(params, k):
    """Member ``k`` as a net of one: its factors moved into the layer that makes the features."""
    heads = jax.tree.map(lambda leaf: leaf[k], params["heads"]["of"])
    return {name: p for name, p in params.items() if name != "members"} | {"heads": heads}


def test_a_prediction_is_the_mean_of_the_members_probabilities(case):
    many, one, params, x = case
    # Equal factors: what is left to tell members apart are their heads.
    same = {**params, "members": {"factors": jnp.ones_like(params["members"]["factors"])}}
    each = [jit(one.apply)(alone(same, k), x) for k in range(3)]
    out = jit(many.apply)(same, x)
    for name in ("logits", "mos"):
        mean = np.mean([jax.nn.softmax(e[name]) for e in each], axis=0)
        np.testing.assert_allclose(jax.nn.softmax(out[name]), mean, atol=1e-6)


def test_in_training_an_example_goes_through_one_member(case):
    many, one, params, x = case
    same = {**params, "members": {"factors": jnp.ones_like(params["members"]["factors"])}}
    each = np.stack([jit(one.apply)(alone(same, k), x)["logits"] for k in range(3)])
    noisy = jit(lambda key: many.apply(same, x, key=key)["logits"])
    used = set()
    for seed in range(8):
        out = np.asarray(noisy(jax.random.key(seed)))
        gap = np.abs(out - each).max(-1)  # [members, examples]
        assert (gap.min(0) < 1e-5).all()
        used |= set(gap.argmin(0).tolist())
    assert used == {0, 1, 2}


def test_factors_tell_members_apart(case):
    many, _, params, x = case
    moved = params["members"]["factors"].at[1].multiply(-2.0)
    out = [
        jit(many.apply)(p, x)["logits"] for p in (params, {**params, "members": {"factors": moved}})
    ]
    assert (jnp.abs(out[0] - out[1]).max(-1) > 1e-6).all()
    factors = params["members"]["factors"]
    np.testing.assert_array_equal(factors, factors[..., :1].repeat(factors.shape[-1], -1))
    assert abs(float(factors[..., 0].mean())) < 1


def test_members_share_all_but_their_ends():
    x = jnp.zeros((1, 1, 40))
    sizes = [
        trees.count(
            jax.eval_shape(qoenet(classes=10, services=1, members=k).init, jax.random.key(0), x)
        )
        for k in (1, 2, 3)
    ]
    heads = 129 * (10 + 17)
    assert sizes[2] - sizes[1] == 40 * 8 + heads
    assert sizes[1] - sizes[0] == 2 * 40 * 8 + heads
    with pytest.raises(ValueError, match="members: expected 1 or more, got 0"):
        qoenet(classes=3, services=1, members=0)


def test_the_pool_is_a_probability():
    logits = jnp.array([[[0.0, 1.0]], [[5.0, -5.0]]])
    p = np.asarray(jax.nn.softmax(logits)).mean(0)
    np.testing.assert_allclose(np.exp(pooled(logits)), p, rtol=1e-6)
