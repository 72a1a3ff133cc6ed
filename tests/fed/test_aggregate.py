"""Contract of every aggregator, and the two means in closed form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.fed.aggregate import AGGREGATORS

from . import tiny

NAMES = list(AGGREGATORS)
RNG = np.random.default_rng(3)
DELTAS = {
    "w": RNG.normal(size=(6, 4, 2)).astype(np.float32),
    "b": RNG.normal(size=6).astype(np.float32),
}
WEIGHT = np.array([1, 3, 2, 5, 4, 2], np.float32)


@functools.cache
def jitted(name):
    aggregator = AGGREGATORS[name]()
    return aggregator.init, jax.jit(aggregator.update)


def combine(name, deltas=DELTAS, weight=WEIGHT):
    init, update = jitted(name)
    one = jax.tree.map(lambda d: jnp.asarray(d[0]), deltas)
    return update(deltas, init(one), weight=jnp.asarray(weight), key=tiny.key())[0]


@pytest.mark.parametrize("name", NAMES)
def test_contract_order_is_invisible(name):
    order = RNG.permutation(6)
    moved = jax.tree.map(lambda d: d[order], DELTAS)
    tiny.close(combine(name), combine(name, moved, WEIGHT[order]))


@pytest.mark.parametrize("name", NAMES)
def test_contract_clients_without_weight_are_invisible(name):
    weight = np.where(np.arange(6) < 4, WEIGHT, 0).astype(np.float32)
    wild = jax.tree.map(lambda d: np.concatenate([d[:4], 1e30 + 0 * d[4:]]), DELTAS)
    few = jax.tree.map(lambda d: d[:4], DELTAS)
    tiny.close(combine(name, wild, weight), combine(name, few, WEIGHT[:4]))


@pytest.mark.parametrize("name", NAMES)
def test_contract_no_weight_no_delta(name):
    out = combine(name, weight=np.zeros(6, np.float32))
    tiny.equal(out, {"w": np.zeros((4, 2)), "b": np.float32(0)})


@pytest.mark.parametrize("name", NAMES)
def test_contract_equal_deltas_stay_and_scale_of_weights_is_invisible(name):
    same = jax.tree.map(lambda d: np.broadcast_to(d[:1], d.shape), DELTAS)
    tiny.close(combine(name, same), jax.tree.map(lambda d: d[0], DELTAS))
    tiny.close(combine(name), combine(name, weight=1000 * WEIGHT))


@pytest.mark.parametrize(("name", "weight"), [("weighted_mean", WEIGHT), ("mean", np.ones(6))])
def test_means_in_closed_form(name, weight):
    expected = jax.tree.map(lambda d: np.average(d, axis=0, weights=weight), DELTAS)
    tiny.close(combine(name), expected)
