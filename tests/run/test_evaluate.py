import gzip
import json
import pathlib
import shutil

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest

from configs import base
from qoejax.data import load, table
from qoejax.qoe.decide import ACTIONS, Costs
from qoejax.run import evaluate, model, outputs, predict
from qoejax.run.errors import RunError
from qoejax.run.train import train

DUMMY = pathlib.Path(__file__).parents[2] / "qoejax/data/builders/ton_iot/dummy_data"


@pytest.fixture(scope="module")
def ton(tmp_path_factory, data_dir):
    """A tiny model of the dummy TON_IoT rows, with the file they came from."""
    load.builder("ton_iot/10class", data_dir, DUMMY)
    c = base.get_config()
    c.data.update(name="ton_iot/10class", dir=str(data_dir))
    c.clients.update(partition="iid", count=2, min_size=1)
    c.model = {"net": "mlp", "width": 8, "depth": 1}
    c.fed.rounds = 2
    c.client.batch = 16
    c.perf.update(client_axis="turn", rounds_per_dispatch=2)
    workdir = tmp_path_factory.mktemp("ton") / "w"
    train(c, workdir)
    return workdir, next(p for p in sorted(DUMMY.rglob("*.csv*")))


def test_saved_model_gives_the_run_s_own_numbers(wired_run):
    workdir, summary = wired_run
    trained = model.load(workdir)
    result = evaluate.evaluate_model(trained, *evaluate.split_rows(trained))
    stored = json.loads((workdir / "evaluation.json").read_text())
    assert result.summary["macro_f1"] == summary["macro_f1"] == stored["macro_f1"]
    assert set(stored) >= {
        "accuracy", "macro_f1", "weighted_f1", "precision", "recall", "mcc", "balanced_accuracy",
        "pr_auc", "fpr_at_95_recall", "ece", "per_class", "mos",
    }  # fmt: skip
    assert set(stored["mos"]["voice_1s"]) >= {
        "plcc", "srocc", "rmse", "rmse_star", "outlier_ratio", "mae", "skill",
    }  # fmt: skip


def test_skill_is_over_the_training_rows_mean(wired_run):
    trained = model.load(wired_run[0])
    rows, _ = evaluate.split_rows(trained)
    result = evaluate.evaluate_model(trained, rows)
    target, constant = np.asarray(rows.mos[:, 1], np.float64), trained.mos_mean[1]
    error = target - result.mos_predicted[:, 1]
    want = 1 - np.mean(error**2) / np.mean((target - constant) ** 2)
    assert result.summary["mos"]["voice_1s"]["skill_over_mean"] == pytest.approx(want, rel=1e-4)


def test_raw_file_is_read_as_it_was_prepared(ton):
    workdir, source = ton
    trained = model.load(workdir)
    out = evaluate.evaluate_file(trained, source, "ton_iot/10class")
    assert out["rows"] == out["read"]["labelled"] > 0
    assert 0 <= out["macro_f1"] <= 1
    assert out["deduplicated"]["rows"] <= out["rows"]
    assert out["mos"] is None


def test_attacks_without_a_training_row_are_judged_as_attacks(ton):
    trained = model.load(ton[0])
    rows, _ = evaluate.split_rows(trained)
    assert evaluate.evaluate_model(trained, rows).summary["unseen"] is None
    names = trained.spec.label_names
    label, benign = np.asarray(rows.label), names.index(trained.spec.benign)
    c = next(c for c in np.unique(label) if c != benign)
    counts = np.where(np.arange(len(names)) == c, 0, trained.label_counts)
    result = evaluate.evaluate_model(trained._replace(label_counts=counts), rows)
    alarm = result.probability[label == c].argmax(-1) != benign
    expected = {"rows": int((label == c).sum()), "taken_for_an_attack": float(alarm.mean())}
    assert result.summary["unseen"] == {names[c]: expected}


def test_wrong_dataset_is_named(ton):
    workdir, source = ton
    with pytest.raises(RunError, match="was trained on ton_iot/10class"):
        evaluate.evaluate_file(model.load(workdir), source, "edge_iiotset/15class")


def test_missing_input_is_named(ton, tmp_path):
    with pytest.raises(RunError, match=r"nothing\.csv is not a file"):
        evaluate.evaluate_file(model.load(ton[0]), tmp_path / "nothing.csv", "ton_iot/10class")


def without_columns(source, target, names):
    table = pyarrow.csv.read_csv(source)
    pyarrow.csv.write_csv(table.drop_columns(names), target)


def test_rows_without_labels_can_be_predicted_but_not_scored(ton, tmp_path):
    workdir, source = ton
    unlabelled = tmp_path / "rows.csv"
    without_columns(source, unlabelled, ["type", "src_ip"])
    trained = model.load(workdir)
    with pytest.raises(RunError, match="no label column"):
        evaluate.evaluate_file(trained, unlabelled, "ton_iot/10class")
    out = predict.predict(trained, unlabelled, tmp_path / "out.csv", Costs())
    verdicts = pyarrow.csv.read_csv(tmp_path / "out.csv")
    assert verdicts.num_rows == out["rows"] == sum(out["actions"].values())
    assert set(verdicts["class"].to_pylist()) <= set(trained.spec.label_names)
    assert set(verdicts["action"].to_pylist()) <= set(ACTIONS)
    probability = np.asarray(verdicts["probability"])
    assert ((probability > 0) & (probability <= 1)).all()


def test_output_forms_agree(ton, tmp_path):
    workdir, source = ton
    trained = model.load(workdir)
    for name in ("a.csv", "a.csv.gz", "a.parquet"):
        predict.predict(trained, source, tmp_path / name, Costs())
    plain = (tmp_path / "a.csv").read_bytes()
    assert gzip.decompress((tmp_path / "a.csv.gz").read_bytes()) == plain
    parquet = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    assert (
        parquet["class"].to_pylist()
        == pyarrow.csv.read_csv(tmp_path / "a.csv")["class"].to_pylist()
    )


@pytest.mark.parametrize(
    ("target", "message"),
    [("out.txt", "expected a name ending in"), ("missing/../file/out.csv", "cannot be written")],
)
def test_bad_output_is_named(ton, tmp_path, target, message):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=message):
        predict.predict(model.load(ton[0]), ton[1], tmp_path / target, Costs())


def test_missing_column_is_named(ton, tmp_path):
    workdir, source = ton
    trained = model.load(workdir)
    gone = trained.stats.columns[trained.stats.outputs[0].column]
    without_columns(source, tmp_path / "rows.csv", [gone])
    with pytest.raises(RunError, match=gone):
        evaluate.evaluate_file(trained, tmp_path / "rows.csv", "ton_iot/10class")


def test_mos_comes_with_an_interval(wired_run):
    trained = model.load(wired_run[0])
    rows, _ = evaluate.split_rows(trained)
    table = predict.columns(trained, rows.x[:50], Costs())
    low, mid, high = (table[f"mos_voice_1s{s}"] for s in ("_low", "", "_high"))
    assert ((low >= 1) & (low <= high) & (high <= 5)).all()
    assert ((mid >= 1) & (mid <= 5)).all()


def test_damaged_models_are_refused(wired_run, tmp_path):
    with pytest.raises(RunError, match=r"model\.json is missing: expected a trained model"):
        model.load(tmp_path)
    copy = tmp_path / "w"
    shutil.copytree(wired_run[0] / "model", copy / "model")
    data = bytearray((copy / "model" / "params.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "model" / "params.npz").write_bytes(data)
    with pytest.raises(RunError, match="model"):
        model.load(copy)


def test_scores_of_machines_are_judged_on_their_own_scale_and_over_persistence():
    services = (table.Service("voice", 0), table.Service("voice", 3), table.Service("m", 3, "qome"))
    spec = table.Spec("toy", (), ("calm",), services, {}, "calm", 1)
    rng = np.random.default_rng(0)
    true = np.stack([*rng.uniform(1, 5, (2, 50)), rng.uniform(0, 1, 50)], 1)
    head = outputs.to_head(spec, true)
    assert head.min() >= 1
    np.testing.assert_allclose(head[:, 2], 1 + 4 * true[:, 2])
    np.testing.assert_allclose(outputs.from_head(spec, head), true)
    assert table.persistence(spec) == (None, 0, None)
    assert [s.label for s in services] == ["mos_voice_0s", "mos_voice_3s", "qome_m_3s"]
    mask = np.ones((50, 3), bool)
    judged = evaluate._scores(spec, 1, true, true, mask, true.mean(0))
    assert judged["skill"] == 1
    last = np.stack([true[:, 0], true[:, 0], true[:, 2]], 1)
    assert evaluate._scores(spec, 1, last, true, mask, true.mean(0))["skill"] == 0
    assert judged["skill_rows"] == 50
    mask[3, 0] = False  # One row has no score now: it is judged, but not against persistence.
    worst = last.copy()
    worst[3, 1] = 100.0
    judged = evaluate._scores(spec, 1, worst, true, mask, true.mean(0))
    assert (judged["skill"], judged["skill_rows"], judged["n"]) == (0, 49, 50)
    mask[:, 0] = False
    unrated = evaluate._scores(spec, 1, true, true, mask, true.mean(0))
    assert unrated["skill"] is None
    assert "skill" in unrated["missing"]
