"""Studies from rows to outcome, with contenders that guess: cheap, and every step is taken."""

import concurrent.futures

import numpy as np
import pytest

from qoejax.run import claims_page, files, study
from qoejax.run.baselines import Contender, Said
from qoejax.run.studies import fits, forecasts, holdouts, joint, needed, precision
from qoejax.run.studies.fits import SIMULATED
from tests.run.conftest import tiny_config

SIZES = {"net": "qoenet", "width": 16, "depth": 1, "heads": 2, "mlp": 32, "hidden": 32}


def guess(name, fitted=None):
    """Better the shorter the name; it has seen the test rows, which is no matter here."""

    def fit(problem, settings, seed):
        if fitted is not None:
            fitted.append((name, seed))

        def predict(rows):
            rng = np.random.default_rng([len(name), seed])
            classes = len(problem.spec.label_names)
            noise = rng.random((len(rows.label), classes))
            odds = np.eye(classes)[rows.label] + 0.2 * len(name) * noise
            noise = 0.05 * len(name) * rng.normal(size=rows.mos.shape)
            return Said(odds / odds.sum(1, keepdims=True), rows.mos + noise)

        return predict

    return Contender(fit, {})


@pytest.fixture
def context(data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(fits, "contender", guess)
    config = tiny_config(data_dir, fed={"algorithm": "centralised"}).unlock()
    config.model = SIZES
    return study.Context(str(data_dir), tmp_path / "study", 2, 0.1, {SIMULATED: config})


@pytest.mark.parametrize(
    "module", [pytest.param(forecasts, marks=pytest.mark.slow), joint, needed, precision]
)
def test_from_rows_to_outcome(module, context):
    context.folder.mkdir()
    found = module.study(context)
    assert found.verdict in study.VERDICTS
    assert all((context.folder / name).exists() for name in found.figures)
    page = claims_page.table(files.plain(list(found.rows)))
    assert len(page) == len(found.rows) + 3
    again = module.study(context)
    assert files.plain(again._asdict()) == files.plain(found._asdict())


def test_fits_ahead_are_those_that_are_asked_for(context, monkeypatch):
    fitted = []
    monkeypatch.setattr(fits, "contender", lambda name: guess(name, fitted))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        context = context._replace(pool=pool)
        task = fits.task(context, SIMULATED)
        fits.tuned_ahead(context, task, ["one", "three"], 1)
        fits.ahead(context, task, [("one", 2, {}), ("three", 1, {})])
    assert fitted == [("one", 0), ("three", 0), ("one", 1)]
    alone = context._replace(pool=None)
    fits.all_seeds(alone, task, "one")
    fits.said(alone, task, "three", 0)
    assert len(fitted) == 3
    fits.said(alone, task, "three", 1)
    assert len(fitted) == 4


def test_what_draws_nothing_is_fitted_once(context, monkeypatch):
    fitted = []
    once = guess("same", fitted)._replace(seeded=lambda settings: settings.get("share", 1.0) < 1.0)
    monkeypatch.setattr(fits, "contender", lambda name: once)
    task = fits.task(context, SIMULATED)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        fits.ahead(context._replace(pool=pool), task, [("same", 2, {})])
    first, second = fits.all_seeds(context, task, "same")
    np.testing.assert_array_equal(first.probability, second.probability)
    assert fitted == [("same", 0)]
    fits.all_seeds(context, task, "same", {"share": 0.5})
    assert fitted[1:] == [("same", 0), ("same", 1)]


def test_holdouts_from_rows_to_outcome(context, monkeypatch):
    context.folder.mkdir()
    monkeypatch.setattr(holdouts, "chosen", lambda context, attacks: attacks[:2])
    found = holdouts.study(context)
    assert len(found.rows) == 2
    assert found.verdict in study.VERDICTS


def test_hold_outs_scale():
    context = study.Context("", None, 2, 1.0)
    names = holdouts.chosen(context, list("abcdefgh"))
    assert names == ["a", holdouts.CAPACITY, *"bc"]
    assert holdouts.chosen(context._replace(scale=1 / 12), list("abcdefgh")) == names[:2]


def test_twins_half_the_size(context):
    task = fits.task(context, SIMULATED)
    whole = joint._parameters(task, {}, "")
    size = joint.half(task)
    both = sum(joint._parameters(task, size, own) for own in joint.OTHER)
    assert 0.8 < both / whole < 1.2
    alone = [joint._parameters(task, {}, own) for own in joint.OTHER]
    assert all(n < whole < sum(alone) for n in alone)
