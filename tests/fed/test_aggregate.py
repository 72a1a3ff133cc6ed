"""Contract of every aggregator, and each rule against NumPy."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from qoejax.fed.aggregate import AGGREGATORS, EXACT, ROBUST, base, order
from tests.reference import robust_numpy

from . import tiny

NAMES = [*AGGREGATORS, *(f"exact_{name}" for name in EXACT)]
RNG = np.random.default_rng(3)
K = 9
DELTAS = {
    "w": RNG.normal(size=(K, 4, 2)).astype(np.float32),
    "b": RNG.normal(size=K).astype(np.float32),
}
WEIGHT = np.array([1, 3, 2, 5, 4, 2, 1, 3, 2], np.float32)


def one(deltas, client=0):
    return jax.tree.map(lambda d: jnp.asarray(d[client]), deltas)


@functools.cache
def jitted(name):
    aggregator = tiny.aggregator_of(name, root=one(DELTAS))
    return aggregator.init, jax.jit(aggregator.update)


def combine(name, deltas=DELTAS, weight=WEIGHT):
    init, update = jitted(name)
    params = one(deltas)
    weight = jnp.asarray(weight, jnp.float32)
    return update(deltas, init(params), weight=weight, key=tiny.key(), params=params)[0]


def flat(tree):
    return np.concatenate(
        [np.asarray(tree["b"])[:, None], tree["w"].reshape(len(tree["b"]), -1)], 1
    )


def flat_one(tree):
    return np.concatenate([np.asarray(tree["b"])[None], np.asarray(tree["w"]).reshape(-1)])


@pytest.mark.parametrize("name", NAMES)
def test_contract_order_is_invisible(name):
    order = RNG.permutation(K)
    moved = jax.tree.map(lambda d: d[order], DELTAS)
    tiny.close(combine(name), combine(name, moved, WEIGHT[order]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fill", [1e15, 1e30])
def test_contract_clients_without_weight_are_invisible(name, fill):
    weight = np.where(np.arange(K) < 7, WEIGHT, 0).astype(np.float32)
    wild = jax.tree.map(lambda d: np.concatenate([d[:7], fill + 0 * d[7:]]), DELTAS)
    tiny.close(combine(name, wild, weight), combine(name, weight=weight))


@pytest.mark.parametrize("name", NAMES)
def test_contract_no_weight_no_delta(name):
    out = combine(name, weight=np.zeros(K, np.float32))
    tiny.equal(out, {"w": np.zeros((4, 2)), "b": np.float32(0)})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("clients", [1, 2, 3])
def test_contract_few_clients_give_something_between_them(name, clients):
    """Below ``least`` a rule promises nothing, but it never leaves the range of the deltas."""
    weight = np.where(np.arange(K) < clients, WEIGHT, 0).astype(np.float32)
    out = flat_one(combine(name, weight=weight))
    if name == "fltrust":
        assert np.linalg.norm(out) <= np.linalg.norm(flat_one(one(DELTAS))) * (1 + 1e-5)
        return
    seen = np.concatenate([flat(DELTAS)[:clients], np.zeros((int(name in CLIPPED), 9))])
    assert np.all(out >= seen.min(0) - 1e-5)
    assert np.all(out <= seen.max(0) + 1e-5)


CLIPPED = ("centred_clipping", "norm_bounding")  # these also pull towards zero


@pytest.mark.parametrize("name", NAMES)
def test_contract_equal_deltas_stay_and_scale_of_weights_is_invisible(name):
    same = jax.tree.map(lambda d: np.broadcast_to(d[:1], d.shape), DELTAS)
    tiny.close(combine(name, same), one(DELTAS))
    tiny.close(combine(name), combine(name, weight=1000 * WEIGHT))


@pytest.mark.parametrize("name", NAMES)
def test_contract_no_recompilation_when_clients_come_and_go(name):
    combine(name)
    with tiny.count_compilations() as seen:
        for present in (8, 5, 2, 0):
            combine(name, weight=np.where(np.arange(K) < present, WEIGHT, 0))
    assert not seen


@pytest.mark.parametrize("name", NAMES)
def test_contract_vmap_is_a_loop(name):
    init, update = jitted(name)
    state = init(one(DELTAS))
    both = jax.tree.map(lambda d: jnp.stack([d, 2 * d]), DELTAS)

    def run(deltas, weight):
        return update(deltas, state, weight=weight, key=tiny.key(), params=one(DELTAS))[0]

    weights = jnp.stack([jnp.asarray(WEIGHT), jnp.ones(K).at[2].set(0)])
    out = jax.vmap(run)(both, weights)
    for i in range(2):
        alone = run(jax.tree.map(lambda d, i=i: d[i], both), weights[i])
        tiny.close(jax.tree.map(lambda o, i=i: o[i], out), alone)


@pytest.mark.multidevice
@pytest.mark.parametrize("name", ["coordinate_median", "multi_krum", "dnc"])
def test_clients_on_several_devices_give_the_same(name):
    mesh = jax.make_mesh((3,), ("clients",), (AxisType.Auto,), devices=jax.devices()[:3])
    split = jax.device_put(DELTAS, NamedSharding(mesh, PartitionSpec("clients")))
    tiny.close(combine(name, split), combine(name))


@pytest.mark.parametrize("name", ROBUST)
@pytest.mark.parametrize("present", [9, 8, 7])
def test_reference(name, present):
    """NumPy sees the present clients only."""
    u, w = flat(DELTAS)[:present].astype(np.float64), WEIGHT[:present].astype(np.float64)
    extra = {"root": u[0]} if name == "fltrust" else {}
    expected = getattr(robust_numpy, name)(u, w, 1, **extra)
    out = combine(name, weight=np.where(np.arange(K) < present, WEIGHT, 0))
    np.testing.assert_allclose(flat_one(out), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "weight"), [("weighted_mean", WEIGHT), ("mean", np.ones(K))])
def test_means_in_closed_form(name, weight):
    expected = jax.tree.map(lambda d: np.average(d, axis=0, weights=weight), DELTAS)
    tiny.close(combine(name), expected)


# Robustness itself.


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1e2, 1e4])
def test_one_wild_client_moves_a_robust_rule_little_and_a_mean_far(name, size):
    wild = jax.tree.map(lambda d: np.concatenate([d[:-1], size + 0 * d[-1:]]), DELTAS)
    moved = np.linalg.norm(flat_one(combine(name, wild)))
    largest = np.linalg.norm(flat(DELTAS), axis=1).max()
    assert (moved <= largest) == (name in ROBUST)


def test_clients_count_by_weight_only_where_the_paper_says_so():
    doubled = np.where(np.arange(K) == 4, 50, WEIGHT)
    for name in NAMES:
        a, b = flat_one(combine(name)), flat_one(combine(name, weight=doubled))
        weighs = name.removeprefix("exact_") in (
            "weighted_mean",
            "geometric_median",
            "norm_bounding",
        )
        assert (np.abs(a - b).max() > 1e-3) == weighs, name


@pytest.mark.parametrize("name", ROBUST)
@pytest.mark.parametrize("byzantine", [0, 1, 4])
def test_least_is_what_the_paper_says(name, byzantine):
    factor, more = {"bulyan": (4, 3), "krum": (2, 3), "multi_krum": (2, 3), "fltrust": (1, 1)}.get(
        name, (2, 1)
    )
    assert tiny.aggregator_of(name, byzantine=byzantine).least == factor * byzantine + more


@pytest.mark.parametrize("name", ROBUST)
def test_a_negative_number_of_byzantine_clients_is_refused(name):
    with pytest.raises(ValueError, match="byzantine is -1"):
        tiny.aggregator_of(name, byzantine=-1)


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("fltrust", {}, "root examples"),
        ("geometric_median", {"smoothing": 0.0}, "smoothing > 0"),
        ("centred_clipping", {"radius": -1.0}, "radius >= 0"),
        ("norm_bounding", {"bound": -1.0}, "bound >= 0"),
        ("dnc", {"iterations": 0}, "1 or more"),
    ],
)
def test_options_that_cannot_work_are_refused(name, options, match):
    with pytest.raises(ValueError, match=match):
        AGGREGATORS[name](**options)


def test_centred_clipping_starts_at_the_last_result():
    init, update = jitted("centred_clipping")
    last = jax.tree.map(lambda d: jnp.asarray(d[3]) / 2, DELTAS)
    args = {"weight": jnp.asarray(WEIGHT), "key": tiny.key(), "params": last}
    out, state = update(DELTAS, last, **args)
    expected = robust_numpy.centred_clipping(flat(DELTAS), WEIGHT, 1, flat_one(last))
    np.testing.assert_allclose(flat_one(out), expected, rtol=1e-4, atol=1e-5)
    tiny.equal(out, state)
    tiny.equal(init(last), jax.tree.map(jnp.zeros_like, last))


def test_geometric_median_finds_its_way_back_from_a_far_outlier():
    far = jax.tree.map(lambda d: np.concatenate([d[:-1], 3e3 + 0 * d[-1:]]), DELTAS)
    u = flat(far).astype(np.float64)
    expected = robust_numpy.geometric_median(u, WEIGHT.astype(np.float64), 1)
    np.testing.assert_allclose(flat_one(combine("geometric_median", far)), expected, atol=1e-3)


def test_dnc_looks_at_a_random_part_of_the_coordinates():
    """An outlier in one of 64 coordinates is found when that one is looked at, and only then."""
    u = RNG.normal(size=(9, 64)).astype(np.float32) / 100
    u[5, 10] = 10.0
    found = set()
    rule = jax.jit(AGGREGATORS["dnc"](byzantine=1, coordinates=16).update)
    for seed in range(8):
        weight = jnp.ones(9)
        out, _ = rule({"w": u}, (), weight=weight, key=tiny.key(seed), params={"w": u[0]})
        found.add(bool(out["w"][10] < 0.5))
    assert found == {True, False}


def test_krum_breaks_ties_by_the_norm_not_the_place():
    """With one neighbour each, two near clients have equal scores."""
    u = np.array([[0.0, 1.0], [0.0, 1.1], [5.0, 0.0]], np.float32)
    rule = jax.jit(AGGREGATORS["krum"](byzantine=0).update)
    for order_ in ([0, 1, 2], [1, 0, 2], [2, 1, 0]):
        weight = jnp.ones(3)
        out, _ = rule({"w": u[order_]}, (), weight=weight, key=tiny.key(), params={"w": u[0]})
        np.testing.assert_allclose(out["w"], [0.0, 1.0])


# Order statistics.


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@functools.cache
def jitted_order(name):
    return jax.jit(getattr(order, name))


@hypothesis.given(st.lists(FLOATS, min_size=8, max_size=8), st.integers(0, 7))
def test_every_order_statistic_is_exact(values, rank):
    column = np.array(values, np.float32)[:, None]
    present = jnp.ones(8, bool)
    keys = jitted_order("ordered")(column, present)
    found = jitted_order("statistics")(keys, jnp.array([rank]))
    assert np.asarray(jitted_order("restored")(found.keys))[0, 0] == np.sort(column[:, 0])[rank]
    key, every = int(found.keys[0, 0]), np.asarray(keys)
    assert int(found.under[0, 0]) == (every < key).sum() <= rank
    assert int(found.within[0, 0]) == (every <= key).sum() > rank


@pytest.mark.parametrize("present", [range(8), (1, 2, 5), (0, 3, 6, 7), (4,)])
def test_median_and_trimmed_mean_with_ties_signs_and_absent_clients(present):
    values = RNG.integers(-3, 4, size=(8, 500)).astype(np.float32) * 0.3
    mask = np.isin(np.arange(8), list(present))
    seen = values[mask]
    out = jitted_order("median")(values, jnp.asarray(mask))
    np.testing.assert_allclose(out, np.median(seen, axis=0), rtol=1e-6)
    for cut in range((len(seen) - 1) // 2 + 1):
        out = jitted_order("trimmed_mean")(values, jnp.asarray(mask), jnp.int32(cut))
        expected = np.sort(seen, axis=0)[cut : len(seen) - cut].mean(axis=0)
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("keep", [2, 6, 8])
def test_mean_around_median(keep):
    values = RNG.normal(size=(8, 300)).astype(np.float32)
    out = jitted_order("mean_around_median")(values, jnp.ones(8, bool), jnp.int32(keep))
    nearest = np.argsort(np.abs(values - np.median(values, axis=0)), axis=0)
    expected = np.take_along_axis(values, nearest[:keep], axis=0).mean(axis=0)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


def test_counting_is_the_same_on_every_kind_of_device():
    keys = jnp.asarray(RNG.integers(0, 50, size=(8, 30)), jnp.uint32)
    bound = jnp.asarray(RNG.integers(0, 50, size=(2, 30)), jnp.uint32)
    expected = (np.asarray(keys)[:, None] < np.asarray(bound)).sum(0)
    for count in (order.below, order._below_in_turn, order._below_at_once):
        np.testing.assert_array_equal(count(keys, bound), expected)


@pytest.mark.parametrize(
    "sizes", [(1,), (order.BLOCK - 1, order.BLOCK, order.BLOCK + 1), (9000, 3, 4)]
)
def test_blocks_cover_every_coordinate_once(sizes):
    deltas = [RNG.normal(size=(3, n)).astype(np.float32) for n in sizes]
    out = jax.jit(lambda d: order.by_coordinate(lambda v: v.sum(0), d))(deltas)
    for o, d in zip(out, deltas, strict=True):
        np.testing.assert_allclose(o, d.sum(0), rtol=1e-5, atol=1e-6)


def test_gram_is_symmetric_to_the_bit_and_right():
    products = np.asarray(jax.jit(base.gram)(DELTAS))
    np.testing.assert_array_equal(products, products.T)
    np.testing.assert_allclose(products, flat(DELTAS) @ flat(DELTAS).T, rtol=1e-5, atol=1e-5)
