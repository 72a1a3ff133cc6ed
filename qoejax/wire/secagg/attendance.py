"""Who takes part in a round whose members and server are all in one process, and what it costs."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from qoejax.wire.clock import Clock
from qoejax.wire.errors import EnvelopeError
from qoejax.wire.keys import Identity
from qoejax.wire.secagg import agreement, plan
from qoejax.wire.secagg.plan import Plan, Signing

STEPS = ("keys", "ciphertexts", "shares", "input", "confirm", "unmask")
"""What a member sends, in order; one that leaves at a step sends nothing from there on."""

Tamper = Callable[[str, bytes, bytes], bytes]
"""``(step, sender, frame) -> frame``: what the network, or a bad member, makes of a frame."""


class Round:
    """Who is still there, what has been counted, and who signs.

    Attributes:
        refused: by id, why a member is out.
        up: bytes from each member, and ``down`` to each.
        clock: CPU seconds by member (hexadecimal id), and the server's under ``""``.
        steps: CPU seconds of all members by name of the step.
        signing: signs for the members beside this thread; None if each does so in its step.
    """

    def __init__(
        self,
        me: Identity,
        facts: Plan,
        members: Mapping[bytes, Identity],
        verifier: str,
        leaves: Mapping[bytes, str],
        tamper: Tamper | None,
        trust: agreement.Trust | None,
        provider: str,
    ):
        unknown = set(leaves.values()) - set(STEPS)
        if unknown:
            raise ValueError(f"no step {sorted(unknown)[0]!r}: expected one of {', '.join(STEPS)}")
        self.me, self.facts, self.members, self.verifier = me, facts, members, verifier
        self.publics = {name: one.public for name, one in members.items()}
        self.leaves, self.tamper, self.trust, self.provider = leaves, tamper, trust, provider
        self.refused: dict[bytes, EnvelopeError] = {}
        self.up = dict.fromkeys(members, 0)
        self.down = dict.fromkeys(members, 0)
        self.clock = Clock()
        self.steps = Clock()
        self.signing: Signing | None = None

    def there(self, name: bytes, step: str) -> bool:
        """Whether a member still takes part at a step."""
        if name in self.refused:
            return False
        return STEPS.index(self.leaves.get(name, STEPS[-1])) > STEPS.index(step) or (
            name not in self.leaves
        )

    def member(self, name: bytes, step: Callable, *arguments):
        """A member's work; None where it stops for good."""
        try:
            with self.clock(name.hex()), self.steps(step.__name__):
                return step(*arguments)
        except EnvelopeError as error:
            self.refused[name] = error
            return None

    def server(self, name: bytes, step: Callable, *arguments):
        """The server's check of a member's frame; None where it refuses, and the member is out."""
        try:
            with self.clock(""):
                return step(*arguments)
        except EnvelopeError as error:
            self.refused[name] = error
            return None

    def sent(self, step: str, name: bytes, frame: bytes, more: int = 0) -> bytes:
        """The frame as it arrives; ``more`` bytes go with it."""
        self.up[name] += len(frame) + more
        return frame if self.tamper is None else self.tamper(step, name, frame)

    @property
    def make(self) -> Callable[..., Any]:
        """What a member's step makes its signed frame with."""
        return (
            plan.signed if self.signing is None else functools.partial(plan.signing, self.signing)
        )

    def made(self, name: bytes, step: Callable, frame: Any) -> bytes | None:
        """The frame that ``make`` began in a step, once it is signed; None if nobody could."""
        if isinstance(frame, bytes):
            return frame
        try:
            frame, seconds = frame()
        except EnvelopeError as error:
            self.refused[name] = error
            return None
        self.clock.add({name.hex(): seconds})
        self.steps.add({step.__name__: seconds})
        return frame
