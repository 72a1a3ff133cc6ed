"""A finished run, re-checked; and what a changed file says."""

import json
import shutil

import numpy as np
import pytest

from qoejax.run import files, verify
from qoejax.run.errors import RunError
from qoejax.wire.log.proof import render
from tests.run.test_commands import run as command


@pytest.fixture
def workdir(wired_run, tmp_path):
    shutil.copytree(wired_run[0], tmp_path / "run")
    return tmp_path / "run"


def test_a_finished_run_verifies(wired_run):
    found = verify.verify(wired_run[0])
    assert found["ok"]
    assert found["finished"]
    assert (found["rounds"], found["updates"], found["runs"]) == (4, 12, 1)
    assert found["model"] == "as in the final entry and after the last round"
    manifest = files.read_json(wired_run[0] / "manifest.json", "manifest")
    assert manifest["log"] == {
        "origin": found["origin"], "size": found["entries"], "root": found["root"]
    }  # fmt: skip


def manifest_with(workdir, **changes):
    path = workdir / "manifest.json"
    files.write_json(path, json.loads(path.read_text()) | changes)


def test_manifest_model_policy_and_log_hold_each_other(workdir):
    fine = {p: p.read_bytes() for p in (workdir / "manifest.json", workdir / "log" / "policy")}

    def complaint(message):
        found = verify.verify(workdir)
        assert not found["ok"]
        assert message in found["reason"], found
        for path, data in fine.items():
            path.write_bytes(data)

    manifest = json.loads(fine[workdir / "manifest.json"])
    manifest_with(workdir, params_sha256="0" * 64)
    complaint("params_sha256 is not the final entry's")
    manifest_with(workdir, log=manifest["log"] | {"size": 1})
    complaint("another log head than the last checkpoint")
    manifest_with(workdir, config=manifest["config"] | {"seed": 1})
    complaint("its config is not the one that the log names")
    with open(workdir / "log" / "policy", "a") as f:
        f.write("# trust me\n")
    complaint("policy: not the file that the log's last run entry names")
    path = workdir / "model" / "params.npz"
    params = dict(np.load(path))
    name = sorted(params)[0]
    params[name] = params[name] + 1
    np.savez(path, **params)
    complaint("model: ")
    path.unlink()
    complaint("model: ")


def test_a_run_cut_back_to_an_earlier_round_is_found_by_its_manifest(workdir):
    folder = workdir / "log"
    last = sorted((folder / "checkpoints").iterdir())
    size = int(last[-3].name)
    for path in last[-2:]:
        path.unlink()
    entries = verify.store.read(folder).entries[:size]
    packed = b"".join(len(e).to_bytes(4, "big") + e for e in entries)
    (folder / "entries").write_bytes(packed)
    (folder / "hashes").write_bytes((folder / "hashes").read_bytes()[: 32 * size])
    found = verify.verify(workdir)
    assert "a finished run, but the log has no final entry" in found["reason"]


def test_a_checkpoint_seen_elsewhere_must_be_of_the_same_history(workdir, tmp_path):
    seen = tmp_path / "seen"
    names = sorted((workdir / "log" / "checkpoints").iterdir())
    shutil.copy(names[1], seen)
    assert verify.verify(workdir, elsewhere=seen)["ok"]
    seen.write_text("nonsense")
    with pytest.raises(RunError, match="expected a checkpoint by this log"):
        verify.verify(workdir, elsewhere=seen)


def test_a_split_view_is_called_by_its_name(tmp_path):
    """Two logs by one key: what one party was shown is not what lies here."""
    from tests.wire.log.helpers import log_key, write_run

    trusted = write_run(tmp_path / "a" / "log", rounds=1)
    write_run(tmp_path / "b" / "log", rounds=2)
    report = verify.audit_run(tmp_path / "a")
    for other in sorted((tmp_path / "b" / "log" / "checkpoints").iterdir()):
        with pytest.raises(verify.SplitViewError, match=r"another history|taken out"):
            verify._same_history(report, trusted, other)
    assert log_key().verifier.name in trusted.logs


def test_receipts_need_neither_run_nor_log(wired_run, tmp_path):
    proof = tmp_path / "update.tlog-proof"
    proof.write_text(render(verify.receipt(wired_run[0], 9)))
    shutil.copy(wired_run[0] / "log" / "policy", tmp_path / "trusted")
    found = verify.check_receipt(proof, tmp_path / "trusted")
    assert (found["ok"], found["index"]) == (True, 9)
    text = proof.read_text()
    proof.write_text(text.replace("index 9", "index 8"))
    assert (
        "entry 8 is not in the tree" in verify.check_receipt(proof, tmp_path / "trusted")["reason"]
    )
    with pytest.raises(RunError, match="the tree has entries 0 to"):
        verify.receipt(wired_run[0], 10_000)
    with pytest.raises(RunError, match="expected a receipt"):
        verify.check_receipt(tmp_path / "none", tmp_path / "trusted")


def test_the_command_names_the_first_bad_entry_and_fails(workdir):
    path = workdir / "log" / "entries"
    data = bytearray(path.read_bytes())
    entries = verify.store.read(workdir / "log").entries
    data[sum(4 + len(entry) for entry in entries[:9]) + 60] ^= 1
    path.write_bytes(data)
    done = command("verify", f"--workdir={workdir}")
    assert done.returncode == 1
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert done.stderr.strip().startswith(f"error: damaged: entry {found['entry']}: ")
    assert (found["ok"], found["entry"]) == (False, 9)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "expected --workdir=D, or --receipt=FILE and --policy=FILE"),
        (("--receipt=x",), "--receipt needs --policy"),
        (("--workdir={}", "--prove=0"), "--prove needs --output"),
    ],
)
def test_bad_flags_are_one_sentence(wired_run, args, message):
    done = command("verify", *(a.format(wired_run[0]) for a in args))
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_missing_files_are_one_sentence(workdir, tmp_path):
    with pytest.raises(RunError, match="expected a log's policy"):
        verify.verify(workdir, trusted=tmp_path / "none")
    with pytest.raises(RunError, match=r"manifest.json is missing"):
        verify.verify(tmp_path / "none")


def test_a_run_without_the_wire_has_nothing_to_verify(workdir):
    shutil.rmtree(workdir / "log")
    with pytest.raises(RunError, match="expected the log of a run with the wire on"):
        verify.verify(workdir)
