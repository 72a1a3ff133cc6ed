import numpy as np
import pytest

from qoejax.run import build, distil, estimators
from qoejax.run.errors import RunError
from qoejax.types import Examples
from tests.run.conftest import tiny_config

CLASSES = 3


@pytest.fixture
def few_trees(monkeypatch):
    """A forest of ten trees."""
    forest = estimators.CLASSIFIERS["random_forest"]
    few = forest._replace(fixed={"n_estimators": 10})
    monkeypatch.setitem(estimators.CLASSIFIERS, "random_forest", few)


def config(data_dir="", **keys):
    return tiny_config(data_dir, distil={"teacher": "forest", "folds": 3, **keys})


def rows_of(label, seed=0):
    """Rows whose first feature tells the class, beside two features of noise; all are rated."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(len(label), 1, 3)).astype(np.float32)
    x[:, 0, 0] += 4 * np.maximum(label, 0)
    mos = np.full((len(label), 1), 3.0, np.float32)
    return Examples(x, label, mos, mos > 0, np.ones(len(label), np.float32))


def labels(count, seed=0):
    return np.random.default_rng(seed).integers(CLASSES, size=count).astype(np.int32)


def test_copies_are_labelled_as_asked(few_trees):
    """Rows first; plain copies by trust; mixed copies by the teacher, from a row and one near."""
    rows = rows_of(labels(120))
    out = distil.copies(config(plain=2, trust=0.0, mixed=2), rows, CLASSES, (0,))
    assert len(out.label) == 5 * 120
    for leaf, own in zip(out, rows, strict=True):
        np.testing.assert_array_equal(leaf[:120], own)
        assert leaf.dtype == own.dtype
    assert not out.mos_mask[120:].any()
    np.testing.assert_array_equal(out.x[120:360], np.concatenate([rows.x] * 2))
    np.testing.assert_array_equal(out.label[120:360], np.concatenate([rows.label] * 2))
    new, own = out.x[360:480], rows.x
    assert 0.3 < (new != own).mean() < 0.7
    for f in range(3):
        assert np.isin(new[:, 0, f], own[:, 0, f]).all()
    assert (out.label[360:] == np.round(out.x[360:, 0, 0] / 4)).mean() > 0.8


def test_the_teacher_has_not_seen_the_row_it_labels(few_trees):
    """Labels of pure noise cannot be told by the others; trees that have seen them tell them."""
    rows = rows_of(np.zeros(300, np.int32))._replace(label=labels(300, seed=1))
    taught = distil.teacher(config(), rows, CLASSES, 0)
    np.testing.assert_allclose(taught.own.sum(1), 1, rtol=1e-6)
    assert (taught.own.argmax(1) == rows.label).mean() < 0.5
    assert (taught.other(rows).argmax(1) == rows.label).mean() > 0.9


def test_folds_are_stratified_and_labels_follow_the_probabilities():
    label = np.repeat(np.arange(3), (30, 9, 3)).astype(np.int32)
    fold = distil.folds_of(label, 3, np.random.default_rng(0))
    for c, share in enumerate((10, 3, 1)):
        np.testing.assert_array_equal(np.bincount(fold[label == c]), [share] * 3)
    probability = np.tile([0.0, 0.25, 0.75, 0.0], (8000, 1))
    counts = np.bincount(distil.drawn(probability, np.random.default_rng(0)), minlength=4)
    assert counts[0] == counts[3] == 0
    assert counts[1] / 8000 == pytest.approx(0.25, abs=0.02)


def test_unlabelled_rows_are_labelled_by_the_teacher_and_too_few_rows_stay(few_trees):
    label = labels(90)
    rows = rows_of(label)._replace(label=np.where(np.arange(90) < 60, label, -1).astype(np.int32))
    out = distil.copies(config(plain=1, mixed=0), rows, CLASSES, (0,))
    assert (out.label[90:] >= 0).all()
    two = Examples(*(leaf[:2] for leaf in rows))
    assert distil.copies(config(), two, CLASSES, (0,)) is two


def test_each_client_copies_its_own_rows(few_trees):
    """Clients of one class each: no copy carries another's class or features."""
    rows = rows_of(np.repeat([0, 2], 20).astype(np.int32))
    parts = [np.arange(20, 40), np.arange(20)]
    held, offset, count = distil.staged(config(plain=1, mixed=1), rows, parts, CLASSES, 0)
    assert offset.tolist() == [0, 60]
    assert count.tolist() == [60, 60]
    assert set(held.label[:60]) == {2}
    assert np.isin(held.x[60:, 0, 0], rows.x[:20, 0, 0]).all()
    again, _, _ = distil.staged(config(plain=1, mixed=1), rows, parts, CLASSES, 0)
    np.testing.assert_array_equal(held.label, again.label)
    np.testing.assert_array_equal(held.x, again.x)


def test_a_run_has_copies_only_if_asked(data_dir, few_trees):
    plain = tiny_config(data_dir)
    data = build.data(plain)
    assert build.population(plain, data).count.sum() == len(data.train.label)
    several = build.population(config(data_dir, plain=1, mixed=1), data)
    assert several.count.sum() == 3 * len(data.train.label)
    assert sum(len(part) for part in several.parts) == len(data.train.label)


def test_what_cannot_work_is_refused(data_dir, monkeypatch):
    build.check(config(data_dir))
    with pytest.raises(
        RunError, match=r"config.distil.teacher is 'sage': expected one of boosting, both"
    ):
        build.check(config(data_dir, teacher="sage"))
    with pytest.raises(RunError, match=r"trust 1.5, folds 3: expected copies of 0 or more"):
        build.check(config(data_dir, trust=1.5))
    private = tiny_config(
        data_dir, distil={"teacher": "forest"}, privacy={"mechanism": "example", "clip": 1.0}
    )
    with pytest.raises(RunError, match=r"a teacher's labels say more"):
        distil.check(private)
    nowhere = estimators.CLASSIFIERS["random_forest"]._replace(module="nowhere.trees")
    monkeypatch.setitem(estimators.CLASSIFIERS, "random_forest", nowhere)
    with pytest.raises(RunError, match=r"needs nowhere, .* expected the extra 'baselines'"):
        distil.copies(config(), rows_of(labels(30)), CLASSES, (0,))
