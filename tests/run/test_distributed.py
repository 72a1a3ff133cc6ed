import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

from qoejax import trees
from qoejax.data import load
from qoejax.run import build, distributed
from qoejax.run.errors import RunError
from qoejax.run.writer import read_rows
from tests.run import several_config
from tests.run.conftest import tiny_config

SECONDS = 600


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def command(data_dir, workdir, *more, variant="fedavg"):
    return [
        sys.executable, "-m", "experiments.train", f"--workdir={workdir}",
        f"--config=tests/run/several_config.py:{variant}", f"--config.data.dir={data_dir}", *more,
    ]  # fmt: skip


def start(each):
    """The commands, side by side."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    return [
        subprocess.Popen(
            c, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        for c in each
    ]


def finish(processes):
    """(exit code, stdout, stderr) of each; none may hang."""
    try:
        out = [p.communicate(timeout=SECONDS) for p in processes]
    finally:
        for p in processes:
            p.kill()
    return [(p.returncode, *o) for p, o in zip(processes, out, strict=True)]


def pair(data_dir, workdir, *more, own=((), ()), **options):
    """Commands of two processes on one run; ``own`` are flags of each alone."""
    meeting = [f"--coordinator=127.0.0.1:{free_port()}", "--processes=2", "--process_timeout=60"]
    return [
        command(data_dir, workdir, *meeting, f"--process_id={i}", *more, *own[i], **options)
        for i in range(2)
    ]


def staged(workdir):
    """Bytes of rows on the devices of each process."""
    return json.loads((workdir / "manifest.json").read_text())["staged_bytes"]


def metrics(workdir):
    rows = read_rows(workdir / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def bytes_of_all_rows(data_dir):
    config = several_config.get_config()
    config.data.dir = str(data_dir)
    return trees.nbytes(build.population(config, build.data(config)).examples)


def run_one(data_dir, workdir, *more, **options):
    [(code, out, err)] = finish(start([command(data_dir, workdir, *more, **options)]))
    assert code == 0, err
    return json.loads(out)


def run_pair(data_dir, workdir, *more, **options):
    """The summary of two processes: process 0 alone says one."""
    (code, out, err), (code1, out1, err1) = finish(start(pair(data_dir, workdir, *more, **options)))
    assert (code, code1) == (0, 0), err + err1
    assert out1 == ""
    return json.loads(out)


@pytest.fixture(scope="module")
def prepared(data_dir):
    """The folder in which the dataset is prepared: time is for training."""
    load.builder("simulated_iot/tiny", data_dir)
    return data_dir


@pytest.mark.slow
@pytest.mark.multidevice
def test_two_processes_are_two_devices_to_the_bit(prepared, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    want, got = run_one(prepared, one), run_pair(prepared, two)
    assert got["params_sha256"] == want["params_sha256"]
    assert metrics(two) == metrics(one)
    assert {p.name for p in two.iterdir()} == {p.name for p in one.iterdir()}
    # Of three clients with as many rows, one process has two on its device; the other's one client
    # is filled up to the same length. Nobody has the rows of all.
    share = 2 * bytes_of_all_rows(prepared) // 3
    assert staged(two) == [share, share]
    assert staged(one) == [2 * share]


@pytest.mark.slow
@pytest.mark.multidevice
@pytest.mark.parametrize(
    "variant", ["copies", "scaffold", "fedper", "qoe", "coordinate_median", "fltrust"]
)  # fmt: skip
def test_two_processes_run_what_one_runs(prepared, tmp_path, variant):
    want = run_one(prepared, tmp_path / "one", variant=variant)
    got = run_pair(prepared, tmp_path / "two", variant=variant)
    assert got["params_sha256"] == want["params_sha256"]
    rows = metrics(tmp_path / "two")
    # What two processes saved, one goes on with.
    shutil.rmtree(tmp_path / "two" / "checkpoints" / "4")
    again = run_one(prepared, tmp_path / "two", variant=variant)
    assert again["params_sha256"] == want["params_sha256"]
    assert metrics(tmp_path / "two") == rows
    # And the other way round: two go on with what one saved, the newest of it damaged.
    newest = [p for p in (tmp_path / "one" / "checkpoints" / "4").rglob("*") if p.is_file()]
    largest = max(newest, key=lambda p: p.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    again = run_pair(prepared, tmp_path / "one", variant=variant)
    assert again["params_sha256"] == want["params_sha256"]
    assert [p.name for p in (tmp_path / "one/checkpoints/quarantine").iterdir()] == ["4.0"]


@pytest.mark.slow
@pytest.mark.multidevice
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_others_and_the_run_resumes(prepared, tmp_path, victim):
    rounds = "--config.fed.rounds=400"
    want = run_one(prepared, tmp_path / "whole", rounds)
    processes = start(pair(prepared, tmp_path / "killed", rounds))
    saved = tmp_path / "killed" / "checkpoints" / "2"
    deadline = time.monotonic() + SECONDS
    while not saved.is_dir() and time.monotonic() < deadline:
        time.sleep(0.05)
    processes[victim].kill()
    (code, _, err) = finish(processes)[1 - victim]
    assert code != 0
    assert "lost" in err
    assert "start all again" in err
    got = run_pair(prepared, tmp_path / "killed", rounds)
    assert got["params_sha256"] == want["params_sha256"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("own", "sentence"),
    [
        ((("--config.client.lr=0.5",), ()), "the config and JAX: process 1 differs from process 0"),
        (((), ("--workdir={elsewhere}",)), "expected a workdir that all processes share"),
        (
            (("--config.exchange.mode=pqc",), ("--config.exchange.mode=pqc",)),
            "config.exchange.mode is 'pqc', but there are 2 processes",
        ),
    ],
    ids=["flags", "workdir", "wire"],
)
def test_what_fails_in_one_process_ends_both_with_its_sentence(prepared, tmp_path, own, sentence):
    own = [[o.format(elsewhere=tmp_path / "elsewhere") for o in each] for each in own]
    done = finish(start(pair(prepared, tmp_path / "w", own=own)))
    for code, out, err in done:
        assert code == 1, err
        assert out == ""
        assert sentence in err
        assert "Traceback" not in err


@pytest.mark.slow
def test_a_process_that_nobody_joins_says_so(prepared, tmp_path):
    alone = pair(prepared, tmp_path / "w", "--process_timeout=5")[1]
    [(code, _, err)] = finish(start([alone]))
    assert code == 1
    assert "error: the processes did not meet at 127.0.0.1:" in err
    assert not (tmp_path / "w").exists()


FLAGS = {"detect": False, "coordinator": "h:1", "count": 2, "index": 0, "timeout": 9}


def test_flags_ask_for_processes_or_not():
    nothing = {"coordinator": None, "count": None, "index": None}
    assert distributed.asked(**FLAGS | nothing) is None
    assert distributed.asked(**FLAGS | nothing | {"detect": True}) == (None, None, None, 9)
    assert distributed.asked(**FLAGS | {"coordinator": "[::1]:80"}) == ("[::1]:80", 2, 0, 9)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"detect": True}, "--distributed finds .* --coordinator is given too"),
        ({"index": None}, "--coordinator needs --process_id beside it"),
        ({"coordinator": None}, "--processes needs --coordinator beside it"),
        ({"coordinator": "host"}, "--coordinator is 'host': expected HOST:PORT"),
        ({"coordinator": "a b:1"}, "--coordinator is 'a b:1': expected HOST:PORT"),
        ({"count": 0}, "--processes is 0: expected at least 1"),
        ({"index": 2}, "--process_id is 2: expected 0 to 1"),
        ({"timeout": 0}, "--process_timeout is 0: expected at least 1 second"),
    ],
)
def test_bad_flags_are_named(flags, message):
    with pytest.raises(RunError, match=message):
        distributed.asked(**FLAGS | flags)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"perf": {"client_axis": "turn"}}, r"client_axis is 'turn', .*2 processes: expected"),
        ({"exchange": {"mode": "pqc"}}, r"exchange\.mode is 'pqc', but there are 2 processes"),
        ({"perf": {"devices": 3}}, r"devices is 3, shared by 2 processes: expected a multiple"),
    ],
)
def test_what_several_processes_cannot_do_is_refused(sections, message):
    config = tiny_config("", **{"perf": {}} | sections)
    with config.unlocked():
        if "perf" not in sections or "client_axis" not in sections["perf"]:
            config.perf.client_axis = "shard"
    distributed.check(config, distributed.ALONE)
    with pytest.raises(RunError, match=message):
        distributed.check(config, distributed.Group(0, 2))


def test_alone_everything_is_done_here():
    alone = distributed.ALONE
    assert alone.first(max, 1, 2) == 2
    with alone.entered(contextlib.nullcontext, 7) as entered:
        assert entered == 7
    alone.same("this", "a", "expected nothing")
    other = distributed.Group(1, 2)
    assert other.first(max, 1, 2) is None
    with other.entered(contextlib.nullcontext, 7) as entered:
        assert entered is None
