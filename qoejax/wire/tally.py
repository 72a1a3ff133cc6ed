"""What is collected while a round is open, and what came out of it."""

import time
from collections.abc import Callable
from typing import NamedTuple

from qoejax.wire import envelope, server
from qoejax.wire.clock import Clock
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.secret import Secret

Tamper = Callable[[int, bytes], bytes]
"""``(client, envelope) -> bytes``: what a network does between the two ends."""


class RoundResult(NamedTuple):
    """What came out of a round.

    Attributes:
        payloads: accepted payloads by client.
        n_samples: what the accepted clients signed as their number of examples.
        rejected: code by client in whose place something was refused.
        messages: the refusals in words, by client.
        duplicates: envelopes that arrived again unchanged, or sealed again with the same content.
        evidence: pairs of signed messages that claim one slot.
        bytes_up: bytes of envelopes that reached the server.
        bytes_down: bytes of announcements sent to those invited.
        seconds: CPU seconds of kem, sign, verify, aead, hash, codec (primitives); seal, open,
            check, announce (whole steps); and wall-clock seconds: wall (begin to finish), wait
            (blocked in ``finish_round``).
        announcement: digest [32] that every accepted update names.
        slots: each accepted update without its payload, by client; signed, except in a session.
        greetings: signed HELLO of each client that said it, by client.
    """

    payloads: dict[int, bytes]
    n_samples: dict[int, int]
    rejected: dict[int, Code]
    messages: dict[int, str]
    duplicates: int
    evidence: tuple[tuple[server.Slot, server.Slot], ...]
    bytes_up: int
    bytes_down: int
    seconds: dict[str, float]
    announcement: bytes
    slots: dict[int, server.Slot]
    greetings: dict[int, server.Slot]


class Tally:
    """An open round: what is fixed, what was collected, and how much is still under way."""

    def __init__(self, rnd: server.Round, secret: Secret, bytes_down: int, tamper: Tamper | None):
        self.round = rnd
        self.secret = secret
        self.tamper = tamper
        self.bytes_down = bytes_down
        self.bytes_up = 0
        self.start = time.perf_counter()
        self.submitted: set[int] = set()
        self.sealed: dict[int, envelope.Sealed] = {}
        self.payloads: dict[int, bytes] = {}
        self.n_samples: dict[int, int] = {}
        self.rejected: dict[int, EnvelopeError] = {}
        self.duplicates = 0
        self.clock = Clock()
        self.pending = 0
        self.failure: BaseException | None = None

    def result(self, index: dict[bytes, int], slots: dict, wait: float) -> RoundResult:
        """The round's outcome; ``index`` names clients by id, ``wait`` is in seconds."""
        seconds = self.clock.seconds | {"wall": time.perf_counter() - self.start, "wait": wait}
        updates = {
            index[sender]: slot
            for (sender, _), slot in slots.items()
            if envelope.unpack(slot.header_bytes).type == envelope.UPDATE
        }
        return RoundResult(
            payloads=dict(sorted(self.payloads.items())),
            n_samples=dict(sorted(self.n_samples.items())),
            rejected={i: self.rejected[i].code for i in sorted(self.rejected)},
            messages={i: str(self.rejected[i]) for i in sorted(self.rejected)},
            duplicates=self.duplicates,
            evidence=tuple(e.evidence for e in self.rejected.values() if e.evidence is not None),
            bytes_up=self.bytes_up,
            bytes_down=self.bytes_down,
            seconds=seconds,
            announcement=self.round.announced.digest,
            slots=updates,
            greetings={
                index[sender]: slot for (sender, _), slot in slots.items() if slot.statement
            },
        )
