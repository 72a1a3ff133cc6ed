"""The prepare command, as a user runs it."""

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import types

import pytest

from experiments import prepare
from qoejax.data.errors import DataError
from tests.data import dummy

TON = dummy.BUILDERS / "ton_iot" / "dummy_data"
COMMAND = [sys.executable, "-m", "experiments.prepare"]


def run(*arguments):
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


def test_prints_one_line_of_json_and_plain_progress(tmp_path):
    arguments = ("--dataset=ton_iot/10class", f"--manual_dir={TON}", f"--data_dir={tmp_path}")
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    said = json.loads(line)
    assert said["dataset"] == "ton_iot/10class"
    assert said["rows"]["train"] + said["rows"]["test"] == 80
    assert sum(said["classes"]["train"].values()) == said["rows"]["train"]
    assert said["duplicates"] == said["conflicts"] == {"train": 0, "test": 0}
    assert said["dropped"] == {}
    assert said["seconds"] > 0
    assert "ton_iot/10class: 100 %, 80 rows" in done.stderr


def test_one_sentence_and_nothing_left(tmp_path):
    data_dir = f"--data_dir={tmp_path / 'new'}"
    failed = run("--dataset=ciciot2023/34class", f"--manual_dir={TON}", data_dir)
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert "Traceback" not in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("error: ")
    assert "lacks columns 'flow_duration'" in failed.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def command(tmp_path, monkeypatch):
    """The command inside this process, with these flags: starting Python takes seconds."""

    def run(dataset, manual_dir=None):
        given = {"DATASET": dataset, "MANUAL_DIR": manual_dir, "DATA_DIR": str(tmp_path / "d")}
        for name, value in {**given, "COUNT": True}.items():
            monkeypatch.setattr(prepare, f"_{name}", types.SimpleNamespace(value=value))
        return prepare.main()

    return run


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"dataset": "nope"}, "There is no dataset 'nope'"),
        ({"dataset": "ton_iot/10class"}, "no manual_dir is given"),
        ({"dataset": "ton_iot", "manual_dir": "/nope"}, "manual_dir /nope is not a folder"),
    ],
)
def test_unusable_requests(tmp_path, command, values, sentence):
    with pytest.raises(DataError, match=sentence):
        command(**values)
    assert list(tmp_path.iterdir()) == []


def test_duplicates_and_conflicts_are_counted(tmp_path, command):
    lines = dummy.table("ton_iot/10class", 60)
    twin = [*lines[1][:-1], "xss"]
    dummy.write(tmp_path / "m" / "a.csv", [*lines, lines[2], lines[2], twin])
    said = command(dataset="ton_iot/10class", manual_dir=str(tmp_path / "m"))
    assert sum(said["duplicates"].values()) == 2
    assert sum(said["conflicts"].values()) == 2


def test_classes_without_rows_are_noted(tmp_path, command, capsys):
    dummy.write(tmp_path / "m" / "a.csv", dummy.table("ton_iot/10class", 60, only=("dos", "xss")))
    command(dataset="ton_iot/10class", manual_dir=str(tmp_path / "m"))
    assert "note: train has no rows of normal, backdoor, ddos" in capsys.readouterr().err


def test_termination_becomes_an_exception_and_leaves_nothing(tmp_path, command, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(
        "qoejax.data.rawfile.sha256", lambda _: os.kill(os.getpid(), signal.SIGTERM)
    )
    with pytest.raises(SystemExit) as e:
        command(dataset="ton_iot/10class", manual_dir=str(TON))
    assert e.value.code == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_terminal_gets_a_bar(tmp_path):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, "--dataset=ton_iot", f"--manual_dir={TON}", f"--data_dir={tmp_path}"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    )
    json.loads(process.communicate(timeout=120)[0])
    os.close(theirs)
    seen = b""
    while chunk := _read(ours):
        seen += chunk
    os.close(ours)
    assert b"100%|" in seen
    assert b"80 rows" in seen


def _read(descriptor):
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux says so when the other end is closed.
        return b""
