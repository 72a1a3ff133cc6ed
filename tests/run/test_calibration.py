"""A run whose clients keep rows back: what is saved, judged, predicted and exported."""

import json

import jax
import numpy as np
import pytest
import scipy.special

from qoejax.data.aside import Aside
from qoejax.objectives import conformal
from qoejax.qoe.decide import Costs
from qoejax.run import (
    artefact,
    build,
    calibrate,
    calibration,
    coverage,
    evaluate,
    export,
    model,
    outputs,
    predict,
)
from qoejax.run.errors import RunError
from qoejax.run.train import train
from tests.run.conftest import tiny_config

KEPT = {"share": 0.4, "together": 10, "alpha": 0.2}


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory):
    """(workdir, model) of a run of three clients that each keep three episodes back."""
    workdir = tmp_path_factory.mktemp("calibrated") / "w"
    train(tiny_config(data_dir, calibration=KEPT, fed={"rounds": 2}), workdir)
    return workdir, model.load(workdir)


@pytest.fixture(scope="module")
def said(run):
    """Test rows, and the model's outputs on them."""
    _, trained = run
    rows, _ = evaluate.split_rows(trained)
    return rows, jax.device_get(trained.predictor()(trained.params, rows.x))


def test_nothing_changes_unless_it_is_asked_for(data_dir):
    data = build.data(tiny_config(data_dir))
    plain = build.population(tiny_config(data_dir), data)
    assert plain.asides == []
    assert plain.count.sum() == len(data.train.label)
    untouched = model.Model(data.spec, data.stats, {}, np.ones(9), np.zeros(20), None, False)
    assert calibrate.of_run(untouched, plain, data, print) is untouched
    kept = build.population(tiny_config(data_dir, calibration=KEPT), data)
    assert kept.count.sum() + sum(len(r) for own in kept.asides for r in own) == plain.count.sum()
    for own, part, whole in zip(kept.asides, kept.parts, plain.parts, strict=True):
        np.testing.assert_array_equal(np.sort(np.concatenate([*own, part])), np.sort(whole))
    staged = {row.tobytes() for row in kept.examples.x}
    index = np.concatenate([r for own in kept.asides for r in own])
    assert not any(row.tobytes() in staged for row in data.train.x[index])


def test_the_saved_model_is_judged_as_the_run_was(run):
    workdir, trained = run
    fitted = trained.calibration
    assert fitted.rows[0] + fitted.rows[1] == 90
    assert (fitted.alpha, fitted.method, len(fitted.thresholds)) == (0.2, "aps", 9)
    stored = json.loads((workdir / "evaluation.json").read_text())["uncertainty"]
    again = evaluate.on_test_split(trained).summary["uncertainty"]
    assert again["sets"]["coverage"] == pytest.approx(stored["sets"]["coverage"])
    assert [c["rows"] for c in again["sets"]["clients"]] == [20, 20, 20]
    assert stored["sets"]["clients"] == [pytest.approx(c) for c in again["sets"]["clients"]]
    assert set(stored["intervals"]) >= {"mos_voice_0s", "qome_telemetry_0s"}
    assert "rows of benign" in (workdir / "report.html").read_text()


def test_figures_are_those_of_a_loop_over_rows(run, said):
    trained, (rows, out) = run[1], said
    fitted = trained.calibration
    owner = np.arange(len(rows.label)) % 2
    found = coverage.judge(fitted, trained.spec, out, rows, owner)
    inside = calibration.class_sets(fitted, out["logits"])
    held = [inside[i, rows.label[i]] for i in range(len(rows.label))]
    assert found["sets"]["coverage"] == pytest.approx(np.mean(held))
    assert found["sets"]["clients"][1]["coverage"] == pytest.approx(np.mean(held[1::2]))
    assert found["sets"]["size"] == pytest.approx(np.mean(inside.sum(1)))
    low, high = calibration.intervals(fitted, out["mos"])
    held = (low[:, 1] <= rows.mos[:, 1]) & (rows.mos[:, 1] <= high[:, 1])
    name = trained.spec.services[1].label
    assert found["intervals"][name]["coverage"] == pytest.approx(held.mean())
    p = scipy.special.softmax(out["logits"] / np.float32(fitted.temperature), 1)
    nll = -np.mean(np.log(p[np.arange(len(p)), rows.label]))
    assert found["nll"]["after"] == pytest.approx(nll, rel=1e-4)
    assert inside[np.arange(len(p)), p.argmax(1)].all()


@pytest.mark.parametrize("method", ["aps", "lac", "aps_whole"])
@pytest.mark.parametrize("per_class", [False, True])
def test_clients_sums_are_the_fit_to_all_rows_and_exact_up_to_a_bin(run, said, method, per_class):
    """Of test rows, which are more than a tiny run keeps back."""
    rows, out = said
    parts = np.array_split(np.random.default_rng(0).permutation(len(rows.label)), 7)
    clients = [Aside(part[::3], np.setdiff1d(part, part[::3])) for part in parts]
    pooled = [Aside(*map(np.concatenate, zip(*clients, strict=True)))]
    options = {"alpha": 0.2, "method": method, "per_class": per_class}
    ours, whole = (calibration.fit(out, rows, who, **options) for who in (clients, pooled))
    assert ours.temperature == pytest.approx(whole.temperature, rel=1e-7)
    np.testing.assert_allclose(ours.thresholds, whole.thresholds, rtol=1e-2, atol=1e-9)
    assert ours.margins == whole.margins
    assert len(set(ours.thresholds)) > 1 or not per_class
    own = pooled[0].conformal
    _, scores = calibration._scores(method, ours.temperature, out["logits"])
    true = conformal.of_label(scores, rows.label)[own]
    for c, threshold in enumerate(ours.thresholds):
        these = true[rows.label[own] == c] if per_class else true
        exact = min(conformal.quantile(these, 0.2), conformal.CAP)
        at = np.searchsorted(calibration.CLASS_EDGES, exact, side="left")
        assert abs(np.searchsorted(calibration.CLASS_EDGES, threshold) - at) <= 1


def test_intervals_grow_with_what_they_must_hold(run, said):
    rows, out = said
    who = [Aside(np.arange(0, 60, 4), np.setdiff1d(np.arange(60), np.arange(0, 60, 4)))]
    widths = []
    for alpha in (0.5, 0.1):
        fitted = calibration.fit(out, rows, who, alpha=alpha, method="lac", per_class=False)
        low, high = calibration.intervals(fitted, out["mos"])
        assert ((low >= 1) & (low <= high) & (high <= 5)).all()
        held = ((low <= rows.mos) & (rows.mos <= high))[who[0].conformal].mean(0)
        assert (held >= 1 - alpha).all()  # on the very rows it was fitted to
        widths.append((high - low).mean())
    assert widths[0] < widths[1]
    unrated = rows._replace(mos_mask=np.zeros_like(rows.mos_mask))
    fitted = calibration.fit(out, unrated, who, alpha=0.1, method="lac", per_class=False)
    assert set(fitted.margins) == {None}
    few = calibration.fit(out, rows, [Aside(np.arange(30), np.arange(30, 35))], alpha=0.1,
                          method="lac", per_class=False)  # fmt: skip
    assert set(few.thresholds) == {conformal.CAP}
    assert set(few.margins) == {calibration.WIDEST}
    assert calibration.class_sets(few, out["logits"]).all()


def test_verdicts_and_the_exported_model_carry_it(run, said, tmp_path):
    trained, (rows, out) = run[1], said
    table = predict.columns(trained, rows.x, Costs())
    sets = [text.split("|") for text in table["class_set"]]
    assert all(one[0] == best for one, best in zip(sets, table["class"], strict=True))
    inside = calibration.class_sets(trained.calibration, out["logits"])
    assert [len(one) for one in sets] == inside.sum(1).tolist()
    low, _ = calibration.intervals(trained.calibration, out["mos"])
    np.testing.assert_allclose(table["mos_voice_0s_low"], low[:, 0], atol=1e-4)
    plain = outputs.columns(trained.spec, trained.mos_mean, out, Costs())
    assert "class_set" not in plain
    np.testing.assert_array_equal(plain["class"], table["class"])
    export.write(trained, tmp_path)
    assert artefact.load(tmp_path).calibration == trained.calibration


def test_what_cannot_be_calibrated_is_refused(data_dir, tmp_path):
    for section, message in (
        ({"calibration": KEPT | {"method": "best"}}, r"calibration.method is 'best': expected one"),
        ({"calibration": KEPT | {"share": 1.0}}, r"calibration.share is 1.0: expected at least 0"),
        ({"calibration": KEPT | {"alpha": 0.0}}, r"calibration.alpha is 0.0: expected more than"),
        ({"calibration": KEPT | {"together": 0}}, r"calibration.together is 0: expected 1 or"),
        (
            {"calibration": KEPT, "privacy": {"mechanism": "user", "clip": 1.0, "noise": 1.0}},
            r"sums carry no noise",
        ),
        ({"calibration": KEPT, "fed": {"algorithm": "local_only"}}, r"a model of its own"),
    ):
        with pytest.raises(RunError, match=message):
            train(tiny_config(data_dir, **section), tmp_path / "w")
    with pytest.raises(RunError, match=r"calibration cannot be read: KeyError 'alpha'"):
        calibration.from_json({"method": "aps"})
