"""The comparison with tree ensembles: its figures, and that ours are those of the command."""

import numpy as np
import pytest

from configs import human_qoe
from qoejax.data import load
from qoejax.qoe import scales
from qoejax.run import evaluate, model, subjects
from qoejax.run.train import train
from tests.data import dummy


def rows(seed=0, n=60):
    rng = np.random.default_rng(seed)
    true = rng.uniform(1, 5, n)
    near, far = (true + rng.normal(0, s, n) for s in (0.3, 1.5))
    return true, near, far, rng.integers(0, 12, n)


def test_figures_of_plain_rows_are_those_of_the_scales():
    true, near, _, _ = rows()
    half = np.full(len(true), 0.2)
    got = subjects.weighted(np.ones((1, len(true))), true, near, half)
    assert got["plcc"][0] == pytest.approx(scales.plcc(true, near))
    assert got["rmse"][0] == pytest.approx(scales.rmse(true, near, dof=0))
    assert got["rmse_star"][0] == pytest.approx(scales.rmse_star(true, near, half, dof=0))


def test_a_weight_is_a_number_of_copies():
    true, near, _, _ = rows()
    copies = np.random.default_rng(1).integers(0, 4, len(true))
    a, b = np.repeat(true, copies), np.repeat(near, copies)
    got = subjects.weighted(copies[None].astype(float), true, near, None)
    assert got["plcc"][0] == pytest.approx(scales.plcc(a, b))
    assert got["rmse"][0] == pytest.approx(scales.rmse(a, b, dof=0))


def test_differences_have_the_sign_of_the_better_forecast():
    true, near, far, group = rows()
    forecasts = {"ours": np.stack([near, near]), "far": far[None], "mean": true[None]}
    (name, gap), = subjects.differences(forecasts, true, group, None, 200).items()  # fmt: skip
    assert name == "far"
    assert gap["plcc"]["value"] > 0 > gap["rmse"]["value"]
    low, high = gap["plcc"]["interval"]
    assert 0 < low < gap["plcc"]["value"] < high
    same = subjects.differences({"ours": near[None], "x": near[None]}, true, group, None, 200)
    assert same["x"]["plcc"]["value"] == 0
    assert list(same["x"]["rmse"]["interval"]) == [0, 0]


def test_folds_keep_subjects_whole():
    group = rows(n=200)[3]
    seen = []
    for fit, ask in subjects.folds(group, 4):
        assert not set(group[fit]) & set(group[ask])
        seen.append(ask)
    assert sorted(np.concatenate(seen)) == list(range(200))


@pytest.mark.slow
def test_the_first_seed_is_the_run_of_the_command(tmp_path):
    c = human_qoe.get_config("poqemon").unlock()
    c.data.update(dir=str(tmp_path / "data"))
    c.data.manual_dir = str(dummy.BUILDERS / "human_qoe" / "dummy_data")
    c.model = {"net": "mlp", "width": 8, "depth": 1}
    c.fed.rounds = 3
    train(c.lock(), tmp_path / "run")
    run = model.load(tmp_path / "run")
    expected = evaluate.evaluate_model(run, *evaluate.split_rows(run)).mos_predicted[:, 0]
    built = load.builder(c.data.name, c.data.dir)
    spec, fit = load.table(built, "train")
    got = subjects.ours(c, spec, fit, load.table(built, "test")[1], seeds=2)
    np.testing.assert_allclose(got[0], expected, rtol=1e-6)
    assert np.abs(got[1] - got[0]).max() > 1e-3
