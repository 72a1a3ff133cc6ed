"""Which client axis to try, which to prefer, and how many rounds to dispatch at once. Pure.

Numbers come from measurements that others make (``run.tune``); nothing here runs on a device.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

MARGIN = 0.1
"""The best guess stays unless another is faster by this part: noise must not flip the choice."""

DISPATCH_S = 2e-3
"""Seconds that a dispatch and reading its metrics may take; 0.1 to 1.8 ms were measured on CPU."""

OVERHEAD = 0.01
"""Part of a round's time that dispatch may cost."""


class Candidate(NamedTuple):
    """One way to run the clients of a round; names are those of ``engine.make_engine``.

    ``devices`` is the size of the mesh, 1 without one.
    """

    client_axis: str
    chunk: int
    devices: int


def candidates(platform: str, devices: int, cohort: int) -> list[Candidate]:
    """What is worth trying for rounds of ``cohort`` clients, the best guess first.

    On CPU the work of a few clients must stay in a core's cache; an accelerator wants as many at
    once as its memory holds. No chunk is larger than a device's share of the cohort.

    Args:
      platform: "cpu", "gpu" or "tpu".
      devices: Of that platform.
      cohort: Clients of a round.
    """
    if cohort == 1:
        return [Candidate("turn", 1, 1)]
    if platform == "cpu":
        shard = [Candidate("shard", 1, devices), Candidate("shard", 4, devices)]
        wanted = shard if devices > 1 else []
        wanted += [Candidate("chunk", 4, 1), Candidate("turn", 1, 1), Candidate("chunk", 10, 1)]
    else:
        axis = "shard" if devices > 1 else "chunk"
        wanted = [Candidate(axis, chunk, devices) for chunk in (128, 256, 512, 64, 32)]
    fitting = [c._replace(chunk=min(c.chunk, -(-cohort // c.devices))) for c in wanted]
    return list(dict.fromkeys(fitting))


def best(seconds: Sequence[float | None]) -> int:
    """The number of the candidate to take, given each one's seconds a round, None if it failed.

    The first that ran, unless the fastest beats it by more than ``MARGIN``.

    Raises:
      ValueError: none ran.
    """
    ran = [i for i, s in enumerate(seconds) if s is not None]
    if not ran:
        raise ValueError("no candidate ran")
    time = lambda i: seconds[i] or 0.0  # noqa: E731
    fastest = min(ran, key=time)
    return fastest if time(fastest) < (1 - MARGIN) * time(ran[0]) else ran[0]


def rounds_per_dispatch(seconds: float, every: Sequence[int]) -> int:
    """Rounds in one dispatch, as few as keep its cost below ``OVERHEAD``.

    They are a divisor of all the intervals ``every`` at which blocks end anyway, so that all
    blocks are of one length and compile once; that bound comes first.

    Args:
      seconds: Of a round.
      every: Rounds between evaluations, checkpoints and the like.
    """
    wanted = math.ceil(DISPATCH_S / (OVERHEAD * max(seconds, 1e-9)))
    common = math.gcd(*every)
    return next((n for n in range(wanted, common) if common % n == 0), common)
