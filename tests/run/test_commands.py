"""The commands as a user types them: one JSON line, or one sentence and a non-zero exit."""

import json
import subprocess
import sys

import pytest

QUICK = "--config=configs/quickstart.py"


def run(name, *args):
    return subprocess.run(
        [sys.executable, "-m", f"experiments.{name}", *args],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((QUICK, "--config.client.learning_rate=1", "--workdir=w"), "learning_rate"),
        ((QUICK, "--config.fed.rounds=many", "--workdir=w"), "rounds"),
        (
            (QUICK + ":turbo", "--workdir=w"),
            "unknown variant 'turbo': expected 'plain', 'personal', 'centralised' or none",
        ),
        (("--config=configs/nothing.py", "--workdir=w"), "nothing.py"),
        ((QUICK,), "workdir"),
        ((QUICK, "--workdir=w", "extra"), "unexpected argument 'extra'"),
        ((QUICK, "--workdir=/proc/qoejax"), "workdir /proc/qoejax cannot be written to"),
    ],
    ids=["unknown key", "wrong type", "variant", "no config", "no workdir", "extra", "unwritable"],
)
def test_bad_flags_are_one_sentence(args, message):
    done = run("train", *args)
    assert done.returncode != 0
    assert done.stdout == ""
    last = done.stderr.strip().splitlines()
    assert len(last) == 1, done.stderr
    assert last[0].startswith("error: ")
    assert message in last[0]


@pytest.mark.parametrize("name", ["train", "evaluate", "predict", "prepare", "sweep"])
def test_help_describes_the_command(name):
    done = run(name, "--help")
    assert f"python -m experiments.{name}" in done.stdout


def test_evaluate_prints_one_line_of_json(wired_run):
    done = run("evaluate", f"--workdir={wired_run[0]}")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["macro_f1"] == wired_run[1]["macro_f1"]


def test_evaluating_nothing_says_so(tmp_path):
    done = run("evaluate", f"--workdir={tmp_path}")
    assert done.returncode == 1
    assert "expected a trained model (has training finished?)" in done.stderr
