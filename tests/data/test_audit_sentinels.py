"""Sentinels, the reference forest and the judgement, each with a leak and without."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import sklearn.ensemble
import sklearn.metrics

from qoejax.data import audit
from qoejax.data.audit import findings, forest, frame, neighbours, sentinels
from qoejax.data.errors import DataError

CLASSES = 3


@pytest.fixture(autouse=True)
def small_forest(monkeypatch):
    monkeypatch.setattr(forest, "TREES", 9)


def table(rows=1600, seed=0):
    """A column that hints at the label, one of noise, and two that only together tell it."""
    rng = np.random.default_rng(seed)
    label = rng.choice(CLASSES, rows, p=[0.6, 0.3, 0.1])
    a = rng.integers(0, 12, rows)
    columns = {
        "hint": label + rng.normal(0, 0.9, rows),
        "noise": rng.normal(size=rows),
        "one half": a.astype(float),
        "other half": (label - a) % 12.0,
    }
    return columns, label


def make(columns, label, **flags):
    made = [frame.column(n, v, **flags.get(n.replace(" ", "_"), {})) for n, v in columns.items()]
    names = tuple(f"class {i}" for i in range(int(label.max()) + 1))
    return frame.make_frame(made, frame.class_target(label, names))


def judged(made):
    return findings.judge(made, findings.measure(made))


def rules_of(found, column, severity="leak"):
    return {f.rule for f in found if f.column == column and f.severity == severity}


def test_a_clean_table_has_no_leak():
    """The two halves decide the label together: a forest sees it, no column alone does."""
    made = make(*table())
    scores = findings.measure(made)
    assert scores.reference > 0.75
    assert scores.constant == pytest.approx(0.25, abs=0.01)
    assert scores.chance == pytest.approx(1 / 3)
    assert scores.shuffled < scores.chance + 0.1
    rule = {r.column: r for r in scores.rules}
    assert rule["noise"].best < scores.chance + 0.1 < rule["hint"].best < 0.7
    assert [f for f in judged(made) if f.severity == "leak"] == []


@pytest.mark.parametrize("default", [True, False])
def test_a_column_that_comes_close_to_the_forest_is_a_leak(default):
    columns, label = table()
    columns["leak"] = label + np.random.default_rng(1).normal(0, 0.2, len(label))
    made = make(columns, label, leak={"default": default})
    found = judged(made)
    assert rules_of(found, "leak") == {"single column"}
    assert {f.scope for f in found if f.column == "leak"} == {"default" if default else "other"}
    assert not rules_of(found, "hint")


def test_many_names_that_tell_the_class_are_an_identity():
    columns, label = table()
    rng = np.random.default_rng(2)
    columns["host"] = rng.integers(0, 200, len(label)) + 200.0 * label
    columns["kind"] = rng.integers(0, 200, len(label)).astype(float)
    columns["proto"] = (label > 0).astype(float)
    flags = {n: {"nominal": True, "default": False} for n in ("host", "kind", "proto")}
    found = judged(make(columns, label, **flags))
    assert "identity" in rules_of(found, "host")
    assert rules_of(found, "kind") == set()  # Many names, but they say nothing.
    assert "identity" not in rules_of(found, "proto")  # It says something, but is no name.


def test_scores_by_rating_and_by_row_number():
    rng = np.random.default_rng(0)
    rows = 600
    a, b = rng.normal(size=rows), rng.normal(size=rows)
    score = np.clip(np.round(3 + a + b), 1, 5)
    order = np.argsort(score + rng.normal(0, 0.3, rows))
    columns = {
        "a": a,
        "b": b,
        "second": np.clip(score + rng.integers(-1, 2, rows), 1, 5),
        "radio": rng.integers(1, 6, rows).astype(float),  # The same scale, but no opinion.
        "id": np.argsort(order).astype(float),
        "serial": rng.permutation(rows).astype(float),
    }
    made = frame.make_frame(
        [frame.column(n, v) for n, v in columns.items()], frame.score_target(score)
    )
    found = judged(made)
    assert rules_of(found, "second") == {"second rating"}
    assert rules_of(found, "id") == {"row number"}
    for clean in ("a", "b", "radio", "serial"):
        assert rules_of(found, clean) == set()


def test_few_bins_or_many_follow_a_fine_pattern():
    x = np.linspace(0, 1, 8000)[np.random.default_rng(0).permutation(8000)]
    made = make({"x": x}, (np.floor(x * 16) % 2).astype(int))
    found = sentinels.rule(made, made.columns[0])
    assert found.histogram > 0.9
    assert found.how == "histogram"
    assert found.lookup < 0.6  # No value comes twice.


@hypothesis.given(st.integers(0, 10_000))
def test_a_lookup_says_what_the_rows_of_a_value_say(seed):
    rng = np.random.default_rng(seed)
    cell, asked = rng.integers(0, 5, 60), rng.integers(0, 7, 30)
    known = rng.normal(size=60)
    said = sentinels.by_cell(frame.score_target(known), cell, asked, known)
    for value, told in zip(asked, said, strict=True):
        own = known[cell == value]
        expected = (own.sum() + sentinels.SHRINK * known.mean()) / (len(own) + sentinels.SHRINK)
        assert told == pytest.approx(expected)


def test_macro_f1_is_scikit_learns():
    rng = np.random.default_rng(0)
    label, predicted = rng.integers(0, 4, 500), rng.integers(0, 5, 500)
    expected = sklearn.metrics.f1_score(
        label, predicted, labels=[0, 1, 2, 3], average="macro", zero_division=0
    )
    assert frame.macro_f1(predicted, label, 5) == pytest.approx(expected)


@pytest.mark.parametrize("classes", [CLASSES, 0])
def test_the_forest_is_about_as_good_as_scikit_learns(classes):
    columns, label = table(2000)
    x = np.stack([np.unique(v, return_inverse=True)[1] for v in columns.values()], 1)
    half, rest = slice(0, 1400), slice(1400, 2000)
    score = label + columns["hint"]
    known = label if classes else score
    said = forest.forest(x[half], known[half], x[rest], classes, np.random.default_rng(0))
    if classes:
        reference = sklearn.ensemble.ExtraTreesClassifier(24, max_depth=16, random_state=0)
        expected = (reference.fit(x[half], label[half]).predict(x[rest]) == label[rest]).mean()
        np.testing.assert_allclose(said.sum(1), 1, rtol=1e-6)
        assert (said.argmax(1) == label[rest]).mean() > expected - 0.1
    else:
        reference = sklearn.ensemble.ExtraTreesRegressor(24, max_depth=16, random_state=0)
        expected = np.corrcoef(reference.fit(x[half], score[half]).predict(x[rest]), score[rest])
        assert np.corrcoef(said[:, 0], score[rest])[0, 1] > expected[0, 1] - 0.03


def test_rows_on_both_sides_are_counted():
    columns, label = table(400)
    x = np.stack(list(columns.values()), 1).astype(np.float32)
    train, test = x[:300], x[300:]
    assert neighbours.cross_duplicates(train, test) == 0
    mixed = np.concatenate([test, train[:7], train[:3], test[:5]])
    assert neighbours.cross_duplicates(train, mixed) == 10
    rows = np.r_[np.arange(400), np.arange(40)]
    twice = [frame.column(n, v[rows]) for n, v in columns.items()]
    side = (np.arange(300), np.arange(300, 440))
    target = frame.class_target(label[rows], ("a", "b", "c"))
    leaking = frame.make_frame(twice, target, sides=[side])
    found = [f for f in judged(leaking) if f.rule == "equal rows"]
    assert [(f.severity, round(f.value * 140)) for f in found] == [("leak", 40)]


def test_nearly_equal_rows_speak_for_their_twin_only():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 2000)
    x = rng.uniform(size=(2000, 3))
    x[1000:1500] = x[:500] + 1e-6
    label[1000:1500] = label[:500]
    made = frame.make_frame(
        [frame.column(str(j), x[:, j]) for j in range(3)],
        frame.class_target(label, ("a", "b")),
        sides=[(np.arange(1000), np.arange(1000, 2000))],
    )
    found = neighbours.neighbours(made)
    assert found.equal == 0.0
    assert found.near == pytest.approx(0.5, abs=0.02)
    assert 0.6 < found.twin_score < 0.9


def test_folds_keep_equal_rows_and_groups_together():
    columns, label = table(500)
    rows = np.r_[np.arange(500), np.arange(500)]
    made = make({n: v[rows] for n, v in columns.items()}, label[rows])
    assert sum(len(test) for _, test in made.sides) == 1000
    assert all(not set(a % 500) & set(b % 500) for a, b in made.sides)
    group = np.arange(1000) % 7
    by_group = frame.make_frame(
        [frame.column("x", np.arange(1000.0))],
        frame.class_target(group % 2, ("a", "b")),
        group=group,
        by_group=True,
    )
    assert all(not set(group[a]) & set(group[b]) for a, b in by_group.sides)


def test_what_cannot_be_scored_says_why():
    columns, label = table(400)

    def why(rows, label):
        some = make({n: v[:rows] for n, v in columns.items()}, label[:rows])
        return audit.audit_frame(some, rows=rows, cleaning={}).why

    assert "same target" in why(400, np.zeros(400, int))
    assert "too few" in why(60, label)
    assert "only one class" in why(400, (np.arange(400) < 5).astype(int))
    with pytest.raises(DataError, match="no column is left"):
        make({"x": columns["hint"]}, label, x={"default": False})
