"""The one exception that refusing bytes may raise, and its closed list of codes."""

import enum
from typing import Any


class Code(enum.StrEnum):
    """Why an envelope was refused; local, never sent to the peer in full."""

    FORMAT = "FORMAT"
    VERSION = "VERSION"
    SUITE = "SUITE"
    SIZE = "SIZE"
    SENDER = "SENDER"
    REVOKED = "REVOKED"
    ROUND = "ROUND"
    REPLAY = "REPLAY"
    EQUIVOCATION = "EQUIVOCATION"
    DECRYPT = "DECRYPT"
    SIGNATURE = "SIGNATURE"
    SPEC = "SPEC"
    NONFINITE = "NONFINITE"
    POLICY = "POLICY"
    SIGN_EXHAUSTED = "SIGN_EXHAUSTED"
    RNG = "RNG"


class EnvelopeError(ValueError):
    """Bytes were refused, or could not be made.

    Attributes:
        code: one of ``Code``.
        evidence: for EQUIVOCATION the two signed messages that claim one slot, else None.
    """

    def __init__(self, code: Code, message: str, evidence: Any = None):
        super().__init__(message)
        self.code = code
        self.evidence = evidence

    def __str__(self) -> str:
        return f"{self.code}: {self.args[0]}"


def reply(code: Code) -> str:
    """What a peer may learn of a refusal: REJECT, STALE (synchronise) or RETRY (send again)."""
    if code in (Code.ROUND, Code.REPLAY):
        return "STALE"
    if code in (Code.SIGN_EXHAUSTED, Code.RNG):
        return "RETRY"
    return "REJECT"
