"""Window sizes, time and row order, each with a leak and without."""

import numpy as np
import pytest

from qoejax.data.audit import findings, forest, frame, order, windows

ROWS = 1600
LABEL = np.arange(ROWS) % 8
NAMES = tuple("abcdefgh")
FLOOD = LABEL < 4


@pytest.fixture(autouse=True)
def small_forest(monkeypatch):
    monkeypatch.setattr(forest, "TREES", 9)


def of(*columns):
    return frame.make_frame(columns, frame.class_target(LABEL, NAMES))


def number(values, name="x"):
    return frame.column(name, values)


def test_a_constant_per_window_size_is_found():
    """Four classes of windows of 100, four of 10, and a few windows cut short."""
    rng = np.random.default_rng(0)
    values = np.where(FLOOD, 9.5, rng.choice([5.5, 13.5], ROWS))
    values[:5] = 2.5
    found = windows.class_groups(of(number(values)), number(values))
    assert found is not None
    assert {frozenset(c) for c in found.classes} == {frozenset(range(4)), frozenset(range(4, 8))}
    assert sorted(map(sorted, found.values)) == [[5.5, 13.5], [9.5]]


@pytest.mark.parametrize(
    "values",
    [
        np.where(LABEL == 0, 1.0, 0.0),  # One attack's protocol.
        np.where(FLOOD, 1.0, 0.0) * (np.random.default_rng(0).random(ROWS) < 0.8),  # A strong hint.
        np.ones(ROWS),
        np.where(FLOOD, 100.0, 10.0) + np.random.default_rng(0).normal(0, 1, ROWS),  # No constants.
    ],
)
def test_honest_columns_are_no_window_size(values):
    assert windows.class_groups(of(number(values)), number(values)) is None


def test_a_label_by_another_name():
    copy = number((LABEL > 0).astype(float))
    assert windows.repeats_label(of(copy), copy)
    noisy = number(np.where(np.arange(ROWS) == 8, 1.0, LABEL > 0))
    assert not windows.repeats_label(of(noisy), noisy)
    assert not windows.repeats_label(of(number(np.ones(ROWS))), number(np.ones(ROWS)))


def test_the_grain_of_flag_means_tells_the_window():
    rng = np.random.default_rng(0)
    size = np.where(FLOOD, 100, 10)
    means = [number(rng.binomial(size, 0.3) / size, n) for n in ("syn", "ack")]
    grains = windows.grain(means)
    assert grains is not None
    made = of(*means)
    fine = windows.by_class(grains, made)
    assert all((share > 0.9) == (name in "abcd") for name, share in fine.items())
    scores = findings.measure(made)
    leak = [f for f in findings.judge(made, scores) if f.rule == "grain of means"]
    assert [f.severity for f in leak] == ["leak"]
    same = [number(rng.binomial(100, 0.3, ROWS) / 100, n) for n in ("syn", "ack")]
    made = of(*same)
    found = findings.judge(made, findings.measure(made))
    assert "grain of means" not in {f.rule for f in found}
    assert windows.grain([number(rng.random(ROWS), n) for n in ("u", "v")]) is None


def test_a_time_is_a_narrow_band_far_from_zero():
    rng = np.random.default_rng(0)
    captured = 1.66e9 + 1e4 * LABEL + rng.uniform(0, 1e3, ROWS)
    leak = of(number(captured, "IAT"), number(rng.random(ROWS), "noise"))
    assert order.is_clock(leak.columns[0])
    assert order.block_purity(leak, leak.columns[0]) > 0.99
    found = findings.judge(leak, findings.measure(leak))
    assert "time" in {f.rule for f in found if f.column == "IAT" and f.severity == "leak"}
    halves = number(np.where(FLOOD, 1.0, 2.0) * captured)  # Two units, as windows have.
    assert order.is_clock(halves)
    for honest in (rng.lognormal(0, 2, ROWS), rng.normal(1500, 300, ROWS), np.full(ROWS, 64.0)):
        assert not order.is_clock(number(honest))
    # A time that says nothing of the class is a note, no leak.
    quiet = of(number(1.66e9 + rng.uniform(0, 1e3, ROWS), "ts"), number(rng.random(ROWS), "noise"))
    assert abs(order.block_purity(quiet, quiet.columns[0])) < 0.1
    found = findings.judge(quiet, findings.measure(quiet))
    assert {f.severity for f in found if f.column == "ts"} == {"note"}


def test_row_numbers_and_sorted_rows():
    rng = np.random.default_rng(0)
    rows = np.arange(ROWS)
    assert order.is_row_number(number(rows + 1.0))
    assert order.is_row_number(number(rng.permutation(ROWS) * 1.0))
    assert not order.is_row_number(number(rows * 10.0))
    assert not order.is_row_number(number(rows // 2 * 1.0))
    made = of(number(rows * 1.0))
    assert order.row_purity(made, rows) == pytest.approx(-1 / 7, abs=0.01)  # Never twice the same.
    assert order.row_purity(made, np.argsort(np.argsort(LABEL, kind="stable"))) > 0.99
