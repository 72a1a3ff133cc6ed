import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from qoejax.data import cohort
from qoejax.data.errors import DataError
from qoejax.types import Examples

permute = jax.jit(cohort.permute)
batch = jax.jit(cohort.batch_index, static_argnums=3)


def everything(key, n: int, width: int) -> np.ndarray:
    """Images of 0..n-1, asked for in chunks of one width so that one program serves all n."""
    starts = range(0, n, width)
    out = [permute(key, jnp.arange(s, s + width, dtype=jnp.int32), jnp.int32(n)) for s in starts]
    return np.concatenate(out)[:n]


@pytest.mark.parametrize("n", [*range(1, 40), 63, 64, 65, 777, 1023, 1024, 1025, 4096, 9999])
def test_permute_is_a_permutation(n):
    for seed in range(3):
        np.testing.assert_array_equal(
            np.sort(everything(jax.random.key(seed), n, 512)), np.arange(n)
        )


@pytest.mark.parametrize("n", [46340**2, 46340**2 + 1, 2**31 - 1, 2**30])
def test_permute_of_huge_ranges_stays_in_range_and_injective(n):
    index = jnp.concatenate([jnp.arange(256), n - 1 - jnp.arange(256)]).astype(jnp.int32)
    image = np.asarray(permute(jax.random.key(0), index, jnp.int32(n)))
    assert image.min() >= 0
    assert image.max() < n
    assert len(np.unique(image)) == 512


def test_ceil_sqrt_is_exact():
    roots = np.array([1, 2, 3, 4, 5, 100, 181, 4095, 4096, 30000, 46340], np.int64)
    n = np.unique(np.concatenate([roots**2 + d for d in (-1, 0, 1)]))
    n = n[n >= 1]
    got = jax.vmap(cohort._ceil_sqrt)(jnp.asarray(n, jnp.uint32))
    np.testing.assert_array_equal(got, [int(v - 1) ** 0.5 // 1 + 1 if v > 1 else 1 for v in n])


def test_permute_clamps_what_is_out_of_range():
    image = permute(jax.random.key(0), jnp.array([-5, 0, 6, 7, 90], jnp.int32), jnp.int32(7))
    assert image[0] == image[1]
    assert image[2] == image[3] == image[4]
    nothing = permute(jax.random.key(0), jnp.zeros(5, jnp.int32), jnp.int32(0))
    assert (nothing == 0).all()


TRIALS = 40_000


def pair_counts(draw, n: int) -> np.ndarray:
    """How often each ordered pair comes out of many draws of two, [n, n]."""
    images = np.asarray(draw(jax.random.split(jax.random.key(7), TRIALS), jnp.int32(n)))
    return np.bincount(images[:, 0] * n + images[:, 1], minlength=n * n).reshape(n, n)


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, None))
def two_of(key, n):
    return cohort.sample(key, n, 2)


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, None))
def rotation(key, n):
    return (jnp.arange(2) + jax.random.randint(key, (), 0, n)) % n


@pytest.mark.parametrize("n", [2, 3, 5, 8, 13, 30])
def test_ordered_pairs_are_uniform_and_a_shift_is_not(n):
    """Chi-square over all ordered pairs of images; a random rotation is the negative control."""
    off = ~np.eye(n, dtype=bool)
    good = pair_counts(two_of, n)
    assert good[~off].sum() == 0
    assert scipy.stats.chisquare(good[off]).pvalue > 1e-3
    if n > 2:
        bad = pair_counts(rotation, n)
        assert scipy.stats.chisquare(bad.sum(1)).pvalue > 1e-3, "the control is uniform one by one"
        assert scipy.stats.chisquare(bad[off]).pvalue < 1e-9


def test_neighbours_of_a_large_range_are_spread():
    """Rank correlation of place and image, and of successive images, within 4 sigma of 0."""
    image = everything(jax.random.key(3), 9999, 512).astype(float)
    for a, b in ((np.arange(9999), image), (image[:-1], image[1:])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(9999)


def test_sample_is_a_prefix_of_a_larger_sample_and_differs_by_round():
    key = jax.random.key(1)
    big = cohort.sample(key, 100_000, 64)
    assert len(np.unique(big)) == 64
    np.testing.assert_array_equal(big[:10], cohort.sample(key, jnp.int32(100_000), 10))
    other = cohort.sample(jax.random.fold_in(key, 1), 100_000, 64)
    assert len(np.intersect1d(big, other)) < 5


@pytest.mark.parametrize("size", [0, 11])
def test_sample_refuses_impossible_sizes(size):
    with pytest.raises(DataError, match=f"cannot sample {size} of 10 clients"):
        cohort.sample(jax.random.key(0), 10, size)


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 63])
def test_each_row_once_an_epoch(count):
    key, width = jax.random.key(5), 8
    steps = -(-count // width)
    epochs = []
    for epoch in range(3):
        rows = []
        for step in range(epoch * steps, (epoch + 1) * steps):
            index, valid = batch(key, jnp.int32(count), jnp.int32(step), width)
            assert index.min() >= 0
            assert index.max() < count
            rows.append(np.asarray(index)[np.asarray(valid)])
        rows = np.concatenate(rows)
        np.testing.assert_array_equal(np.sort(rows), np.arange(count))
        epochs.append(rows)
    if count == 63:
        assert (epochs[0] != epochs[1]).any()
        assert (epochs[1] != epochs[2]).any()


def test_batches_do_not_depend_on_vmap_scan_or_jit():
    counts = jnp.array([1, 5, 8, 100, 0], jnp.int32)
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(2)))(jnp.arange(5))
    step = jnp.int32(3)

    def one(key, count):
        return cohort.batch_index(key, count, step, 8)

    together = jax.jit(jax.vmap(one))(keys, counts)
    _, in_turn = jax.lax.scan(lambda c, x: (c, one(*x)), 0, (keys, counts))
    alone = [batch(keys[i], counts[i], step, 8) for i in range(5)]
    for leaf in range(2):
        np.testing.assert_array_equal(together[leaf], in_turn[leaf])
        np.testing.assert_array_equal(together[leaf], np.stack([a[leaf] for a in alone]))
    assert not together[1][4].any(), "a client without rows draws nothing valid"
    assert (together[0][4] == 0).all()


def test_batches_inside_a_while_loop():
    def body(state):
        step, seen = state
        index, valid = cohort.batch_index(jax.random.key(0), jnp.int32(20), step, 8)
        return step + 1, seen.at[index].add(valid.astype(jnp.int32))

    start = (jnp.int32(0), jnp.zeros(20, jnp.int32))
    _, seen = jax.lax.while_loop(lambda s: s[0] < 6, body, start)
    np.testing.assert_array_equal(seen, 2)


@pytest.fixture(scope="module")
def examples():
    rows = np.arange(12)
    return Examples(
        x=np.repeat(rows, 6).reshape(12, 2, 3).astype(np.float32),
        label=rows.astype(np.int32),
        mos=np.zeros((12, 1), np.float32),
        mos_mask=np.zeros((12, 1), bool),
        weight=np.ones(12, np.float32),
    )


def test_stage_makes_clients_contiguous(examples):
    parts = [np.array([3, 7]), np.array([0, 1, 11]), np.array([5])]
    staged, offset, count = cohort.stage(examples, parts)
    assert len(staged.label) == 6
    for part, o, n in zip(parts, offset, count, strict=True):
        np.testing.assert_array_equal(staged.label[o : o + n], part)
        np.testing.assert_array_equal(staged.x[o : o + n, 1, 2], part)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([], "no clients to stage"),
        ([[0], [], [2]], "client 1 has no rows"),
        ([[0], [2, 12]], r"client 1 holds a row outside 0\.\.11"),
        ([[-1]], "client 0 holds a row outside"),
        ([[0, 1], [4], [5, 1]], "row 1 is held twice, by clients 0 and 2"),
        ([[2, 2]], "row 2 is held twice, by clients 0 and 0"),
    ],
)
def test_stage_refuses(examples, parts, words):
    with pytest.raises(DataError, match=words):
        cohort.stage(examples, [np.array(p, np.int64) for p in parts])


def test_cohort_by_epochs_and_by_steps_with_padding():
    ids = jnp.array([2, -1, 0], jnp.int32)
    offset, count = jnp.array([0, 5, 9], jnp.int32), jnp.array([5, 4, 17], jnp.int32)
    made = jax.jit(functools.partial(cohort.cohort, batch_size=8, epochs=2))(ids, offset, count)
    np.testing.assert_array_equal(made.offset, [9, 0, 0])
    np.testing.assert_array_equal(made.count, [17, 0, 5])
    np.testing.assert_array_equal(made.steps, [6, 0, 2])
    np.testing.assert_array_equal(made.weight, [17, 0, 5])
    equal = cohort.cohort(ids, offset, count, batch_size=8, steps=4, weight="uniform")
    np.testing.assert_array_equal(equal.steps, [4, 0, 4])
    np.testing.assert_array_equal(equal.weight, [1, 0, 1])


@pytest.mark.parametrize("options", [{}, {"epochs": 1, "steps": 1}])
def test_cohort_wants_one_measure_of_work(options):
    one = jnp.ones(1, jnp.int32)
    with pytest.raises(ValueError, match="exactly one of epochs and steps"):
        cohort.cohort(one * 0, one * 0, one, batch_size=8, **options)
