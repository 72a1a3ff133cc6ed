"""Integers modulo 2**32: exact sums, the stated error, masks that cancel on the device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.fed import ring as rings

RNG = np.random.default_rng(0)


def reference(rows, weight, ring):
    """Float32 by NumPy, rounded half to even, as 32-bit words."""
    weight = np.ones_like(weight) if ring.uniform else weight
    share = weight * np.float32(1 / ring.heaviest)
    scaled = np.clip(rows, -np.float32(ring.clip), np.float32(ring.clip)) * share[:, None]
    whole = np.rint(scaled * np.float32(2.0**ring.bits)).astype(np.int64)
    return (np.concatenate([whole, weight[:, None].astype(np.int64)], 1) % 2**32).astype(np.uint32)


@pytest.mark.parametrize("uniform", [False, True])
@pytest.mark.parametrize(
    ("clients", "clip", "scale"), [(7, 4.0, 1.0), (100, 0.5, 0.1), (3, 1.0, 3.0)]
)
def test_words_are_those_of_numpy_and_sums_keep_the_bound(clients, clip, scale, uniform):
    rows = (scale * RNG.normal(size=(clients, 400))).astype(np.float32)
    weight = RNG.integers(1, 900, clients).astype(np.float32)
    ring = rings.fit(clip, 1.0 if uniform else 900.0, clients, uniform)
    words = np.asarray(jax.jit(lambda r, w: rings.quantise(r, w, ring))(rows, weight))
    np.testing.assert_array_equal(words, reference(rows, weight, ring))
    counted = jnp.arange(clients) != 1
    summed = rings.total(jnp.asarray(words), counted)
    exact = words[np.asarray(counted)].astype(object).sum(0) % 2**32
    np.testing.assert_array_equal(np.asarray(summed), exact.astype(np.uint32))
    mean, total = rings.mean(summed[None], ring)
    weight = np.where(counted, 1.0 if uniform else weight, 0.0)
    clipped = np.clip(rows.astype(np.float64), -clip, clip)
    expected = weight @ clipped / weight.sum()
    limit = rings.error(ring, clients - 1, float(weight.sum()), float(np.abs(clipped).max()))
    worst = np.abs(np.asarray(mean[0]) - expected).max()
    assert worst <= limit
    assert worst > limit / 1000  # a bound that says something
    assert float(total[0]) == weight.sum()
    np.testing.assert_array_equal(
        rings.clipped(jnp.asarray(rows), ring), (np.abs(rows) > np.float32(clip)).sum(1)
    )


@pytest.mark.slow
def test_sums_of_the_largest_messages_do_not_wrap():
    for clients, clip in ((1, 4.0), (511, 4.0), (1000, 0.37)):
        ring = rings.fit(clip, 3.0, clients)
        for sign in (-1, 1):
            rows = np.full((clients, 2), sign * 2 * clip, np.float32)
            words = rings.quantise(jnp.asarray(rows), jnp.full(clients, 3.0), ring)
            mean, _ = rings.mean(rings.total(words, jnp.ones(clients, bool))[None], ring)
            np.testing.assert_allclose(mean, sign * clip, rtol=1e-5)
        finer = ring._replace(bits=ring.bits + 1)
        assert ring.bits == rings.FINEST or clients * (clip * 2.0**finer.bits + 0.5) >= 2**31
    assert rings.fit(4.0, 1.0, 511).bits == 20  # the design's example


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 1.0, 5), "clip above 0"),
        ((1.0, 0.5, 5), "heaviest and clients from 1"),
        ((1e10, 1.0, 5), "do not fit in 32 bits"),
        ((1.0, 1e9, 5), "do not fit in 32 bits"),
    ],
)
def test_rings_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        rings.fit(*arguments)


def test_nobody_means_nothing():
    mean, weight = rings.mean(jnp.zeros((2, 4), jnp.uint32), rings.fit(1.0, 1.0, 2))
    assert not mean.any()
    assert not weight.any()


def test_messages_become_rows_and_back():
    tree = {"b": RNG.normal(size=(3, 2)).astype(np.float32), "a": np.ones((3, 2, 2), np.float32)}
    like = jax.tree.map(lambda leaf: leaf[0], tree)
    back = rings.unflatten(rings.flatten(jax.tree.map(jnp.asarray, tree)), like)
    jax.tree.map(np.testing.assert_array_equal, back, tree)


def test_many_clients_mask_on_the_device_and_the_sum_is_exact():
    """A ring of nine, each joined to two on either side; two leave after masking was agreed."""
    n, length = 9, 50
    key = jax.random.key(0)
    draw = lambda i, shape: jax.random.bits(jax.random.fold_in(key, i), shape)  # noqa: E731
    words, own = draw(0, (n, length)), draw(1, (n, 8))
    plus = np.repeat(np.arange(n), 2)
    minus = (plus + np.tile([1, 2], n)) % n
    edges = rings.Edges(jnp.asarray(plus), jnp.asarray(minus), draw(2, (len(plus), 8)))
    counted = jnp.asarray([True, False, True, True, True, False, True, True, True])
    masked = jax.jit(rings.mask)(words, own, edges)
    assert ((masked != words).mean(axis=1) > 0.9).all()
    opened = jax.jit(rings.unmask)(masked, own, edges, counted)
    np.testing.assert_array_equal(opened, rings.total(words, counted))
    other = jax.jit(rings.unmask)(masked, own, edges, jnp.ones(n, bool))
    np.testing.assert_array_equal(other, rings.total(words, jnp.ones(n, bool)))
