"""The log on disk: killed at any moment, full disks, torn tails, rollbacks."""

import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from qoejax.wire.log import note, store
from qoejax.wire.log.errors import LogError
from qoejax.wire.log.store import Log
from tests.wire.log.helpers import key

ENTRIES = [b"entry %d" % i * (1 + i % 3) for i in range(20)]


def reopened(folder):
    with Log(folder, key()) as log:
        return log.entries, log.note, log.tree


@pytest.fixture
def folder(tmp_path):
    with Log(tmp_path / "log", key()) as log:
        log.append(ENTRIES[:3], 1)
        log.append(ENTRIES[3:7], 2)
    return tmp_path / "log"


def test_a_log_goes_on_after_a_restart(folder):
    with Log(folder, key()) as log:
        assert log.entries == ENTRIES[:7]
        before = log.note.checkpoint
        after = log.append(ENTRIES[7:], 3).checkpoint
        path = log.tree.consistency(7)
    found = store.read(folder)
    assert found.entries == ENTRIES
    assert found.torn == 0
    assert list(found.notes) == ["0000000003", "0000000007", "0000000020"]
    assert before.size == 7
    assert after.size == 20
    from qoejax.wire.log import merkle

    assert merkle.verify_consistency(7, 20, path, before.root, after.root)


def test_an_append_cut_off_at_any_byte_is_undone(folder, tmp_path):
    """Every prefix of what an append writes, before its checkpoint appears, is the old log."""
    old = {name: (folder / name).read_bytes() for name in ("entries", "hashes")}
    after = tmp_path / "after"
    shutil.copytree(folder, after)
    with Log(after, key()) as log:
        log.append(ENTRIES[7:9], 3)
    new = {name: (after / name).read_bytes() for name in ("entries", "hashes")}
    want = reopened(folder)[1].text
    for name in ("entries", "hashes"):
        for size in range(len(old[name]), len(new[name]) + 1):
            shutil.copytree(folder, tmp_path / "torn")
            (tmp_path / "torn" / name).write_bytes(new[name][:size])
            if name == "hashes":
                (tmp_path / "torn" / "entries").write_bytes(new["entries"])
            entries, last, _ = reopened(tmp_path / "torn")
            assert (entries, last.text) == (ENTRIES[:7], want)
            assert (tmp_path / "torn" / "entries").read_bytes() == old["entries"]
            assert (tmp_path / "torn" / "hashes").read_bytes() == old["hashes"]
            shutil.rmtree(tmp_path / "torn")


def test_what_was_promised_and_is_gone_is_named(folder):
    data = (folder / "entries").read_bytes()
    (folder / "entries").write_bytes(data[:-1])
    with pytest.raises(LogError, match="6 entries, but the log has signed a checkpoint of 7") as e:
        reopened(folder)
    assert e.value.entry == 6
    (folder / "entries").write_bytes(data[:20] + bytes([data[20] ^ 1]) + data[21:])
    with pytest.raises(LogError, match="not those of the last checkpoint"):
        reopened(folder)


def test_only_the_logs_own_key_goes_on(folder):
    with pytest.raises(LogError, match="is not by the log"):
        Log(folder, key("example.org/other"))


def test_one_process_at_a_time(folder):
    with Log(folder, key()), pytest.raises(LogError, match="another process"):
        Log(folder, key())


def test_a_full_disk_leaves_the_old_log(folder, monkeypatch):
    real = os.write
    left = [30]

    def write(handle, data):
        if left[0] <= 0:
            raise OSError(28, "No space left on device")
        done = real(handle, bytes(data)[: left[0]])
        left[0] -= done
        return done

    with Log(folder, key()) as log:
        monkeypatch.setattr(os, "write", write)
        with pytest.raises(OSError, match="No space left"):
            log.append(ENTRIES[7:], 3)
        monkeypatch.undo()
    assert reopened(folder)[0] == ENTRIES[:7]


def test_a_checkpoint_is_whole_or_absent(folder):
    (folder / "checkpoints" / ".0000000009.0123").write_text("half of a ch")
    assert reopened(folder)[0] == ENTRIES[:7]
    assert list(store.read(folder).notes) == ["0000000003", "0000000007"]


def test_witnesses_lines_are_added_to_the_last_checkpoint(folder):
    witness = key("example.org/w")
    with Log(folder, key()) as log:
        log.add(witness.line(log.note.checkpoint, 9))
    last = reopened(folder)[1]
    assert note.verify(last, key().verifier) == 2
    assert note.verify(last, witness.verifier) == 9


def test_bad_appends_change_nothing(folder):
    with Log(folder, key()) as log:
        for bad in ([], [bytes(store.MAX_ENTRY + 1)]):
            with pytest.raises(LogError, match="expected one entry or more"):
                log.append(bad, 3)
        assert log.tree.size == 7
    with Log(folder.with_name("new"), key()) as log, pytest.raises(LogError, match="no checkpoint"):
        log.add("")


CHILD = """
import pathlib, sys, time
from qoejax.wire.log import note, store
from qoejax.wire.secret import Secret
from cryptography.hazmat.primitives.asymmetric import mldsa
seed = bytes(32)
public = mldsa.MLDSA44PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()
key = note.Cosigner("example.org/killed", "openssl", public, Secret(seed))
log = store.Log(pathlib.Path(sys.argv[1]), key)
print(log.tree.size, log.tree.root().hex(), flush=True)
while True:
    n = log.tree.size
    signed = log.append([b"%d of %d" % (i, n) * 50 for i in range(1 + n % 7)], int(time.time()))
    print(signed.checkpoint.size, signed.checkpoint.root.hex(), flush=True)
"""


def test_kill_9_loses_nothing_that_was_signed(tmp_path):
    """Killed while it appends, again and again: all that was shown is still there, and a prefix."""
    shown = []
    rng = random.Random(3)
    for _ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
        )
        first = child.stdout.readline()
        time.sleep(rng.uniform(0.02, 0.2))
        os.kill(child.pid, signal.SIGKILL)
        rest = child.communicate()[0].splitlines()
        whole = [line for line in [first, *rest] if len(line.split()) == 2]
        shown += [(int(a), b) for a, b in map(str.split, whole) if len(b) == 64]
    contents = store.read(tmp_path / "log")
    from qoejax.wire.log import merkle

    tree = merkle.Tree([merkle.leaf_hash(entry) for entry in contents.entries])
    assert len(shown) > 8
    for size, root in shown:
        assert tree.root(size).hex() == root
    sizes = [note.parse(text).checkpoint for text in contents.notes.values()]
    assert all(tree.root(head.size) == head.root for head in sizes)
    assert {size for size, _ in shown if size} <= {head.size for head in sizes}


def test_nothing_there_is_no_log(tmp_path):
    with pytest.raises(LogError, match="No such file or directory, expected a log"):
        store.read(pathlib.Path(tmp_path / "none"))
