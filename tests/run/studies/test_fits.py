"""Fits that are kept, and contenders that are shown less."""

import types

import ml_collections
import numpy as np
import pytest

from qoejax.run import study
from qoejax.run.baselines import Contender, Problem, Said
from qoejax.run.errors import RunError
from qoejax.run.studies import draw, fits, overview
from qoejax.run.studies.pairs import Gap
from qoejax.types import Examples
from tests.run.studies.test_pairs import SERVICES, SPEC


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return Examples(
        rng.normal(size=(12, 4, 2)).astype(np.float32), np.arange(12, dtype=np.int32) % 3,
        rng.uniform(1, 5, (12, len(SERVICES))).astype(np.float32),
        np.ones((12, len(SERVICES)), bool),
        np.ones(12, np.float32),
    )  # fmt: skip


@pytest.fixture
def given():
    """A contender that keeps what it was given, and says what a model of nothing would."""
    seen = []

    def fit(problem, settings, seed):
        seen.append(problem.rows)

        def predict(rows):
            seen.append(rows)
            return Said(np.full((len(rows.label), 3), 1 / 3), None)

        return predict

    return seen, Contender(fit, {})


def test_a_fit_is_made_once(tmp_path, rows, given, monkeypatch):
    seen, contender = given
    monkeypatch.setitem(fits.EXTRA, "mine", contender)
    data = types.SimpleNamespace(test=rows, train=rows, spec=SPEC)
    task = fits.Task("made/up", ml_collections.ConfigDict({"a": {"b": 1}}), data, np.arange(12))
    context = study.Context("", tmp_path / "one", 2, 1.0)
    first = fits.all_seeds(context, task, "mine")
    again = fits.all_seeds(context._replace(folder=tmp_path / "two"), task, "mine")
    assert len(seen) == 4  # two seeds, each fitted and asked
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.probability, b.probability)
        assert a.mos is None
        assert b.mos is None
    fits.said(context, task, "mine", 0, {"model.width": 3})
    assert len(seen) == 6
    for path in (tmp_path / "fits").glob("*.npz"):
        path.unlink()
    with pytest.raises(RunError, match="cannot be read as a kept fit"):
        fits.said(context, task, "mine", 0)


def test_less_is_shown(rows, given):
    seen, contender = given
    problem = Problem(ml_collections.ConfigDict(), SPEC, rows)
    fits.forecasting(contender).fit(problem, {}, 0)
    assert seen[0].mos_mask.any(0).nonzero()[0].tolist() == fits.services(SPEC)
    fits.shuffled(contender).fit(problem, {}, 0)
    assert sorted(seen[1].label) == sorted(rows.label)
    assert (seen[1].label != rows.label).any()
    np.testing.assert_array_equal(seen[1].x, rows.x)


def test_an_unknown_dataset_is_named(tmp_path):
    context = study.Context("", tmp_path, 2, 1.0, {"a/b": ml_collections.ConfigDict()})
    with pytest.raises(RunError, match=r"no config is known for c/d: expected a/b"):
        fits.config(context, "c/d")


def test_prepared_are_those_with_rows(tmp_path):
    for name, file in (("ton_iot/10class", "dataset_info.json"), ("other/one", "half")):
        folder = tmp_path / name / "1.0.0"
        folder.mkdir(parents=True)
        (folder / file).touch()
    names = ["simulated_iot/small", "ton_iot/10class", "other/one", "absent/one"]
    context = study.Context(str(tmp_path), tmp_path, 2, 1.0, dict.fromkeys(names))
    assert fits.prepared(context) == names[:2]


def test_figures_are_drawn(tmp_path):
    assert not overview.draw([{"dataset": "a", "model": "b", "note": "not there"}], tmp_path / "no")
    rows = [
        {"dataset": "a", "model": "qoenet", "macro-F1": [0.8, 0.01], "RMSE": [1.0, 0.0]},
        {"dataset": "b", "model": "stump", "macro-F1": [0.2, 0.0]},
    ]
    assert overview.draw(rows, tmp_path / "overview.png")
    assert (tmp_path / "overview.png").stat().st_size > 1000
    gap = Gap(0.1, -5.0, 5.2, 0.05, 0.15)
    figure = draw.gaps({"one": {"a": gap, "b": gap}, "two": {"a": gap}})
    low, high = figure.axes[0].get_xlim()
    assert -1 < low < 0 < high < 1  # what two seeds leave open does not hide the rest
