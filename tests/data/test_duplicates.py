"""Streaming counts of equal rows against the exact cleaning."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from qoejax.data import duplicates, split
from qoejax.data.errors import DataError


@hypothesis.given(
    st.integers(0, 10_000), st.integers(0, 400), st.integers(1, 50), st.integers(1, 3)
)
def test_counts_are_those_of_clean(seed, rows, values, labels):
    rng = np.random.default_rng(seed)
    x = rng.integers(-1, values, (rows, 2)).astype(np.float32) * np.float32(0.5)
    label = rng.integers(0, labels, rows).astype(np.int32)
    _, report = split.clean(x, label)
    cuts = np.sort(rng.integers(0, rows + 1, 3))
    chunks = zip(np.split(x, cuts), np.split(label, cuts), strict=True)
    found = duplicates.count(rows, chunks)
    assert found == (report.duplicates, report.conflict_rows)


def test_groups_are_never_cut(monkeypatch):
    monkeypatch.setattr(duplicates, "_CHUNK", 4)
    x = np.repeat(np.arange(5, dtype=np.float32), [1, 7, 2, 9, 3])[:, None]
    label = np.zeros(22, np.int32)
    label[-1] = 1
    assert duplicates.count(22, [(x, label)]) == (6 + 1 + 8, 3)


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(DataError, match="finite"):
        duplicates.count(1, [(np.full((1, 1), np.nan, np.float32), np.zeros(1, np.int32))])
