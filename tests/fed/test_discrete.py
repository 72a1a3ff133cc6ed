"""Integers for secure aggregation: bounded, unbiased, with the noise that is accounted for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from qoejax.fed import accounting, discrete

from . import tiny

GRID = discrete.Grid(clip=1.0, step=0.01, size=50, clients=8, noise=0.5)


@functools.cache
def compiled(grid):
    return jax.jit(jax.vmap(lambda d, k: discrete.share(d, k, grid)))


def shares_of(deltas, grid, seed=0):
    return compiled(grid)(jnp.asarray(deltas), jax.random.split(tiny.key(seed), len(deltas)))


def test_the_sum_of_shares_is_the_mean_of_clipped_deltas():
    """Long deltas count as long as the bound; the error is noise of the stated size."""
    rng = np.random.default_rng(0)
    deltas = rng.normal(size=(8, 50)).astype(np.float32)
    deltas *= np.linspace(0.2, 3, 8)[:, None] / np.linalg.norm(deltas, axis=1)[:, None]
    clipped = deltas / np.maximum(1, np.linalg.norm(deltas, axis=1))[:, None]
    errors = []
    for seed in range(40):
        summed = discrete.total(shares_of(deltas, GRID, seed), GRID.bits)
        errors.append(np.asarray(discrete.mean(summed, GRID, 8.0)) - clipped.mean(0))
    spread = np.sqrt(0.5**2 + 8 * 0.01**2 / 6) / 8  # noise, and rounding of a uniform fraction
    assert np.std(errors) == pytest.approx(spread, rel=4 / np.sqrt(2 * 40 * 50))
    assert abs(np.mean(errors)) < 4 * spread / np.sqrt(40 * 50)


@pytest.mark.parametrize("bits", [24, 32])
def test_sums_wrap_and_come_back(bits):
    grid = GRID._replace(bits=bits, noise=1e-3, step=1e-4)
    deltas = np.stack([np.full(50, 0.1), np.full(50, -0.14)]).astype(np.float32)
    shares = shares_of(deltas, grid)
    assert int(shares.max()) < 2**bits
    mean = discrete.mean(discrete.total(shares, bits), grid, 2.0)
    np.testing.assert_allclose(mean, -0.02, atol=3e-3)


def test_shares_make_up_the_noise_together():
    assert discrete.variance(GRID) * 8 == pytest.approx((0.5 / 0.01) ** 2)


@pytest.mark.parametrize("variance", [0.5, 40.0])
def test_noise_is_skellam(variance):
    draws = np.asarray(discrete.skellam(tiny.key(), 20000, variance))
    values = np.arange(-int(4 * variance**0.5), int(4 * variance**0.5) + 1)
    found = (draws[:, None] == values).mean(0)
    law = scipy.stats.skellam(variance / 2, variance / 2).pmf(values)
    other = scipy.stats.skellam(variance / 1.4, variance / 1.4).pmf(values)
    margin = 5 * np.sqrt(law / 20000) + 1e-4
    assert np.all(np.abs(found - law) < margin)
    assert np.any(np.abs(found - other) > margin)


def test_shares_of_clients_add_up_to_the_same_law():
    parts = [np.asarray(discrete.skellam(tiny.key(s), 20000, 5.0)) for s in range(8)]
    assert np.sum(parts, axis=0).var() == pytest.approx(40, rel=0.05)


@pytest.mark.slow
def test_rounding_is_unbiased_and_within_the_bound():
    values = jnp.asarray(np.random.default_rng(1).normal(size=50) * 10, jnp.float32)
    bound = float(np.sqrt(np.sum(np.ceil(np.abs(values)) ** 2)))  # never too long
    keys = jax.random.split(tiny.key(), 2000)
    draws = np.asarray(jax.jit(jax.vmap(lambda k: discrete.round_within(k, values, bound)))(keys))
    np.testing.assert_allclose(draws.mean(0), values, atol=5 * 0.5 / np.sqrt(2000))
    assert np.abs(draws - np.asarray(values)).max() < 1
    tight = float(np.linalg.norm(values)) + 0.2
    drawn = jax.jit(jax.vmap(lambda k: discrete.round_within(k, values, tight)))(
        jax.random.split(tiny.key(), 50)
    )
    assert np.linalg.norm(np.asarray(drawn), axis=1).max() <= tight


def test_rounded_deltas_are_within_the_bound_of_the_accountant():
    grid = GRID._replace(noise=1e-6)
    deltas = 100 * np.random.default_rng(2).normal(size=(30, 50)).astype(np.float32)
    deltas[0, 3] = np.nan
    shares = np.asarray(shares_of(deltas, grid)).astype(np.int32)
    assert np.linalg.norm(shares, axis=1).max() <= discrete.norm_bound(grid)
    assert np.linalg.norm(shares[1:], axis=1).min() > 0.9 * grid.clip / grid.step


def test_price_of_a_fine_grid_is_that_of_gaussian_noise():
    grid = GRID._replace(step=1e-5, noise=1.0)
    price = accounting.skellam(
        1, discrete.norm_bound(grid), discrete.variance(grid) * grid.clients, grid.size, 1e-5
    )
    assert price == pytest.approx(accounting.bound(1, 1.0, 1.0, 1e-5), rel=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip": 0.0}, "clip is 0.0"),
        ({"noise": 0.0}, "noise is 0.0"),
        ({"bits": 10}, "bits is 10"),
    ],
)
def test_a_grid_that_cannot_work_is_named(change, message):
    discrete.check(GRID, 20)
    with pytest.raises(ValueError, match=message):
        discrete.check(GRID._replace(**change), 20)


def test_the_finest_grid_that_fits_is_taken():
    for clients, at_most, noise, size in ((2, 3, 1.0, 400), (90, 100, 0.5, 37_149), (1, 2, 8.0, 9)):
        grid = discrete.fit(0.5, noise, size, clients, at_most)
        discrete.check(grid, at_most)
        assert discrete.variance(grid) / 2 <= 2**22  # float32 draws lose no whole number
        finer = grid._replace(step=grid.step / 2)
        assert discrete.variance(finer) / 2 > 2**22 or discrete._needed(finer, at_most) >= 2**31
    with pytest.raises(ValueError, match="do not fit in 32 bits"):
        discrete.fit(1.0, 1e6, 10, 1, 2)


def test_masked_words_add_up_to_the_mean_whoever_is_in_the_sum():
    """One share and one count a client, its noise by its number: the same in any slot."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(4, 50)).astype(np.float32) * 0.1
    grid = GRID._replace(noise=1e-3, step=1e-4)
    ids = jnp.array([7, 3, 5, 1])
    made = jax.jit(lambda some, who: discrete.words(some, who, tiny.key(), grid))
    words, swapped = made(jnp.asarray(rows), ids), made(jnp.asarray(rows[::-1]), ids[::-1])
    np.testing.assert_array_equal(words, swapped[::-1])
    some = words[:3].sum(0, dtype=jnp.uint32)
    sums = jnp.stack([some, jnp.zeros_like(some)])
    means, count = discrete.means(sums, grid)
    np.testing.assert_array_equal(count, [3, 0])
    clipped = rows[:3] / np.maximum(1, np.linalg.norm(rows[:3], axis=1))[:, None]
    np.testing.assert_allclose(means[0], clipped.mean(0), atol=1e-3)
    assert not means[1].any()
    long = discrete.shortened(jnp.asarray(rows * [[0.1], [0.1], [9], [9]], jnp.float32), grid)
    np.testing.assert_array_equal(long, [0, 0, 1, 1])
