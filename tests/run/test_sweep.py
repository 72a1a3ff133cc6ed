"""Many seeds and rates at once: each member is the single run that it stands for."""

import json
import shutil

import numpy as np
import pytest
import scipy.stats

from qoejax import trees
from qoejax.run import model, sweep, sweep_report
from qoejax.run.errors import RunError
from qoejax.run.train import train
from qoejax.run.writer import read_rows

from .conftest import tiny_config

PROX = {"algorithm": "fedprox", "rounds": 2, "mu": 0.1}
NAMES = [f"fed.mu={mu},seed={seed}" for mu in (0.0, 1.0) for seed in (0, 1)]
OVER = ("fed.mu=0.0,1.0",)


def prox(data_dir):
    # Who holds what depends on the seed: members must all have those of the first.
    clients = {"partition": "dirichlet", "count": 3, "alpha": 1.0}
    every = {"every": 1}
    return tiny_config(data_dir, clients=clients, fed=PROX, checkpoint=every, evaluation=every)


@pytest.fixture(scope="module")
def swept(data_dir, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("sweep") / "w"
    return workdir, sweep.run(prox(data_dir), workdir, 2, OVER)


@pytest.mark.slow
def test_a_member_is_the_single_run(swept, data_dir, tmp_path):
    workdir, summary = swept
    config = prox(data_dir)
    everyone = sweep.members(config, 2, sweep.parse(config, OVER))
    assert summary["members"] == 4
    assert [m.name for m in everyone] == NAMES
    member = everyone[-1]  # another seed and mu than the config's own
    single = tmp_path / "single"
    train(sweep.config_of(config, member), single)
    folder = sweep.folder(workdir, member)
    mine, alone = model.load(folder), model.load(single)
    for (name, a), (_, b) in zip(
        trees.named_leaves(mine.params), trees.named_leaves(alone.params), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=name)
    ours, theirs = (read_rows(f / "metrics.jsonl") for f in (folder, single))
    assert [row["round"] for row in ours] == [1, 2]
    for a, b in zip(ours, theirs, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert {k: a[k] for k in ("clients", "examples")} == {
            k: b[k] for k in ("clients", "examples")
        }
    assert ours[-1]["test"] == pytest.approx(theirs[-1]["test"], abs=0.02)


def test_members_differ(swept):
    params = [model.load(f).params for f in sorted((swept[0] / "members").iterdir())]
    digests = {trees.sha256(p) for p in params}
    assert len(digests) == len(params) == 4


def test_the_table_has_means_and_intervals(swept):
    workdir, summary = swept
    row = summary["settings"][1]
    assert row["over"] == {"fed.mu": 1.0}
    assert row["seeds"] == [0, 1]
    values = [own["macro_f1"] for own in row["members"].values()]
    low, high = scipy.stats.t.interval(0.95, 1, loc=np.mean(values), scale=scipy.stats.sem(values))
    shown = row["figures"]["macro_f1"]
    assert shown["mean"] == pytest.approx(np.mean(values))
    assert (shown["low"], shown["high"]) == pytest.approx((low, high))
    assert {"mos.voice_0s.plcc", "mos.voice_0s.rmse"} <= row["figures"].keys()
    text = (workdir / "sweep.md").read_text()
    assert text.count("fed.mu") == 2
    assert (workdir / "plots" / "sweep.png").stat().st_size > 1000


def test_a_finished_sweep_is_not_computed_again(swept, data_dir, monkeypatch):
    workdir, summary = swept
    monkeypatch.setattr(sweep, "_together", None)
    again = sweep.run(prox(data_dir), workdir, 2, OVER)
    assert again == json.loads(json.dumps(summary))
    with pytest.raises(RunError, match=r"config\.sweep\.seeds \(2 there, 3 asked for\)"):
        sweep.run(prox(data_dir), workdir, 3, OVER)


@pytest.mark.slow
def test_a_killed_sweep_goes_on_to_the_same_bits(swept, data_dir, tmp_path):
    """As if killed in the second round, after the checkpoint of the first."""
    copy = tmp_path / "copy"
    shutil.copytree(swept[0], copy)
    shutil.rmtree(copy / "checkpoints" / "2")
    shutil.rmtree(copy / "members" / NAMES[3] / "model")
    (copy / "sweep.json").unlink()
    record = json.loads((copy / "manifest.json").read_text())
    del record["finished"]
    (copy / "manifest.json").write_text(json.dumps(record))
    again = sweep.run(prox(data_dir), copy, 2, OVER)
    assert json.loads(json.dumps(again["settings"])) == json.loads(json.dumps(swept[1]["settings"]))
    for name in NAMES:
        a, b = (model.load(w / "members" / name).params for w in (swept[0], copy))
        assert trees.sha256(a) == trees.sha256(b)
        rows = read_rows(copy / "members" / name / "metrics.jsonl")
        assert [row["round"] for row in rows] == [1, 2]


def test_one_after_the_other(swept, data_dir, tmp_path, monkeypatch):
    """Every key and the wire are allowed; ``train`` itself is tested elsewhere."""
    trained = []

    def fake(config, folder):
        trained.append(config)
        shutil.copytree(swept[0] / "members" / NAMES[len(trained)], folder)

    monkeypatch.setattr(sweep, "train", fake)
    config = tiny_config(data_dir, exchange={"mode": "pqc"}, data={"seed": 7})
    workdir = tmp_path / "w"
    summary = sweep.run(config, workdir, 1, ["client.batch=8,16"], sequential=True)
    assert [(c.client.batch, c.seed, c.data.seed) for c in trained] == [(8, 0, 7), (16, 0, 7)]
    names = {p.name for p in (workdir / "members").iterdir()}
    assert names == {"client.batch=8,seed=0", "client.batch=16,seed=0"}
    first, second = summary["settings"]
    assert (first["over"], second["over"]) == ({"client.batch": 8}, {"client.batch": 16})
    assert first["figures"]["macro_f1"]["low"] is None  # a single seed has no interval


@pytest.mark.parametrize(
    ("over", "sections", "message"),
    [
        (["client.batch=8,16"], {}, r"--over=client\.batch: members that run at once may differ"),
        (["fed.mu=0.1,0.2"], {}, r"--over=fed\.mu: fedavg does not read it"),
        (["client.lr"], {}, r"--over=client\.lr: expected KEY=VALUE"),
        (["colour=1"], {}, r"--over=colour=1: expected KEY=VALUE"),
        (["client.lr=fast"], {}, r"expected values of type float"),
        (["client.lr=0.1,0.1"], {}, r"expected different numbers"),
        (["client.lr=0.1,-0.1"], {}, r"config\.client\.lr is -0\.1: expected more than 0"),
        (["client.lr=0.1", "client.lr=0.2"], {}, r"each key once"),
        (["fed.mu=-1.0"], {"fed": PROX}, r"expected mu >= 0"),
        (["data.keep=a"], {}, r"expected different numbers or names"),
        ([], {"exchange": {"mode": "pqc"}}, r"exchange\.mode is 'pqc', but members .*--sequential"),
        ([], {"perf": {"client_axis": "strict"}}, r"client_axis is 'strict', whose chunks"),
        (
            [],
            {"privacy": {"mechanism": "example", "clip": 1.0, "noise": 1.0}},
            r"privacy\.mechanism is 'example'",
        ),
    ],
)
def test_what_members_cannot_share_is_refused(tmp_path, over, sections, message):
    with pytest.raises(RunError, match=message):
        sweep.run(tiny_config("nowhere", **sections), tmp_path / "w", 2, over)
    assert not (tmp_path / "w").exists()


def test_no_seed_is_refused(tmp_path):
    with pytest.raises(RunError, match="--at_once=2: expected 0"):
        sweep.run(tiny_config("nowhere"), tmp_path / "w", 1, sequential=True, at_once=2)
    with pytest.raises(RunError, match="--seeds=0: expected 1 or more"):
        sweep.run(tiny_config("nowhere"), tmp_path / "w", 0)


def test_interval_of_known_numbers():
    # Mean 2, standard deviation 1, t of two degrees of freedom 4.302653.
    found = sweep_report.interval([1.0, 2.0, 3.0])
    assert found["mean"] == 2
    assert found["high"] - 2 == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)
    assert sweep_report.interval([4.0]) == {"mean": 4, "low": None, "high": None, "n": 1}
