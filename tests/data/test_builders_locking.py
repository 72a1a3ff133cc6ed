"""Crashes and concurrent preparations of one dataset."""

import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from qoejax.data import load, locking
from qoejax.data.errors import DataError
from tests.data import dummy

MANUAL = dummy.BUILDERS / "ton_iot" / "dummy_data"

HELD = """
import sys, time
from qoejax.data import load
def wait(rows, done):
    print("started", flush=True)
    time.sleep(60)
load.builder("ton_iot/binary", sys.argv[1], sys.argv[2], wait)
"""


def start_and_hold(data_dir):
    """A process that is in the middle of a preparation, and stays there."""
    process = subprocess.Popen(
        [sys.executable, "-c", HELD, str(data_dir), str(MANUAL)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "started\n"
    return process


def test_a_killed_preparation_leaves_no_trace_after_the_next(tmp_path):
    process = start_and_hold(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    folder = tmp_path / "ton_iot" / "binary"
    assert [p.name.partition(".")[0] for p in folder.iterdir()] == ["incomplete"]
    made = load.builder("ton_iot/binary", tmp_path, MANUAL)
    assert [p.name for p in folder.iterdir()] == ["1.0.0"]
    assert load.table(made, "train")[1].x.shape[1:] == (1, 42)


def _prepare(data_dir, barrier):
    barrier.wait(30)
    load.builder("ton_iot/10class", data_dir, MANUAL)


def test_concurrent_preparations_all_succeed(tmp_path):
    context = multiprocessing.get_context("forkserver")
    barrier = context.Barrier(2)
    workers = [context.Process(target=_prepare, args=(tmp_path, barrier)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert [p.name for p in (tmp_path / "ton_iot" / "10class").iterdir()] == ["1.0.0"]


def test_the_second_waits_for_the_first(tmp_path):
    target, order = tmp_path / "d" / "1.0.0", []
    inside, leave = threading.Event(), threading.Event()

    def first():
        with locking.prepare_lock(target):
            inside.set()
            leave.wait(30)
            target.mkdir()
            order.append("first")

    def second():
        with locking.prepare_lock(target):
            order.append("second" if target.exists() else "too early")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert inside.wait(30)
    threads[1].start()
    time.sleep(0.2)
    assert order == []
    leave.set()
    for thread in threads:
        thread.join(30)
    assert order == ["first", "second"]


def test_only_what_is_empty_is_tidied(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine").write_text("x")
    with locking.prepare_lock(tmp_path / "data" / "name" / "1.0.0"):
        (tmp_path / "data" / "name" / ".config").mkdir()
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["mine"]


def test_another_version_is_not_touched(tmp_path):
    old = tmp_path / "incomplete.ABC_0.9.0"
    old.mkdir()
    with locking.prepare_lock(tmp_path / "1.0.0"):
        pass
    assert old.exists()


@pytest.mark.parametrize("place", ["file/name", "/proc/nowhere"])
def test_a_folder_that_cannot_be_made_is_an_error(tmp_path, place):
    (tmp_path / "file").write_text("x")
    target = tmp_path / pathlib.Path(place) / "1.0.0"
    with (
        pytest.raises(DataError, match="Cannot write to the data folder"),
        locking.prepare_lock(target),
    ):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_read_only_folder_is_an_error(tmp_path):
    tmp_path.chmod(0o500)
    with (
        pytest.raises(DataError, match="Permission denied"),
        locking.prepare_lock(tmp_path / "name" / "1.0.0"),
    ):
        pass
