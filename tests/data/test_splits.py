"""Splits by content, group, block and left-out class: what each promises, whatever the rows."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from qoejax.data import splits
from qoejax.data.errors import DataError

rows = st.integers(60, 400)
seeds = st.integers(0, 1000)


def apart(made, count):
    """Both sides, sorted, disjoint; returns the rows of neither."""
    both = np.concatenate([made.train, made.test])
    assert len(np.unique(both)) == len(both)
    assert (np.diff(made.train) > 0).all()
    assert (np.diff(made.test) > 0).all()
    return np.setdiff1d(np.arange(count), both)


@hypothesis.given(rows, seeds)
def test_equal_rows_go_together(n, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 40, (n, 1)).astype(np.float32)
    made = splits.random(x, 0.3, seed)
    assert not len(apart(made, n))
    assert not set(x[made.train, 0]) & set(x[made.test, 0])


@hypothesis.given(rows, st.integers(2, 12), seeds)
def test_groups_are_never_cut(n, groups, seed):
    rng = np.random.default_rng(seed)
    group = rng.permutation(np.arange(n) % groups)
    label = rng.integers(0, 3, n)
    made = splits.by_group(group, label, 0.25, seed)
    assert not len(apart(made, n))
    assert not set(group[made.train]) & set(group[made.test])
    assert made.report["test_groups"] + made.report["train_groups"] == groups
    again = splits.by_group(group, label, 0.25, seed)
    np.testing.assert_array_equal(made.test, again.test)


def test_what_groups_leave_unbalanced_is_reported():
    group = np.repeat([4, 7], 50)
    made = splits.by_group(group, np.repeat([0, 1], 50), 0.5, 0)
    assert made.report["class_share_distance"] == 1.0
    without = made.report["classes_without_training_rows"], made.report["classes_without_test_rows"]
    assert sorted(map(tuple, without)) == [(0,), (1,)]
    even = splits.by_group(group, np.arange(100) % 2, 0.5, 0)
    assert even.report["class_share_distance"] == 0.0


@hypothesis.given(st.integers(2, 3), st.integers(4, 10), st.integers(0, 4), seeds)
def test_blocks_keep_their_distance_in_time(parts, blocks, gap, seed):
    """Between a training and a test row of a part lie at least ``2 * gap`` rows of that part."""
    rng = np.random.default_rng(seed)
    n = parts * blocks * 12
    within, time = rng.permutation(np.arange(n) % parts), rng.permutation(n).astype(float)
    made = splits.blocked(within, time, within, 0.3, seed, blocks=blocks, gap=gap)
    dropped = apart(made, n)
    assert made.report["dropped_at_borders"] == len(dropped)
    side = np.zeros(n, int)
    side[made.train], side[made.test] = 1, 2
    for part in range(parts):
        own = np.flatnonzero(within == part)
        line = side[own[np.argsort(time[own])]]
        a, b = np.flatnonzero(line == 1), np.flatnonzero(line == 2)
        assert np.abs(a[:, None] - b[None]).min() == 2 * gap + 1
        assert len(b)  # Every part has test rows: classes are stratified.
    assert made.report["classes_without_test_rows"] == []


def test_blocks_are_whole_and_the_share_is_kept():
    n = 1000
    zero = np.zeros(n, int)
    made = splits.blocked(zero, np.arange(n) * 1.0, zero, 0.2, 0, blocks=10, gap=0)
    assert len(made.test) == 200
    blocks = made.test.reshape(-1, 100)
    np.testing.assert_array_equal(blocks % 100, np.broadcast_to(np.arange(100), blocks.shape))
    with pytest.raises(DataError, match="a gap of 600 rows leaves no row"):
        splits.blocked(zero, np.arange(n) * 1.0, zero, 0.2, 0, blocks=2, gap=600)
    with pytest.raises(DataError, match="expected at least 2"):
        splits.blocked(zero, np.arange(n) * 1.0, zero, 0.2, 0, blocks=1)


def test_an_unknown_attack_is_only_tested():
    rng = np.random.default_rng(0)
    names = ("normal", "dos", "scan", "xss")
    label, test = rng.integers(0, 4, 300), rng.random(300) < 0.2
    made = splits.leave_out(label, test, names, ("scan",), "normal")
    assert not len(apart(made, 300))
    assert 2 not in label[made.train]
    assert made.report["left_out_rows"] == (label == 2).sum()
    assert set(np.flatnonzero(label == 2)) <= set(made.test)
    np.testing.assert_array_equal(
        made.test[label[made.test] != 2], np.flatnonzero(test & (label != 2))
    )
    for absent, said in (
        ((), "nothing"),
        (("dios",), "dios"),
        (("normal",), "benign"),
        (names[1:], "all"),
    ):
        with pytest.raises(DataError, match=said):
            splits.leave_out(label, test, names, absent, "normal")


def test_rows_without_groups_cannot_be_split_by_group():
    with pytest.raises(DataError, match="no natural groups"):
        splits.by_group(np.full(9, -1), np.zeros(9, int), 0.2, 0)
