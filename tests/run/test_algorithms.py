"""Whole runs with other algorithms, and what is refused before anything compiles."""

import json
import shutil

import numpy as np
import pytest

from qoejax.run import build, evaluate, model
from qoejax.run.errors import RunError
from qoejax.run.train import train
from qoejax.run.writer import read_rows
from tests.run.conftest import tiny_config

FEDPER = {
    "fed": {"algorithm": "fedper"},
    "participation": {"dropout": 0.3, "stragglers": 0.5, "devices": "mixed"},
}
WIRE = {"mode": "pqc", "signer": "openssl"}
SGD = {"optimizer": "sgd", "lr": 0.05}


@pytest.fixture(scope="module")
def fedper(data_dir, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("fedper") / "w"
    return workdir, train(tiny_config(data_dir, **FEDPER), workdir)


@pytest.mark.slow
def test_the_wire_changes_no_bit_of_a_personal_model(fedper, data_dir, tmp_path):
    """Heads stay with the clients, so less travels; clients that stop half-way send nothing."""
    wired = train(tiny_config(data_dir, **FEDPER, exchange=WIRE), tmp_path / "w")
    assert wired["params_sha256"] == fedper[1]["params_sha256"]
    rows = read_rows(tmp_path / "w" / "metrics.jsonl")
    assert sum(r["absent"] for r in rows) > 0
    names = [name for name, _ in tree_of(fedper[0])]
    for row in rows:
        assert row["wire"]["accepted"] == row["clients"] == 3 - row["absent"]
        shared = sum(leaf[0].nbytes for name, leaf in tree_of(fedper[0]) if "heads" not in name)
        assert row["wire"]["bytes_up"] == row["clients"] * (4663 + shared)
        assert sum(row["simulated"]["bytes_up"].values()) == row["wire"]["bytes_up"]
    assert any("heads" in name for name in names)


def tree_of(workdir):
    from qoejax import trees

    return trees.named_leaves(model.load(workdir).params)


def test_every_client_has_a_model_and_its_own_test_rows(fedper):
    workdir, summary = fedper
    trained = model.load(workdir)
    assert trained.stacked
    stored = json.loads((workdir / "evaluation.json").read_text())
    assert len(stored["clients"]["macro_f1"]) == 3
    own = stored["own_rows"]
    assert len(own["clients"]["accuracy"]) == 3
    assert own["mean"]["accuracy"] == pytest.approx(np.mean(own["clients"]["accuracy"]))
    rows, _ = evaluate.split_rows(trained)
    everyone = evaluate.own_rows(trained, rows, np.zeros(len(rows.label), np.int32))
    first = evaluate.evaluate_model(
        trained._replace(params=evaluate.unstack(trained.params)[0], stacked=False), rows
    )
    assert everyone["clients"]["macro_f1"] == [pytest.approx(first.summary["macro_f1"])]
    assert everyone["pooled"]["macro_f1"] == pytest.approx(first.summary["macro_f1"])
    assert everyone["pooled"]["mos"].keys() == first.summary["mos"].keys()
    dealt = np.arange(len(rows.label), dtype=np.int32) % 3
    each = evaluate.own_rows(trained, rows, dealt)
    right = np.average(each["clients"]["accuracy"], weights=np.bincount(dealt))
    assert each["pooled"]["accuracy"] == pytest.approx(right)
    assert evaluate.own_rows(trained, rows, np.full(len(rows.label), -1))["pooled"] is None
    assert summary["macro_f1"] == pytest.approx(np.mean(stored["clients"]["macro_f1"]))


@pytest.mark.slow
def test_states_of_clients_resume_to_the_same_bits(fedper, data_dir, tmp_path):
    workdir, first = fedper
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    shutil.rmtree(copy / "checkpoints" / "4")
    again = train(tiny_config(data_dir, **FEDPER), copy)
    assert again["params_sha256"] == first["params_sha256"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["scaffold", "fednova", "feddyn", "shared_moments", "ditto", "fedrep"]
)
def test_the_wire_changes_no_bit(data_dir, tmp_path, name):
    sections = {"fed": {"algorithm": name}}
    if name in ("scaffold", "fednova"):
        sections["client"] = SGD
    plain = train(tiny_config(data_dir, **sections), tmp_path / "plain")
    wired = train(tiny_config(data_dir, **sections, exchange=WIRE), tmp_path / "wired")
    assert wired["params_sha256"] == plain["params_sha256"]


@pytest.mark.slow
def test_the_wire_changes_weights_by_experience_by_rounding_only(data_dir, tmp_path):
    """The held-out pass is compiled into two programs, and may round its gains differently."""
    sections = {"fed": {"weight": "qoe", "held_out": 100}, "clients": {"min_size": 8}}
    train(tiny_config(data_dir, **sections), tmp_path / "plain")
    train(tiny_config(data_dir, **sections, exchange=WIRE), tmp_path / "wired")
    for (name, plain), (_, wired) in zip(
        tree_of(tmp_path / "plain"), tree_of(tmp_path / "wired"), strict=True
    ):
        np.testing.assert_allclose(wired, plain, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_buffered_rounds_train(data_dir, tmp_path):
    config = tiny_config(
        data_dir,
        fed={"cohort": 2, "rounds": 12},
        participation={"mode": "buffered", "devices": "mixed"},
    )
    summary = train(config, tmp_path / "w")
    majority = json.loads((tmp_path / "w" / "evaluation.json").read_text())["majority_class"]
    assert summary["macro_f1"] > 2 * majority["macro_f1"]
    rows = read_rows(tmp_path / "w" / "metrics.jsonl")
    assert all(r["clients"] == 2 and r["simulated"]["seconds"] >= 0 for r in rows)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"fed": {"algorithm": "scaffold"}}, r"client\.optimizer is 'adam', but scaffold"),
        (
            {"fed": {"algorithm": "shared_moments"}, "client": SGD},
            r"client\.optimizer is 'sgd', which has no moments",
        ),
        ({"fed": {"algorithm": "fednova"}}, r"client\.optimizer is 'adam', but fednova"),
        (
            {"fed": {"algorithm": "feddyn"}, "server": {"optimizer": "adam"}},
            r"config\.server is 'adam'.*expected optimizer 'sgd'",
        ),
        (
            {"fed": {"algorithm": "local_only", "weight": "qoe"}},
            r"fed\.weight is 'qoe', but local_only training averages nothing",
        ),
        ({"participation": {"sampling": "greedy"}}, r"participation\.sampling is 'greedy'"),
        ({"participation": {"trace": "lunar"}}, r"participation\.trace is 'lunar': expected one"),
        ({"participation": {"devices": "toasters"}}, r"participation\.devices is 'toasters'"),
        ({"participation": {"deadline": 3.0}}, r"deadline is 3\.0 with devices 'none'"),
        (
            {"fed": {"algorithm": "centralised"}, "participation": {"dropout": 0.1}},
            r"dropout is 0\.1, but centralised training has one client",
        ),
        (
            {"participation": {"mode": "buffered"}, "exchange": WIRE},
            r"'buffered', but with exchange 'pqc' an update must name the round",
        ),
        (
            {"participation": {"mode": "buffered"}, "fed": {"algorithm": "feddyn"}},
            r"'buffered', but feddyn needs answers to the newest model",
        ),
        (
            {"participation": {"mode": "buffered", "trace": "markov"}, "fed": {"cohort": 2}},
            r"trace is 'markov', but a buffered server takes whoever is idle",
        ),
        ({"participation": {"mode": "buffered"}}, r"fed\.cohort is 0: expected the number"),
    ],
)
def test_impossible_combinations_are_refused_before_data_are_read(data_dir, sections, words):
    config = tiny_config(data_dir, **sections)
    with pytest.raises(RunError, match=words):
        build.check(config)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        (
            {"fed": {"algorithm": "ditto"}, "perf": {"state_memory_mb": 0}},
            r"'ditto' keeps [\d,]+ bytes for each of 3 clients.*state_memory_mb allows 0",
        ),
        ({"fed": {"algorithm": "fedbn"}}, r"no parameter fits '\*norm\*/scale'; the net has"),
        ({"fed": {"weight": "qoe", "held_out": 10**6}}, r"held_out is 1000000: expected 1 to"),
        ({"fed": {"weight": "qoe", "mos_share": 2.0, "held_out": 9}}, r"mos_share <= 1"),
        (
            {"fed": {"cohort": 2}, "participation": {"mode": "buffered", "concurrency": 9}},
            r"need 10 clients: expected as many, there are 3",
        ),
        ({"participation": {"dropout": 1.5}}, r"dropout is 1\.5: expected 0 or more"),
        (
            {"participation": {"devices": "lpwan", "deadline": 1.0}},
            r"deadline is 1\.0 s, in which no client can",
        ),
        ({"participation": {"trace": "no/such.npy"}}, r"no/such\.npy cannot be read"),
    ],
)
def test_impossible_sizes_are_refused_before_compiling(data_dir, tmp_path, sections, words):
    with pytest.raises(RunError, match=words):
        train(tiny_config(data_dir, **sections), tmp_path / "w")
    assert not (tmp_path / "w" / "manifest.json").exists()


def test_a_trace_file_of_another_form_is_named(data_dir, tmp_path):
    path = tmp_path / "trace.npy"
    np.save(path, np.ones((4, 2), bool))
    with pytest.raises(
        RunError, match=r"trace\.npy holds bool \[4, 2\]: expected bool \[rounds, 3"
    ):
        train(tiny_config(data_dir, participation={"trace": str(path)}), tmp_path / "w")
