"""Simulated time and bytes of a round, by class of device. NumPy, pure.

A client's round is: fetch the model, compute, send the answer, over a link with a rate each way, a
duty cycle and a latency. Figures of a table are *published* (by the standard or datasheet named)
or *assumed* (ours, for want of a figure that fits every product); docs/algorithms.md repeats them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from qoejax.types import Cohort


class Device(NamedTuple):
    """``flops``: float operations a second that training sustains."""

    flops: float
    source: str


class Link(NamedTuple):
    """Bits a second up and down while sending, the share of time that is allowed, and seconds."""

    up: float
    down: float
    duty: float
    latency: float
    source: str


DEVICES: dict[str, Device] = {
    "microcontroller": Device(5e7, "assumed: a Cortex-M7-class core at a few hundred MHz"),
    "gateway": Device(2e9, "assumed: a Raspberry-Pi-4-class board, four cores"),
    "server": Device(5e10, "assumed: two cores of an x86-64 server"),
}

LINKS: dict[str, Link] = {
    "lorawan": Link(
        5470, 5470, 0.01, 2.0,
        "published: LoRaWAN Regional Parameters, EU863-870, DR5 and duty cycle below 1 % (ETSI EN "
        "300 220); latency assumed; rates leave headers and retries out",
    ),
    "nb_iot": Link(
        62_500, 26_000, 1.0, 1.6,
        "published: peak rates of Cat-NB1, 3GPP release 13; latency assumed",
    ),
    "wifi": Link(20e6, 20e6, 1.0, 0.01, "assumed: a shared 2.4 GHz IEEE 802.11n cell"),
    "5g": Link(50e6, 100e6, 1.0, 0.02, "published: user rates of ITU-R M.2410; latency assumed"),
}  # fmt: skip


class Kind(NamedTuple):
    """A class of client, and its share of the population."""

    device: str
    link: str
    share: float

    @property
    def name(self) -> str:
        """``device/link``."""
        return f"{self.device}/{self.link}"


MIXES: dict[str, tuple[Kind, ...]] = {
    "gateways": (Kind("gateway", "wifi", 1.0),),
    "mixed": (
        Kind("microcontroller", "nb_iot", 0.5),
        Kind("gateway", "wifi", 0.3),
        Kind("gateway", "5g", 0.15),
        Kind("server", "5g", 0.05),
    ),
    "lpwan": (Kind("microcontroller", "lorawan", 0.7), Kind("microcontroller", "nb_iot", 0.3)),
}


class Load(NamedTuple):
    """What a client's round consists of: operations of a step, and bytes each way."""

    flops: float
    up: int
    down: int


def assign(mix: Sequence[Kind], population: int, seed: int) -> Int[np.ndarray, " P"]:
    """The kind of each client, as an index into ``mix``; shares are met as nearly as can be."""
    ends = np.cumsum([kind.share for kind in mix])
    bounds = np.rint(ends / ends[-1] * population).astype(int)
    kinds = np.searchsorted(bounds, np.arange(population), side="right")
    return np.random.default_rng([seed, 3]).permutation(kinds)


def overhead(mix: Sequence[Kind], load: Load) -> Float[np.ndarray, " kinds"]:
    """Seconds of a client's round that do not depend on its steps, for each kind."""
    links = [LINKS[kind.link] for kind in mix]
    return np.array(
        [
            2 * link.latency + 8 * (load.down / link.down + load.up / link.up) / link.duty
            for link in links
        ]
    )


def step_seconds(mix: Sequence[Kind], load: Load) -> Float[np.ndarray, " kinds"]:
    """Seconds of one local step, for each kind."""
    return np.array([load.flops / DEVICES[kind.device].flops for kind in mix])


def client_seconds(
    mix: Sequence[Kind], kinds: Int[np.ndarray, " N"], steps: Int[np.ndarray, " N"], load: Load
) -> Float[np.ndarray, " N"]:
    """How long each client's round takes."""
    return overhead(mix, load)[kinds] + steps * step_seconds(mix, load)[kinds]


def step_limit(
    mix: Sequence[Kind], kinds: Int[np.ndarray, " P"], load: Load, deadline: float
) -> Int[np.ndarray, " P"]:
    """Most steps with which each client still answers in ``deadline`` seconds; 0 if not even one.

    A hair's breadth is allowed for: a deadline which a number of steps just meets admits it.
    """
    left = deadline - overhead(mix, load)[kinds]
    most = np.floor(left / step_seconds(mix, load)[kinds] * (1 + 1e-9))
    return np.clip(most, 0, np.iinfo(np.int32).max).astype(np.int32)


def cost(
    mix: Sequence[Kind],
    kinds: Int[np.ndarray, " P"],
    cohort: Cohort,
    load: Load,
    deadline: float = 0.0,
) -> dict[str, Any]:
    """Simulated seconds of a round and bytes by kind.

    The server waits for the slowest client that finishes; if one does not finish, until the
    deadline where there is one. All that were asked fetch the model; those that finish send.

    Args:
      mix: Kinds of clients.
      kinds: Of every client of the population, indices into ``mix``.
      cohort: The round's clients (NumPy leaves), as the engine gives them.
      load: What a client's round consists of.
      deadline: Seconds; 0 for none.

    Returns:
      ``seconds``; ``bytes_up``, ``bytes_down`` and ``clients``, which finished, by kind.
    """
    asked = cohort.client_id >= 0
    done = asked & (cohort.weight > 0)
    own = kinds[np.maximum(cohort.client_id, 0)]
    takes = client_seconds(mix, own, cohort.steps, load)
    seconds = float(takes[done].max(initial=0.0))
    if deadline and (asked & ~done).any():
        seconds = deadline
    finished = np.bincount(own[done], minlength=len(mix))
    started = np.bincount(own[asked], minlength=len(mix))
    names = [kind.name for kind in mix]
    return {
        "seconds": seconds,
        "clients": dict(zip(names, finished.tolist(), strict=True)),
        "bytes_up": dict(zip(names, (finished * load.up).tolist(), strict=True)),
        "bytes_down": dict(zip(names, (started * load.down).tolist(), strict=True)),
    }
