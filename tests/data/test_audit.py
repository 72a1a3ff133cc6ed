import numpy as np
import pytest
import sklearn.metrics

from qoejax.data import audit
from qoejax.data.errors import DataError


@pytest.fixture(scope="module")
def sides():
    """A column that is the label, one that hints at it, one of noise; a rare third class."""
    rng = np.random.default_rng(0)
    label = rng.choice(3, 6000, p=[0.6, 0.38, 0.02])
    hint = label + rng.normal(size=6000)
    x = np.stack([rng.normal(size=6000), hint, 100.0 * label], 1).astype(np.float32)
    return x[:4000], label[:4000], x[4000:], label[4000:]


def test_the_leaking_column_is_named(sides):
    found = audit.audit(("noise", "hint", "leak"), *sides, 3)
    assert found.best == "leak"
    assert found.best_f1 == 1.0
    f1 = found.column_f1
    assert f1["noise"] < 0.36 < 0.41 < f1["hint"] < 0.9
    assert found.shuffled_f1 < 0.4
    assert found.majority_f1 == pytest.approx(0.25, abs=0.01)
    assert found.cross_duplicates == 0


def test_equal_counts_and_single_values_are_both_cut(sides):
    """A column of few values is a look-up; one of many is cut finely enough to follow bands."""
    x = np.linspace(0, 1, 8000, dtype=np.float32)[np.random.default_rng(0).permutation(8000)]
    label = (np.floor(x * 16) % 2).astype(int)
    half = slice(0, 4000), slice(4000, 8000)
    (score,) = audit.stumps(x[half[0], None], label[half[0]], x[half[1], None], label[half[1]], 2)
    assert score > 0.9


def test_macro_f1_is_scikit_learns():
    rng = np.random.default_rng(0)
    label, predicted = rng.integers(0, 4, 500), rng.integers(0, 5, 500)
    expected = sklearn.metrics.f1_score(
        label, predicted, labels=[0, 1, 2, 3], average="macro", zero_division=0
    )
    assert audit.macro_f1(predicted, label, 5) == pytest.approx(expected)


def test_test_rows_repeated_from_training_are_counted(sides):
    train, _, test, _ = sides
    mixed = np.concatenate([test, train[:7], train[:3], test[:5]])
    assert audit.cross_duplicates(train, mixed) == 10


def test_unlabelled_rows_and_samples(sides):
    train, label, test, test_label = sides
    some = np.where(np.arange(4000) < 50, label, -1)
    found = audit.audit(("a", "b", "c"), train, some, test, test_label, 3, sample=1000)
    assert found.best == "c"
    with pytest.raises(DataError, match="no test row has a known label"):
        audit.audit(("a", "b", "c"), train, label, test, np.full(2000, -1), 3)
