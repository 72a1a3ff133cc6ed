"""Threads or processes that run ``worker.TASKS``, behind one function each.

Processes are started directly rather than through multiprocessing, which would import the
program's main module, and with it jax, into every worker: these hold about 50 MB and start in
half a second, beside whatever the caller does.
"""

import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent import futures
from typing import IO, Any, NamedTuple

from qoejax.wire import worker

MODES = ("threads", "processes")


class WorkerError(RuntimeError):
    """A worker died or a task crashed: a fault of this machine or program, not of an envelope."""


class Pool(NamedTuple):
    """Where tasks run.

    Attributes:
        submit: ``submit(task, *arguments, then=None)`` gives a future; ``then`` is called with it
            once it is done, never in the thread that submits.
        close: ends the workers and drops what is not yet done.
        pids: ids of the worker processes, none for threads.
    """

    submit: Callable[..., futures.Future]
    close: Callable[[], None]
    pids: tuple[int, ...] = ()


Then = Callable[[futures.Future], object]


def _future(then: Then | None) -> futures.Future:
    future: futures.Future = futures.Future()
    if then is not None:
        future.add_done_callback(then)
    return future


def mode_of(signer: str) -> str:
    """Threads, but for a library that holds the interpreter lock while it signs."""
    return "processes" if signer == "pqcrypto" else "threads"


def start(setup: worker.Setup, workers: int, mode: str) -> Pool:
    """A running pool; ValueError for an unknown mode or fewer than one worker."""
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is none of {MODES}")
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    return _threads(setup, workers) if mode == "threads" else _processes(setup, workers)


def _threads(setup: worker.Setup, workers: int) -> Pool:
    executor = futures.ThreadPoolExecutor(workers, thread_name_prefix="wire")

    def run(future: futures.Future, task: str, arguments: tuple) -> None:
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(worker.TASKS[task](setup, *arguments))
            except BaseException as error:
                future.set_exception(error)

    def submit(task: str, *arguments: Any, then: Then | None = None) -> futures.Future:
        future = _future(then)
        executor.submit(run, future, task, arguments)
        return future

    return Pool(submit, lambda: executor.shutdown(wait=True, cancel_futures=True))


class _Child(NamedTuple):
    process: subprocess.Popen
    jobs: IO[bytes]
    answers: IO[bytes]


def _spawn() -> _Child:
    if not sys.executable:
        raise WorkerError("this Python cannot start another one; use mode='threads'")
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    # One worker, one core: NumPy's own threads would only get in the way.
    environment["OPENBLAS_NUM_THREADS"] = environment["OMP_NUM_THREADS"] = "1"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", "from qoejax.wire.worker import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        # Ctrl-C is for the parent, which then closes the pipes.
        start_new_session=True,
    )
    assert process.stdin is not None  # both are pipes, by the arguments above
    assert process.stdout is not None
    return _Child(process, process.stdin, process.stdout)


class _Job(NamedTuple):
    future: futures.Future
    task: str
    arguments: tuple


def _processes(setup: worker.Setup, workers: int) -> Pool:
    jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
    children = [_spawn() for _ in range(workers)]
    exposed = worker.expose(setup)
    closing = threading.Event()
    broken: list[WorkerError] = []

    def serve(child: _Child) -> None:
        job = None
        try:
            worker.send(child.jobs, exposed)
            worker.receive(child.answers)
            while (job := jobs.get()) is not None:
                _work(child, job)
        except (EOFError, OSError):
            status = child.process.wait()
            error = WorkerError(
                f"wire worker {child.process.pid} ended with status {status}"
                + (f" during {job.task!r}" if job else " while starting")
            )
            if not closing.is_set():
                broken.append(error)
                _fail(jobs, error)
            if job is not None:
                job.future.set_exception(error)

    threads = [
        threading.Thread(target=serve, args=(child,), name=f"wire-{child.process.pid}", daemon=True)
        for child in children
    ]
    for thread in threads:
        thread.start()

    def submit(task: str, *arguments: Any, then: Then | None = None) -> futures.Future:
        if closing.is_set():
            raise WorkerError("the pool is closed")
        if broken:
            raise broken[0]
        future = _future(then)
        jobs.put(_Job(future, task, arguments))
        if broken:  # a worker may have died between the two lines above
            _fail(jobs, broken[0])
        return future

    def close() -> None:
        closing.set()
        _fail(jobs, WorkerError("the pool was closed"))
        for child in children:
            jobs.put(None)
            child.process.kill()
        for thread in threads:
            thread.join()
        for child in children:
            child.process.wait()
            with contextlib.suppress(OSError):  # what was still to be flushed has no reader
                child.jobs.close()
            child.answers.close()

    return Pool(submit, close, tuple(child.process.pid for child in children))


def _work(child: _Child, job: _Job) -> None:
    try:
        worker.send(child.jobs, (job.task, job.arguments))
        status, value = worker.receive(child.answers)
    except (EOFError, OSError):
        raise
    except Exception as error:  # what cannot be pickled; the pipe is still in step
        status, value = "failed", repr(error)
    if status == "done":
        job.future.set_result(value)
    else:
        job.future.set_exception(WorkerError(f"task {job.task!r} crashed:\n{value}"))


def _fail(jobs: queue.SimpleQueue, error: WorkerError) -> None:
    """Ends every waiting job with ``error``."""
    while True:
        try:
            job = jobs.get_nowait()
        except queue.Empty:
            return
        if job is None:  # the sign to stop; nothing but such signs follows
            jobs.put(None)
            return
        job.future.set_exception(error)
