"""Workers: quick and light, clear when they die, gone when the parent is."""

import os
import pathlib
import pickle
import signal
import subprocess
import sys
import time

import pytest

from qoejax.wire import envelope, pool, worker
from tests.wire import helpers
from tests.wire.helpers import MODEL, SPEC

SETUP = worker.Setup(helpers.identities(), SPEC, "openssl", False)


def job():
    at = helpers.scene()
    header = envelope.unpack(helpers.seal(at).envelope)
    return ("seal", 0, header, MODEL, at.round.announced.announce.round_key)


def alive(pid: int) -> bool:
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_gone(pids):
    end = time.monotonic() + 20
    while any(map(alive, pids)):
        assert time.monotonic() < end, f"still alive: {[pid for pid in pids if alive(pid)]}"
        time.sleep(0.02)


def run(one, times):
    for _ in range(times):
        one.submit(*job()).result(timeout=20)


@pytest.fixture
def processes():
    one = pool.start(SETUP, 2, "processes")
    yield one
    one.close()


def test_threads_and_processes_do_the_same(processes):
    at = helpers.scene()
    threads = pool.start(SETUP, 1, "threads")
    for one in (threads, processes):
        sealed, exposed, seconds = one.submit(*job()).result()
        assert set(seconds) == {"kem", "hash", "sign", "aead", "seal"}
        assert seconds["seal"] >= seconds["sign"] > 0
        facts, key = at.round.announced.announce, at.clients[0].public
        for other in (threads, processes):
            arguments = (sealed.envelope, facts, at.secret.expose(), key)
            opened, found, seconds = other.submit("open", *arguments).result()
            assert found == exposed  # both ends share the exports
            assert sealed.exports is opened.exports is None
            assert opened.payload == MODEL
            assert set(seconds) == {"kem", "hash", "verify", "aead", "codec", "open"}
        refused = processes.submit("open", sealed.envelope, facts, bytes(2464), key).result()
        assert refused.code == "DECRYPT"
        assert refused.seconds["open"] > 0
    threads.close()


def test_a_killed_worker_is_named_and_nothing_waits_for_ever(processes):
    processes.submit(*job()).result()
    for pid in processes.pids:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(pool.WorkerError, match=r"wire worker \d+ ended with status -9"):
        run(processes, 20)


def test_a_crash_inside_a_task_reaches_the_caller_and_the_worker_goes_on(processes):
    for arguments in (("seal", 99, *job()[2:]), ("nonsense",), ("seal", lambda: 0)):
        with pytest.raises(pool.WorkerError, match="crashed"):
            processes.submit(*arguments).result(timeout=10)
    assert processes.submit(*job()).result(timeout=10)


def test_closing_ends_waiting_jobs_and_processes(processes):
    waiting = [processes.submit(*job()) for _ in range(50)]
    processes.close()
    processes.close()
    assert not any(map(alive, processes.pids))
    assert all(future.done() for future in waiting)
    with pytest.raises(pool.WorkerError, match="closed"):
        processes.submit(*job())


def test_a_worker_that_cannot_start_says_so(monkeypatch):
    monkeypatch.setattr(worker, "expose", lambda setup: {"identities": []})
    one = pool.start(SETUP, 1, "processes")
    with pytest.raises(pool.WorkerError, match="while starting"):
        run(one, 1)
    one.close()


@pytest.mark.parametrize(("workers", "mode"), [(0, "threads"), (1, "fibres")])
def test_bad_arguments_are_named(workers, mode):
    with pytest.raises(ValueError, match=r"workers must be|'fibres' is none of"):
        pool.start(SETUP, workers, mode)


def test_a_setup_is_not_pickled_by_accident():
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(SETUP)
    raw = SETUP.identities[0].secret.expose()
    assert repr(raw)[2:14] not in repr(SETUP)
    assert worker._conceal(worker.expose(SETUP)).identities[0].id == SETUP.identities[0].id


def test_workers_import_nothing_heavy():
    heavy = ("jax", "jaxlib", "flax", "optax", "ml_collections", "tensorflow_datasets", "scipy")
    code = (
        "import sys, qoejax.wire.worker, qoejax.wire.exchange\n"
        f"found = [name for name in {heavy!r} if name in sys.modules]\n"
        "sys.exit(f'imported {found}' if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
if __name__ != "__main__":
    sys.exit("a worker imported the main module")
from tests.wire.helpers import MODEL, SPEC
from qoejax.wire.exchange import Exchange
with Exchange(clients=2, spec=SPEC, signer="openssl", mode="processes", workers=2) as one:
    number = 0
    while True:
        result = one.round(number, MODEL, {0: MODEL, 1: MODEL}, {0: 1, 1: 1})
        assert len(result.payloads) == 2
        if number == 0:
            print(*one._pool.pids, flush=True)
        number += 1
"""


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_no_worker_outlives_the_program(tmp_path, number):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    root = str(pathlib.Path(__file__).parents[2])
    child = subprocess.Popen(
        [sys.executable, str(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": root},
    )
    try:
        pids = [int(pid) for pid in child.stdout.readline().split()]
        assert len(pids) == 2, child.communicate()[1]
        assert all(map(alive, pids))
        child.send_signal(number)
        _, complaints = child.communicate(timeout=20)
    finally:
        child.kill()
    wait_until_gone(pids)
    assert child.returncode == -number
    if number == signal.SIGINT:
        assert complaints.rstrip().endswith("KeyboardInterrupt")
        assert complaints.count("Traceback") == 1
