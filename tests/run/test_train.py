import json
import shutil
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from qoejax.data.table import Column, Spec
from qoejax.run import build, verify
from qoejax.run.errors import RunError
from qoejax.run.train import train
from qoejax.run.writer import read_rows
from tests.run.conftest import tiny_config


def test_a_run_leaves_what_the_design_promises(wired_run):
    workdir, summary = wired_run
    expected = {
        "manifest.json", "metrics.jsonl", "data.json", "evaluation.json", "report.html",
        "checkpoints", "keys", "log", "log.html", "model", "plots", "tensorboard",
    }  # fmt: skip
    assert expected <= {p.name for p in workdir.iterdir()}
    rows = read_rows(workdir / "metrics.jsonl")
    assert [r["round"] for r in rows] == [1, 2, 3, 4]
    assert [("test" in r) for r in rows] == [False, True, False, True]
    for r in rows:
        assert r["clients"] == r["wire"]["accepted"] == 3
        assert r["wire"]["rejected"] == {}
        # Header, encapsulation, tag and signature beside the float32 payload; wire.md section 4.
        assert r["wire"]["bytes_up"] == 3 * (4663 + 4 * summary["params"])
    plots = {p.stem for p in (workdir / "plots").iterdir()}
    assert {"convergence", "confusion", "per_class", "partition", "reliability", "wire"} <= plots
    assert {"mos", "qome", "horizons"} <= plots
    assert (workdir / "keys").stat().st_mode & 0o777 == 0o700
    assert {p.stat().st_mode & 0o777 for p in (workdir / "keys").glob("*.key")} == {0o600}
    manifest = json.loads((workdir / "manifest.json").read_text())
    assert manifest["params_sha256"] == summary["params_sha256"]


def test_report_stands_alone(wired_run):
    page = (wired_run[0] / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 7
    assert "http://" not in page
    assert "https://" not in page
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page


def test_learning_beats_the_constant(wired_run):
    evaluation = json.loads((wired_run[0] / "evaluation.json").read_text())
    assert evaluation["macro_f1"] > evaluation["majority_class"]["macro_f1"] + 0.05
    # Six test episodes say little of twenty scores; that the head learns shows in training.
    rows = read_rows(wired_run[0] / "metrics.jsonl")
    assert rows[-1]["mos_rmse"] < 0.95 * rows[0]["mos_rmse"]


@pytest.fixture(scope="module")
def plain(data_dir, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("plain") / "w"
    return workdir, train(tiny_config(data_dir), workdir)


def test_the_wire_changes_no_bit(wired_run, plain):
    assert wired_run[1]["params_sha256"] == plain[1]["params_sha256"]


def test_again_on_the_same_workdir_is_the_same_run(plain, data_dir):
    workdir, first = plain
    rows = (workdir / "metrics.jsonl").read_text()
    again = train(tiny_config(data_dir), workdir)
    assert again["params_sha256"] == first["params_sha256"]
    assert (workdir / "metrics.jsonl").read_text() == rows


@pytest.mark.parametrize("damaged", [pytest.param(False, marks=pytest.mark.slow), True])
def test_resume_from_the_middle_ends_at_the_same_bits(plain, data_dir, tmp_path, damaged):
    workdir, first = plain
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    if damaged:  # the newest checkpoint is unsound: the older one must do
        stored = [p for p in (copy / "checkpoints" / "4").rglob("*") if p.is_file()]
        largest = max(stored, key=lambda p: p.stat().st_size)
        data = bytearray(largest.read_bytes())
        data[len(data) // 2] ^= 1
        largest.write_bytes(data)
    else:
        shutil.rmtree(copy / "checkpoints" / "4")
    again = train(tiny_config(data_dir), copy)
    assert again["params_sha256"] == first["params_sha256"]
    rows = read_rows(copy / "metrics.jsonl")
    strip = lambda rs: [{k: v for k, v in r.items() if k != "seconds"} for r in rs]  # noqa: E731
    assert strip(rows) == strip(read_rows(workdir / "metrics.jsonl"))


def command(workdir, data_dir, *more):
    config = "tests/run/tiny_config.py"
    return [
        sys.executable, "-m", "experiments.train", f"--config={config}", f"--workdir={workdir}",
        f"--config.data.dir={data_dir}", *more,
    ]  # fmt: skip


def killed_runs(data_dir, workdir, kills, seed):
    """Starts the command ``kills`` times, each time kills it, then lets it finish."""
    rng = np.random.default_rng(seed)
    for _ in range(kills):
        process = subprocess.Popen(
            command(workdir, data_dir), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + rng.uniform(1, 15)
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        process.kill()
        process.wait()
    done = subprocess.run(command(workdir, data_dir), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("kills", [1, 5], ids=["once", "five_times"])
def test_sigkill_at_any_moment_changes_no_bit(data_dir, tmp_path, kills, wired_run):
    del wired_run  # the dataset is prepared by then: kills should hit training
    whole = subprocess.run(
        command(tmp_path / "whole", data_dir), capture_output=True, text=True, check=True
    )
    want = json.loads(whole.stdout.splitlines()[-1])
    got = killed_runs(data_dir, tmp_path / "killed", kills, seed=kills)
    assert got["params_sha256"] == want["params_sha256"]
    rows = read_rows(tmp_path / "killed" / "metrics.jsonl")
    assert [r["round"] for r in rows] == list(range(1, want["rounds"] + 1))
    # The log tells of every start, and all that was signed before a kill is still in it.
    checked = verify.verify(tmp_path / "killed")
    assert checked["ok"], checked
    assert checked["rounds"] == want["rounds"]
    assert checked["model"] == "as in the final entry and after the last round"


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("fed", {"rounds": 0}, r"config\.fed\.rounds is 0: expected more than 0"),
        ("fed", {"algorithm": "fedmagic"}, r"config\.fed\.algorithm is 'fedmagic': expected one"),
        ("fed", {"cohort": 9}, r"config\.fed\.cohort is 9: expected at most"),
        ("model", {"net": "gpt"}, r"config\.model\.net is 'gpt': expected one of"),
        ("loss", {"class_loss": "hinge"}, r"config\.loss: class_loss 'hinge'"),
        ("client", {"optimizer": "lion"}, r"config\.client\.optimizer is 'lion'"),
        ("server", {"aggregator": "best"}, r"config\.server\.aggregator is 'best'"),
        ("exchange", {"mode": "https"}, r"config\.exchange\.mode is 'https'"),
        ("clients", {"partition": "alphabet"}, r"config\.clients\.partition is 'alphabet'"),
        ("clients", {"count": 7}, r"config\.clients: .*3 .*7"),
        ("data", {"drop": ("colour",)}, r"no column 'colour' to drop"),
        ("data", {"scale": "furlong"}, r"scale is 'furlong'"),
        ("model", {"widht": 8}, r"config\.model: .*'widht'"),
        ("perf", {"client_axis": "diagonal"}, r"config\.perf.*diagonal"),
    ],
)
def test_bad_config_is_one_clear_sentence(data_dir, tmp_path, section, values, message, wired_run):
    del wired_run
    workdir = tmp_path / "w"
    with pytest.raises(ValueError, match=message):
        train(tiny_config(data_dir, **{section: values}), workdir)
    assert not (workdir / "manifest.json").exists()


def test_other_config_on_a_workdir_is_refused(plain, data_dir):
    workdir, _ = plain
    before = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
    with pytest.raises(RunError, match=r"config\.client\.lr \(0\.01 there, 0\.02 asked for\)"):
        train(tiny_config(data_dir, client={"lr": 0.02}), workdir)
    assert {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()} == before


def test_an_unwritable_workdir_is_named(data_dir, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"workdir .*file/w cannot be written to"):
        train(tiny_config(data_dir), tmp_path / "file" / "w")


def test_a_damaged_key_file_is_named(wired_run, data_dir, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(wired_run[0], copy)
    key = copy / "keys" / "clients.key"
    key.write_bytes(key.read_bytes()[:-7])
    with pytest.raises(RunError, match=r"the wire: .*clients\.key"):
        train(tiny_config(data_dir, exchange={"mode": "pqc", "signer": "openssl"}), copy)


def test_devices_after_jax_has_started(data_dir, tmp_path):
    config = tiny_config(data_dir, perf={"client_axis": "shard", "devices": 3})
    with pytest.raises(RunError, match=r"config\.perf\.devices is 3, but JAX has started with 4"):
        train(config, tmp_path / "w")


def test_encrypted_keys_need_a_passphrase(data_dir, tmp_path, monkeypatch):
    monkeypatch.delenv("QOEJAX_PASSPHRASE", raising=False)
    options = {"mode": "pqc", "signer": "openssl", "key_files": "encrypted"}
    with pytest.raises(RunError, match="QOEJAX_PASSPHRASE is not set"):
        train(tiny_config(data_dir, exchange=options), tmp_path / "w")


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["local_only", "centralised", "fedprox"])
def test_other_ways_of_training(data_dir, tmp_path, algorithm):
    config = tiny_config(data_dir, fed={"algorithm": algorithm, "rounds": 2})
    summary = train(config, tmp_path / algorithm)
    assert summary["rounds"] == 2
    assert 0 < summary["macro_f1"] <= 1
    clients = json.loads((tmp_path / algorithm / "data.json").read_text())["clients"]["rows"]
    assert len(clients) == (1 if algorithm == "centralised" else 3)


def test_plain_config_round_trip(data_dir):
    config = tiny_config(data_dir, data={"keep": ("a", "b")})
    plain = json.loads(json.dumps(build.plain_config(config)))
    assert build.from_plain(plain).to_dict() == config.to_dict()


def test_the_net_of_a_config_can_be_changed_alone(caplog):
    """Keys of the hybrid that the other net lacks stay in the config, unused, and are named."""
    config = base.get_config()
    config.model.net = "linear"
    spec = Spec("made up", (Column("x", "", "numeric", False, ""),), ("a", "b"), (), {}, "a", 1)
    with caplog.at_level("INFO", logger="qoejax"):
        objective = build.objective(config, spec, np.ones(2))
    shapes = jax.eval_shape(objective.init, jax.random.key(0), jnp.zeros((1, 1, 3)))
    assert "this net has no depth, dropout, heads, mlp, width" in caplog.text
    assert {leaf.shape for leaf in jax.tree.leaves(shapes)} == {(3, 2), (2,), (3, 17), (17,)}
