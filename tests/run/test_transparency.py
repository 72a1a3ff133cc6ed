"""Wired training with two witnesses, each a process with its own key, port and memory."""

import json
import pathlib
import shutil
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from typing import NamedTuple

import pytest

from qoejax.run import files, transparency, verify
from qoejax.run.errors import RunError
from qoejax.run.train import train
from qoejax.wire import keyfile, sign
from qoejax.wire.log import note, policy, records, store
from qoejax.wire.log.errors import SplitViewError
from tests.run.conftest import tiny_config
from tests.wire.log.helpers import write_run


def some(n):
    """Entries of the right form; what they say does not matter here."""
    return [records.final(bytes(16), i, bytes(32), bytes(32)) for i in range(n)]


class Witness(NamedTuple):
    process: subprocess.Popen
    url: str
    vkey: str
    memory: pathlib.Path


def start(folder, name, logs, port=0):
    """A witness process; its key is made at first, its memory stays."""
    path = folder / "keys" / f"{name}.key"
    if not path.exists():
        pair = keyfile.Pair(*sign.provider("openssl", note.SCHEME).generate())
        keyfile.save_pairs(path, note.SCHEME, "openssl", [pair], None, plain=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.witness", f"--name=example.org/{name}",
         f"--key={path}", f"--memory={folder / name}", f"--logs={logs}", "--plain",
         f"--port={port}"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    line = process.stdout.readline()
    assert line, process.stderr.read()
    told = json.loads(line)
    return Witness(process, told["url"], told["vkey"], folder / name)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Folder, log key, two witnesses, and the file that names them."""
    folder = tmp_path_factory.mktemp("site")
    key = transparency.cosigner(folder / "keys" / "log.key", "openssl", None, plain=True)
    logs = folder / "logs.policy"
    logs.write_text(f"log {key.verifier.vkey}\nquorum none\n")
    witnesses = [start(folder, name, logs) for name in ("w1", "w2")]
    lines = [f"witness {w.memory.name} {w.vkey} {w.url}" for w in witnesses]
    (folder / "witnesses").write_text("\n".join([*lines, "group all2 all w1 w2", "quorum all2\n"]))
    yield folder, key, witnesses
    for one in witnesses:
        one.process.terminate()
        one.process.communicate(timeout=20)


@pytest.fixture(scope="module")
def witnessed(site, data_dir):
    folder, _, _ = site
    config = tiny_config(
        data_dir,
        exchange={
            "mode": "pqc", "signer": "openssl", "witnesses": str(folder / "witnesses"),
            "log_key": str(folder / "keys" / "log.key"),
        },
    )  # fmt: skip
    train(config, folder / "run")
    return folder / "run", config


@pytest.mark.slow
def test_every_checkpoint_of_a_run_has_both_cosignatures(witnessed, site):
    workdir, _ = witnessed
    found = verify.verify(workdir, site[0] / "run" / "log" / "policy")
    assert found["ok"], found
    assert found["witnesses"] == ["w1", "w2"]
    assert (found["rounds"], found["updates"], found["rejected"]) == (4, 12, 0)
    assert found["model"] == "as in the final entry and after the last round"
    report = verify.audit_run(workdir)
    assert [sorted(h.verdict.witnesses) for h in report.heads] == [["w1", "w2"]] * 5
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["wire"]["log"]["cosigned"] for row in rows] == [2] * 4
    assert rows[-1]["wire"]["log"]["size"] == report.heads[-2].note.checkpoint.size


def test_announcements_name_the_checkpoint_before(witnessed):
    report = verify.audit_run(witnessed[0])
    named = [r.facts.log for r in report.state.rounds]
    heads = [note.body(h.note.checkpoint).encode() for h in report.heads]
    assert named == [b"", *heads[:3]]


def test_a_witness_tells_what_it_has_seen(witnessed, site):
    workdir, (folder, key, witnesses) = witnessed[0], site
    name = urllib.parse.quote(key.verifier.name, safe="")
    with urllib.request.urlopen(f"{witnesses[0].url}/checkpoint/{name}") as answer:
        seen = answer.read().decode()
    (folder / "seen").write_text(seen)
    assert verify.verify(workdir, elsewhere=folder / "seen")["ok"]


def test_training_again_finds_nothing_to_add(witnessed):
    workdir, config = witnessed
    before = files.read_json(workdir / "manifest.json", "manifest")["log"]
    train(config, workdir)
    assert files.read_json(workdir / "manifest.json", "manifest")["log"] == before
    assert verify.verify(workdir)["ok"]


def test_a_forked_log_is_refused_by_the_witnesses_that_saw_the_other(witnessed, site, tmp_path):
    """The same log key, the same witnesses, another history."""
    trusted = policy.parse((witnessed[0] / "log" / "policy").read_text())
    with (
        transparency.Ledger(tmp_path / "log", site[1], trusted, bytes(32)) as ledger,
        pytest.raises(SplitViewError, match="the log was forked or rolled back"),
    ):
        ledger.record(some(1))
    with (
        transparency.Ledger(tmp_path / "log", site[1], trusted, bytes(32)) as ledger,
        pytest.raises(SplitViewError, match=r"witness w1 remembers [0-9]+ entries"),
    ):
        ledger.record(some(100))


@pytest.mark.slow  # trains once more; the ledger alone is tested above
def test_a_rolled_back_workdir_stops_the_run(witnessed, data_dir, tmp_path):
    """A copy from before the last rounds: training it anew would rewrite what was cosigned."""
    workdir, config = witnessed
    shutil.copytree(workdir, tmp_path / "run")
    names = sorted(p.name for p in (tmp_path / "run" / "log" / "checkpoints").iterdir())
    for name in names[2:]:
        (tmp_path / "run" / "log" / "checkpoints" / name).unlink()
    for name in ("checkpoints", "model"):
        shutil.rmtree(tmp_path / "run" / name)
    with pytest.raises(RunError, match=r"the wire: witness w1 remembers .* rolled back"):
        train(config, tmp_path / "run")


def test_a_witness_killed_and_restarted_remembers(tmp_path):
    """Kill -9, the same memory: it still refuses to go back."""
    log = transparency.cosigner(tmp_path / "keys" / "log.key", "openssl", None, plain=True)
    (tmp_path / "logs").write_text(f"log {log.verifier.vkey}\nquorum none\n")
    first = start(tmp_path, "w9", tmp_path / "logs")

    def trusted(one):
        text = f"witness w9 {one.vkey} {one.url}\nquorum w9\n"
        (tmp_path / "w9.policy").write_text(text)
        return transparency.with_log(str(tmp_path / "w9.policy"), log.verifier)

    with transparency.Ledger(tmp_path / "log", log, trusted(first), bytes(32)) as ledger:
        assert ledger.record(some(2))["cosigned"] == 1
        first.process.send_signal(signal.SIGKILL)
        first.process.communicate(timeout=20)
        assert ledger.record(some(1))["cosigned"] == 0  # unreachable: the run goes on
    second = start(tmp_path, "w9", tmp_path / "logs")
    try:
        with transparency.Ledger(tmp_path / "log", log, trusted(second), bytes(32)) as ledger:
            assert ledger.record(some(1))["cosigned"] == 1  # it catches up over what it missed
        with (
            transparency.Ledger(tmp_path / "fork", log, trusted(second), bytes(32)) as ledger,
            pytest.raises(SplitViewError),
        ):
            ledger.record(some(1))
    finally:
        second.process.terminate()
        second.process.communicate(timeout=20)


def test_without_its_witnesses_a_run_ends_but_does_not_verify(tmp_path):
    log = transparency.cosigner(tmp_path / "keys" / "log.key", "openssl", None, plain=True)
    other = transparency.cosigner(tmp_path / "keys" / "w.key", "openssl", None, plain=True)
    (tmp_path / "w").write_text(
        f"witness gone {other.verifier.vkey} http://127.0.0.1:9\nquorum gone\n"
    )
    trusted = transparency.with_log(str(tmp_path / "w"), log.verifier)
    with transparency.Ledger(tmp_path / "log", log, trusted, bytes(32)) as ledger:
        assert ledger.record(some(1))["cosigned"] == 0
    assert len(store.read(tmp_path / "log").notes) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file or directory, expected a policy"),
        ("witness w x\n", "line 1: a vkey is NAME"),
        ("", "expected one quorum line"),
    ],
)
def test_bad_witness_files_are_one_sentence(tmp_path, text, message):
    log = transparency.cosigner(tmp_path / "keys" / "log.key", "openssl", None, plain=True)
    path = tmp_path / "w"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RunError, match=message):
        transparency.with_log(str(path), log.verifier)
    path.write_text(f"log {log.verifier.vkey}\nquorum none\n")
    with pytest.raises(RunError, match="names a log, expected witnesses"):
        transparency.with_log(str(path), log.verifier)


def test_the_log_key_is_one_key(tmp_path):
    pairs = [keyfile.Pair(*sign.provider("openssl", note.SCHEME).generate()) for _ in range(2)]
    path = tmp_path / "keys" / "log.key"
    keyfile.save_pairs(path, note.SCHEME, "openssl", pairs, None, plain=True)
    with pytest.raises(keyfile.KeyFileError, match="holds 2 keys, expected the log's one"):
        transparency.cosigner(path, "openssl", None, plain=True)


def test_a_run_goes_on_from_its_log(tmp_path):
    """Clients enrolled already are not enrolled again; the last head is the next one's base."""
    write_run(tmp_path / "log", rounds=2)
    size = len(store.read(tmp_path / "log").entries)
    assert size == 1 + 4 + 2 * (1 + 4 + 1) + 1
