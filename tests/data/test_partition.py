import time

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest

from qoejax.data import partition
from qoejax.data.errors import DataError

DRAWN = sorted(set(partition.PARTITIONS) - {"natural"})


@st.composite
def cases(draw):
    clients, min_size = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    rows = draw(st.integers(clients * max(min_size, 2), 120))
    label = draw(hnp.arrays(np.int32, rows, elements=st.sampled_from([-1, 0, 1, 2, 7, 70000])))
    alpha = draw(st.sampled_from([1e-3, 0.1, 0.5, 10.0]))
    return label, clients, draw(st.integers(0, 2**31)), alpha, min_size


def assert_partition(parts, rows, clients, min_size):
    assert len(parts) == clients
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(rows))
    for part in parts:
        assert len(part) >= min_size
        assert (np.diff(part) > 0).all()


@pytest.mark.parametrize("name", DRAWN)
@hypothesis.given(case=cases())
def test_every_partition_is_one(name, case):
    """Disjoint, complete, sorted, nobody below ``min_size``; the same again for the same seed."""
    label, clients, seed, alpha, min_size = case
    options = {"alpha": alpha, "min_size": min_size, "per_client": 2}
    parts = partition.PARTITIONS[name](label, clients, seed, **options)
    assert_partition(parts, len(label), clients, min_size)
    again = partition.PARTITIONS[name](label, clients, seed, **options)
    for a, b in zip(parts, again, strict=True):
        np.testing.assert_array_equal(a, b)


@hypothesis.given(st.data())
def test_natural_is_a_partition_of_whole_groups(data):
    group = data.draw(hnp.arrays(np.int32, st.integers(1, 60), elements=st.integers(0, 8)))
    groups = len(np.unique(group))
    clients = data.draw(st.integers(0, groups))
    parts = partition.natural(group, clients, 0)
    assert_partition(parts, len(group), clients or groups, 1)
    assert sum(len(np.unique(group[part])) for part in parts) == groups


@pytest.mark.parametrize("name", DRAWN)
def test_seeds_differ(name):
    label = np.arange(400) % 5
    one, two = (partition.PARTITIONS[name](label, 4, seed, per_client=3) for seed in (1, 2))
    assert any(len(a) != len(b) or (a != b).any() for a, b in zip(one, two, strict=True))


def counts(name, alpha, seed=0, clients=10, **options):
    label = np.repeat(np.arange(5), 2000)
    parts = partition.PARTITIONS[name](label, clients, seed, alpha=alpha, **options)
    return partition.summary(parts, label, 5)


def test_iid_is_even_in_size_and_label():
    table = counts("iid", 0.5)
    assert (table.sum(1) == 1000).all()
    assert np.abs(table - 200).max() < 5 * np.sqrt(200)


def test_dirichlet_shares_have_the_variance_of_alpha():
    """Var of a share is (1/K)(1-1/K)/(K alpha + 1); at large alpha nearly nothing."""
    clients = 10
    for alpha in (0.3, 3.0):
        shares = np.concatenate([counts("dirichlet", alpha, s).ravel() for s in range(40)]) / 2000
        expected = (1 / clients) * (1 - 1 / clients) / (clients * alpha + 1)
        assert shares.mean() == pytest.approx(1 / clients, abs=1e-9)
        assert shares.var() == pytest.approx(expected, rel=0.2)


def test_balancing_evens_sizes_out():
    spread = [
        np.mean([counts(name, 0.3, seed).sum(1).std() for seed in range(20)])
        for name in ("dirichlet", "dirichlet_balanced")
    ]
    assert spread[1] < 0.8 * spread[0]


def test_shards_limit_the_classes_of_a_client():
    table = counts("shards", 0.5, per_client=2)
    assert (table.sum(1) == 1000).all()
    assert ((table > 0).sum(1) <= 2).all()


def test_sizes_follow_the_power_law():
    sizes = np.sort(counts("power_law", 1.0).sum(1))[::-1]
    ranks = np.arange(1, 11)
    np.testing.assert_allclose(sizes, 1 + (10_000 - 10) / ranks / (1 / ranks).sum(), atol=1.5)


def test_quantity_is_uneven_in_size_only():
    table = counts("quantity", 0.5)
    assert table.sum(1).max() > 3 * table.sum(1).min()
    big = table[table.sum(1).argmax()]
    assert np.abs(big / big.sum() - 0.2).max() < 0.05


def test_filling_up_takes_from_the_largest():
    label = np.zeros(1000, np.int32)
    bare = [len(p) for p in partition.dirichlet(label, 20, 3, alpha=0.02)]
    full = [len(p) for p in partition.dirichlet(label, 20, 3, alpha=0.02, min_size=30)]
    assert min(bare) == 1
    assert min(full) == 30
    assert np.argmax(bare) == np.argmax(full)


def test_natural_numbers_clients_in_group_order_and_merges_the_smallest():
    group = np.array([9, 9, 9, 2, 5, 5], np.int32)
    assert [p.tolist() for p in partition.natural(group, 3, 0)] == [[3], [4, 5], [0, 1, 2]]
    assert [p.tolist() for p in partition.natural(group, 2, 0)] == [[0, 1, 2], [3, 4, 5]]


def test_summary_counts_known_labels():
    label = np.array([0, 2, -1, 2], np.int32)
    table = partition.summary([np.array([0, 1]), np.array([2, 3])], label, 3)
    np.testing.assert_array_equal(table, [[1, 0, 1], [0, 0, 1]])


@pytest.mark.parametrize("name", DRAWN)
def test_too_few_rows_are_refused(name):
    words = r"39 rows cannot give 8 clients 5 rows each \(client 7 would fall short\).* 40 rows"
    with pytest.raises(DataError, match=words):
        partition.PARTITIONS[name](np.zeros(39, np.int32), 8, 0, min_size=5)


@pytest.mark.parametrize(
    ("name", "of", "options", "words"),
    [
        ("dirichlet", [0, 1], {"alpha": 0.0}, r"alpha is 0\.0; expected more than 0"),
        ("quantity", [0, 1], {"alpha": -1.0}, r"alpha is -1\.0"),
        ("power_law", [0, 1], {"alpha": float("nan")}, "alpha is nan"),
        ("shards", [0, 1], {"per_client": 0}, "shards per client is 0"),
        ("shards", [0, 1, 1], {"per_client": 2}, "3 rows cannot give 2 clients 2 rows"),
        ("iid", [0, 1], {"min_size": 0}, "2 clients of at least 0 rows"),
        ("natural", [0, -1, -1], {}, "2 of 3 rows have no natural group"),
        ("natural", [4, 4], {}, "1 natural groups; expected at least 2"),
        ("natural", [4, 4, 6], {"min_size": 2}, r"client 1 \(group 6\) has 1 rows; .* at least 2"),
    ],
)
def test_refusals_name_the_cause(name, of, options, words):
    with pytest.raises(DataError, match=words):
        partition.PARTITIONS[name](np.array(of, np.int32), 2, 0, **options)


def test_a_partition_of_many_rows_is_quick():
    """Half a million rows; five million take ten times as long, a second or two."""
    label = np.random.default_rng(0).integers(0, 34, 500_000)
    for name in DRAWN:
        start = time.process_time()
        partition.PARTITIONS[name](label, 100, 0, min_size=10)
        assert time.process_time() - start < 0.5, name
