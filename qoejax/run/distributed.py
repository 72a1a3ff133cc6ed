"""Several processes, one run: JAX's distributed runtime, and who does what. Host.

All processes read the same config, run the same compiled rounds on one mesh, and take part in
every checkpoint. Process 0 alone locks the workdir, writes the other files and talks. What fails in
one process ends all of them, with its sentence.

The client of JAX's coordination service is a private seam (``jax._src.distributed``): its key-value
store has no public name, and what is said there works without devices.
"""

import atexit
import contextlib
import hashlib
import logging
import os
import pathlib
import re
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
import ml_collections
import numpy as np
from jax._src import distributed as runtime
from jax.experimental import multihost_utils

from qoejax.run.errors import RunError

P = ParamSpec("P")
R = TypeVar("R")

LOG = logging.getLogger("qoejax")
PATIENCE = 7 * 24 * 3600
"""Seconds at a meeting: the others may be preparing data. Who has died is noticed otherwise."""
FAREWELL = 5
"""Seconds that a failing run leaves for all processes to hear why."""
CONNECTIONS = ("Gloo", "NCCL", "coordination service")
"""What errors of a broken connection speak of; JAX gives them no type of their own."""
FAILED = "qoejax/failed"
AGAIN = "start all again to go on from the last checkpoint"


class Asked(NamedTuple):
    """What the flags say: all None where the runtime finds out by itself (TPU, Slurm, Open MPI)."""

    coordinator: str | None
    count: int | None
    index: int | None
    timeout: int


class Group(NamedTuple):
    """The processes of a run, as one of them sees it; methods that all must call say so.

    Attributes:
      index: This process; 0 leads.
      count: All processes.
      client: Of the coordination service; None where there is one process.
    """

    index: int = 0
    count: int = 1
    client: Any = None

    @property
    def leads(self) -> bool:
        """Whether this process writes and talks."""
        return self.index == 0

    def first(self, fn: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | None:
        """What process 0 gets from the call; the others do not make it and get None."""
        return fn(*args, **kwargs) if self.leads else None

    def entered(self, context: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> Any:
        """The context on process 0, and one that does nothing elsewhere."""
        return context(*args, **kwargs) if self.leads else contextlib.nullcontext()

    def exchange(self, name: str, text: str) -> list[str]:
        """What every process says under a name that is used once; all must call it."""
        if self.client is None:
            return [text]
        self.client.key_value_set(f"{name}/{self.index}", text)
        self.client.wait_at_barrier(name, PATIENCE * 1000)
        return [
            self.client.blocking_key_value_get(f"{name}/{i}", 60_000) for i in range(self.count)
        ]

    def meet(self, name: str) -> None:
        """Returns when all processes are here; all must call it, once under each name."""
        self.exchange(name, "")

    def same(self, what: str, text: str, expected: str) -> None:
        """Goes on only if all processes say the same of ``what``; all must call it.

        Raises:
          RunError: they do not; ``expected`` is the end of the sentence.
        """
        said = self.exchange(f"same {what}", hashlib.sha256(text.encode()).hexdigest())
        other = [i for i, digest in enumerate(said) if digest != said[0]]
        if other:
            raise RunError(f"{what}: process {other[0]} differs from process 0; {expected}")

    def host(self, tree: Any) -> Any:
        """NumPy copies of arrays of the mesh; all must call it where leaves are shared out."""
        return jax.tree.map(_whole, tree)


ALONE = Group()


def _whole(leaf: Any) -> np.ndarray:
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        return multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)


def bytes_here(tree: Any) -> int:
    """Bytes of arrays on the devices of this process; a copy on each device counts each time."""
    leaves = jax.tree.leaves(tree)
    return sum(shard.data.nbytes for leaf in leaves for shard in leaf.addressable_shards)


def asked(
    detect: bool, coordinator: str | None, count: int | None, index: int | None, timeout: int
) -> Asked | None:
    """The flags as one request, or None for a single process.

    Raises:
      RunError: names the flag, its value and what was expected.
    """
    given = {"coordinator": coordinator, "processes": count, "process_id": index}
    there = [name for name, value in given.items() if value is not None]
    if timeout < 1:
        raise RunError(f"--process_timeout is {timeout}: expected at least 1 second")
    if detect:
        if there:
            raise RunError(
                f"--distributed finds the processes by itself, but --{there[0]} is given too: "
                "expected one or the other"
            )
        return Asked(None, None, None, timeout)
    if not there:
        return None
    if missing := [name for name in given if name not in there]:
        raise RunError(f"--{there[0]} needs --{missing[0]} beside it")
    if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^\s:]+):[0-9]+", str(coordinator)):
        raise RunError(f"--coordinator is {coordinator!r}: expected HOST:PORT of process 0")
    if count is None or count < 1:
        raise RunError(f"--processes is {count}: expected at least 1")
    if index is None or not 0 <= index < count:
        raise RunError(f"--process_id is {index}: expected 0 to {count - 1}")
    return Asked(coordinator, count, index, timeout)


def check(config: ml_collections.ConfigDict, group: Group) -> None:
    """Refuses what several processes cannot do, before anything is read; all must call it.

    Raises:
      RunError: names the key, its value and what was expected.
    """
    count = group.count
    if count == 1:
        return
    said = [config.to_json_best_effort(sort_keys=True), jax.__version__]
    group.same("the config and JAX", str(said), "expected the same flags and versions everywhere")
    if config.perf.client_axis != "shard":
        raise RunError(
            f"config.perf.client_axis is {config.perf.client_axis!r}, but there are {count} "
            "processes: expected 'shard', which alone spans them"
        )
    if config.exchange.mode != "none":
        raise RunError(
            f"config.exchange.mode is {config.exchange.mode!r}, but there are {count} processes "
            "and envelopes are sealed and opened in one: expected 'none', or a single process"
        )
    if config.perf.devices % count:
        raise RunError(
            f"config.perf.devices is {config.perf.devices}, shared by {count} processes: "
            f"expected a multiple of {count}, or 0 where devices are not simulated"
        )


def check_shared(group: Group, path: pathlib.Path) -> None:
    """Refuses a workdir that only process 0 sees; all must call it when ``path`` is written.

    Raises:
      RunError: another process finds something else there.
    """
    group.meet(f"written {path.name}")
    text = path.read_text() if path.exists() else ""
    group.same(str(path), text, "expected a workdir that all processes share")


@contextlib.contextmanager
def session(wanted: Asked | None) -> Iterator[Group]:
    """The processes of a run while it lasts; before JAX starts.

    Raises:
      RunError: the processes did not meet, or one was lost.
    """
    if wanted is None:
        yield ALONE
        return
    over = threading.Event()
    with _stdout_to_stderr():
        group = _connect(wanted)
        threading.Thread(target=_watch, args=(group, over), daemon=True).start()
        try:
            yield group
            group.meet("qoejax/done")
            over.set()
        except BaseException as e:
            atexit.register(os._exit, 1)  # before JAX's own, which would wait for the others
            error = _translated(e, group)
            _tell(group, str(error) or type(error).__name__)
            raise error from None
        jax.distributed.shutdown()


def _connect(wanted: Asked) -> Group:
    """Meets the other processes."""
    where = wanted.coordinator or "their coordinator"
    # The runtime's own end of patience is an abort with a stack trace.
    sentence = (
        f"the processes did not meet at {where} within {wanted.timeout} s: expected all of them to "
        "start, each with its own number, and to reach each other"
    )
    last = FAREWELL / 2 if wanted.index == 0 else 0  # its end would abort the others
    timer = threading.Timer(wanted.timeout + last, _end, (sentence,))
    timer.daemon = True
    timer.start()
    jax.config.update("jax_enable_preemption_service", False)  # it would swallow SIGTERM
    try:
        jax.distributed.initialize(
            wanted.coordinator, wanted.count, wanted.index,
            cluster_detection_method="deactivate" if wanted.coordinator else None,
            initialization_timeout=wanted.timeout + FAREWELL,
            heartbeat_timeout_seconds=wanted.timeout,
        )  # fmt: skip
    except (RuntimeError, ValueError) as e:
        if wanted.coordinator is None and isinstance(e, ValueError):
            raise RunError(
                "--distributed found neither a TPU pod nor Slurm nor Open MPI: expected one of "
                "these, or --coordinator, --processes and --process_id"
            ) from None
        raise RunError(f"the processes did not meet at {where}: {_line(e)}") from None
    finally:
        timer.cancel()
    state = runtime.global_state
    if state.process_id:
        LOG.setLevel(logging.ERROR)
    LOG.info("%d processes", state.num_processes)
    return Group(state.process_id, state.num_processes, state.client)


def _watch(group: Group, over: threading.Event) -> None:
    """Ends this process when another one says that it failed, even inside a collective."""
    try:
        said = group.client.blocking_key_value_get(FAILED, PATIENCE * 1000)
    except Exception:  # the service is gone, and with it process 0
        if not over.is_set():
            _end(f"process {group.index} lost process 0; {AGAIN}")
        return
    index, _, sentence = said.partition(" ")
    if int(index) != group.index:
        with contextlib.suppress(Exception):
            group.client.wait_at_barrier("qoejax/farewell", FAREWELL * 1000)
        _end(f"process {index} failed: {sentence}")


def _end(sentence: str) -> None:
    """Ends this process from any thread."""
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    os._exit(1)


def _tell(group: Group, sentence: str) -> None:
    """Says why this process ends, and waits a little until all have heard."""
    with contextlib.suppress(Exception):  # another one was first, or nobody listens any more
        group.client.key_value_set(FAILED, f"{group.index} {' '.join(sentence.split())}")
        group.client.wait_at_barrier("qoejax/farewell", FAREWELL * 1000)


def _translated(error: BaseException, group: Group) -> BaseException:
    """A broken connection as a sentence; anything else as it is."""
    if not any(name in str(error) for name in CONNECTIONS) or isinstance(error, RunError):
        return error
    return RunError(
        f"process {group.index} of {group.count} lost another one: {_line(error)}; {AGAIN}"
    )


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Gloo greets its peers on stdout, which is for one line of JSON."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
