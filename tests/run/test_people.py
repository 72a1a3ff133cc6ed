"""Training and evaluation on made-up scores of people: one class, intervals, the source's scale."""

import json

import numpy as np
import pyarrow.csv
import pytest

from configs import human_qoe
from qoejax.data import load, rated, table
from qoejax.qoe import decide
from qoejax.run import evaluate, model, predict
from qoejax.run.errors import RunError
from qoejax.run.train import train
from tests.data import dummy


def trained(tmp, name, **sections):
    files = tmp / "files"
    dummy.write(files / f"{name}.csv", dummy.rated(f"human_qoe/{name}", 240, seed=5))
    c = human_qoe.get_config(name).unlock()
    c.data.update(dir=str(tmp / "data"), manual_dir=str(files))
    c.model = {"net": "mlp", "width": 16, "depth": 1, "dropout": 0.0}
    c.fed.rounds, c.evaluation.every = 30, 15
    c.client.update(lr=0.01, batch=32)
    for section, values in sections.items():
        c[section].update(values)
    return c.lock(), files / f"{name}.csv"


@pytest.fixture(scope="module")
def streaming(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("people")
    config, path = trained(tmp, "p1203")
    return config, path, tmp / "run", train(config, tmp / "run")


def test_training_beats_the_mean_and_shows_no_class_figures(streaming):
    _, _, workdir, summary = streaming
    scores = summary["mos"]["streaming"]
    assert scores["skill_over_mean"] > 0.3
    assert scores["rmse"] < scores["rmse_of_mean"]
    assert summary["accuracy"] is None
    assert summary["macro_f1"] is None
    saved = json.loads((workdir / "evaluation.json").read_text())
    assert "nothing to tell apart" in saved["one_class"]
    assert saved["majority_class"] == {"accuracy": None, "macro_f1": None}
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert {r["accuracy"] for r in rows} == {None}
    assert "accuracy" not in rows[-1]["test"]
    page = (workdir / "report.html").read_text()
    assert "One class only" in page
    assert "macro-F1" not in page
    assert not (workdir / "plots" / "confusion.png").exists()


def test_rmse_star_takes_the_intervals_of_the_data(streaming):
    _, _, workdir, summary = streaming
    run = model.load(workdir)
    rows, width = evaluate.split_rows(run)
    result = evaluate.evaluate_model(run, rows, width)
    error = np.abs(result.mos_true - result.mos_predicted)[:, 0].astype(np.float64)
    excess = np.maximum(error - 0.25, 0)  # every "ci" cell of the made-up file is 0.25
    scores = result.summary["mos"]["streaming"]
    expected = np.sqrt(np.sum(excess**2) / (len(error) - 1))
    assert scores["rmse_star"] == pytest.approx(expected, rel=1e-6)
    assert scores["outlier_ratio"] == pytest.approx(np.mean(error > 0.25))
    assert scores["rmse_star"] == pytest.approx(summary["mos"]["streaming"]["rmse_star"])


def test_a_file_is_evaluated_with_and_without_its_intervals(streaming, tmp_path):
    _, path, workdir, _ = streaming
    run = model.load(workdir)
    whole = evaluate.evaluate_file(run, path, "human_qoe/p1203")
    assert whole["rows"] == whole["mos"]["streaming"]["n"] == 240
    assert whole["mos"]["streaming"]["rmse_star"] > 0
    lines = [line.split(",") for line in path.read_text().splitlines()]
    at = [i for i, name in enumerate(lines[0]) if name not in ("ci", "pvs_id")]
    less = dummy.write(tmp_path / "less.csv", [[line[i] for i in at] for line in lines])
    scores = evaluate.evaluate_file(run, less, "human_qoe/p1203")["mos"]["streaming"]
    assert scores["rmse_star"] is None
    assert scores["rmse"] == pytest.approx(whole["mos"]["streaming"]["rmse"])
    unscored = dummy.write(tmp_path / "unscored.csv", [line[:-1] for line in lines])
    with pytest.raises(RunError, match="no score in any row"):
        evaluate.evaluate_file(run, unscored, "human_qoe/p1203")
    with pytest.raises(RunError, match="this model was trained on human_qoe/p1203"):
        evaluate.evaluate_file(run, path, "human_qoe/vlc")
    lines[3][-1] = "5.5"
    bad = dummy.write(tmp_path / "bad.csv", lines)
    with pytest.raises(RunError, match=r"row 3 has 5.5 in 'mos'; expected a score from 1 to 5"):
        evaluate.evaluate_file(run, bad, "human_qoe/p1203")


def test_predictions_are_scores_with_an_interval_and_no_class(streaming, tmp_path):
    _, path, workdir, _ = streaming
    target = tmp_path / "out.csv"
    said = predict.predict(model.load(workdir), path, target, decide.Costs(damage=5.0))
    assert (said["rows"], said["classes"], said["actions"]) == (240, None, None)
    out = pyarrow.csv.read_csv(target)
    name = "mos_streaming"
    assert out.column_names == ["row", name, f"{name}_low", f"{name}_high"]
    low, mean, high = (out[name + end].to_numpy() for end in ("_low", "", "_high"))
    assert (low < high).all()
    assert ((mean >= 1) & (mean <= 5)).all()


def test_errors_on_the_scale_that_people_used():
    spec = table.Spec(
        "human_qoe/cloud_gaming", (), ("session",), (table.Service("gaming"),), {}, "session", 1,
        human=True,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    true, forecast = rng.uniform(1, 5, (2, 50, 1))
    scores = evaluate._scores(spec, 0, forecast, true, np.ones((50, 1), bool), true.mean(0))
    own = scores["on_source_scale"]
    assert (own["low"], own["high"]) == rated.scale(spec) == (0, 6)
    by_hand = np.sqrt(np.sum((1.5 * (true - forecast)) ** 2) / 49)
    assert own["rmse"] == pytest.approx(by_hand)
    assert own["rmse_of_mean"] == pytest.approx(1.5 * true.std())


@pytest.mark.slow
def test_subjects_as_clients_with_models_of_their_own(tmp_path):
    config, _ = trained(
        tmp_path, "poqemon", fed={"algorithm": "local_only", "rounds": 2}, clients={"count": 3}
    )
    train(config, tmp_path / "run")
    run = model.load(tmp_path / "run")
    result = evaluate.evaluate_model(run, *evaluate.split_rows(run))
    assert len(result.summary["clients"]["skill_over_mean"]) == 3
    _, rows = load.table(load.builder("human_qoe/poqemon", config.data.dir), "train")
    assert (rows.group >= 0).all()
