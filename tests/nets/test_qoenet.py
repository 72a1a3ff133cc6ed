import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax import trees
from qoejax.nets import NETS, qoenet
from qoejax.nets.embed import EMBEDDINGS
from qoejax.nets.qoenet import POOLS, summaries

TINY = {"width": 8, "depth": 1, "heads": 2, "mlp": 8, "embed_size": 2, "hidden": 8}


def shapes(net, *shape):
    return jax.eval_shape(net.init, jax.random.key(0), jnp.zeros(shape))


def size(net, *shape):
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(net, *shape)))


@pytest.mark.parametrize("features", [40, 64, 80])
def test_the_default_has_fifty_to_three_hundred_thousand_parameters(features):
    one, many = (size(qoenet(classes=10, services=3), 1, t, features) for t in (1, 8))
    assert 50_000 <= one < many <= 300_000


def test_known_parameter_counts():
    """If unintended, a changed count is a bug: it breaks saved models and the wire's layout."""
    assert size(qoenet(classes=10, services=1), 1, 1, 46) == 111_387
    assert size(qoenet(classes=10, services=1), 1, 8, 46) == 212_251


def test_init_is_the_same_within_a_program():
    net, key, x = qoenet(classes=3, services=1, **TINY), jax.random.key(3), jnp.zeros((1, 2, 7))
    alone, within = net.init(key, x), jax.jit(net.init)(key, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), alone, within)
    jax.tree.map(np.testing.assert_array_equal, alone, net.init(key, jnp.ones((5, 2, 7))))


@pytest.mark.parametrize(("embed", "pool"), list(itertools.product(EMBEDDINGS, POOLS)))
def test_every_choice_builds(embed, pool):
    net = qoenet(
        classes=3, services=1, bins=5, embed=embed, pool=pool, activation="gelu", stride=2, **TINY
    )
    params = shapes(net, 2, 2, 7)
    out = jax.eval_shape(net.apply, params, jnp.ones((2, 2, 7)))
    assert out["logits"].shape == (2, 3)
    assert ("kernel" in params.get("embed", {})) == (embed != "none")
    assert params["record"]["kernel"].shape == (8 if pool == "mean" else 8 * 2, 8)


def test_records_alone_have_no_attention_in_time():
    net = qoenet(classes=3, services=1, **TINY)
    alone, window = (dict(shapes(net, 1, t, 9)) for t in (1, 2))
    assert set(window) - set(alone) == {"time_position", "time0", "norm_time"}
    assert trees.count(alone) > 0


def test_a_shortcut_adds_embedded_features_to_a_records_vector():
    plain, wide = (qoenet(classes=3, services=1, shortcut=s, **TINY) for s in (False, True))
    x = jax.random.normal(jax.random.key(1), (5, 4, 9))
    params = wide.init(jax.random.key(0), x)
    kernel, tokens = params["record"]["kernel"], shapes(plain, 5, 4, 9)["record"]["kernel"].shape[0]
    assert kernel.shape == (tokens + 9 * TINY["embed_size"], TINY["hidden"])

    def said(net, kernel):
        return jax.jit(net.apply)(params | {"record": params["record"] | {"kernel": kernel}}, x)

    without = said(wide, kernel.at[tokens:].set(0))
    for name, wanted in said(plain, kernel[:tokens]).items():
        np.testing.assert_allclose(without[name], wanted, rtol=1e-5, atol=1e-6)
    alone = said(wide, kernel.at[:tokens].set(0))["logits"]  # no token is heard
    assert np.ptp(alone, axis=0).min() > 1e-3


def test_a_summary_is_four_records_before_the_window():
    plain, summed = (qoenet(classes=3, services=1, summary=s, **TINY) for s in (False, True))
    x = jax.random.normal(jax.random.key(1), (5, 4, 9))
    rows = np.asarray(x)
    views = [rows[:, 1:].mean(1), rows.mean(1), rows.min(1), rows.max(1)]
    np.testing.assert_allclose(summaries(x), np.stack(views, 1), rtol=1e-5, atol=1e-6)
    params = summed.init(jax.random.key(0), x)
    longer = jnp.concatenate([summaries(x), x], axis=1)
    wanted, found = jax.jit(plain.apply)(params, longer), jax.jit(summed.apply)(params, x)
    np.testing.assert_allclose(found["mos"], wanted["mos"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["logits"], wanted["logits"], rtol=1e-5, atol=1e-6)
    alone = [shapes(net, 1, 1, 9) for net in (plain, summed)]
    assert jax.tree.structure(alone[0]) == jax.tree.structure(alone[1])


def test_jitter_is_noise_on_features_in_training_only():
    still, moved = (
        qoenet(classes=3, services=1, dropout=0.0, jitter=j, **TINY) for j in (0.0, 0.5)
    )
    x = jnp.ones((200, 1, 9))
    params = still.init(jax.random.key(0), x)
    apply = jax.jit(moved.apply)
    said = apply(params, x)["logits"]
    np.testing.assert_array_equal(said, jax.jit(still.apply)(params, x)["logits"])
    key = jax.random.key(1)
    noisy = apply(params, x, key=key)["logits"]
    wanted = x + 0.5 * jax.random.normal(jax.random.key(2), x.shape)
    # Not the same draw, so the spread over rows that are all alike.
    spread = np.std(noisy, axis=0) / np.std(apply(params, wanted)["logits"], axis=0)
    assert np.all((spread > 0.7) & (spread < 1.4))


def test_parts_are_chosen_by_name_and_checked():
    with pytest.raises(ValueError, match="embed 'fourier': expected one of affine, none"):
        qoenet(classes=3, services=1, embed="fourier")
    with pytest.raises(ValueError, match="pool 'max': expected one of flat, mean"):
        qoenet(classes=3, services=1, pool="max")
    with pytest.raises(ValueError, match="jitter: expected 0 or more, got -1"):
        qoenet(classes=3, services=1, jitter=-1.0)
    with pytest.raises(ValueError, match="activation 'swish'"):
        qoenet(classes=3, services=1, activation="swish")
    with pytest.raises(ValueError, match="embed 'fourier'"):
        NETS["mlp"](classes=3, services=1, embed="fourier")
    for rate in (-0.1, 1.0):
        with pytest.raises(ValueError, match="dropout: expected a rate"):
            qoenet(classes=3, services=1, dropout=rate)
