"""CLOSE: the last word of a session, signed: which of its updates the server accepted.

    CLOSE = header (218, type 9) || signature || statement (36)

A session's updates carry a tag and no signature; the HELLO that begins the next session signs for
them, and CLOSE does where none follows. It continues its sender's chain and answers no round, so
the header's fields that belong to one are zero. It is not encrypted: the log shows the same.
"""

import hashlib

from qoejax.wire import envelope, keys, session, sign
from qoejax.wire.client import Chain
from qoejax.wire.envelope import CLOSE, HEADER_SIZE, Header, Sealed
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.primitives import Signer
from qoejax.wire.server import Slot
from qoejax.wire.session import STATEMENT_SIZE, Session


def header(run: bytes, suite: int, server: bytes, entry: keys.Entry, chain: Chain) -> Header:
    """Header of the CLOSE that continues ``chain``."""
    none = bytes(32)
    return Header(
        type=CLOSE, suite=suite, key_epoch=entry.epoch, run=run, round=0, seq=chain.seq,
        sender=entry.id, recipient=server, base_model=none, tree_spec=none, announce=none,
        prev=chain.prev, n_samples=0, payload_len=STATEMENT_SIZE,
    )  # fmt: skip


def seal(head: Header, statement: bytes, signer: Signer) -> Sealed:
    """The message; ``statement`` is ``session.statement`` of the session that it closes."""
    packed = envelope.pack(head)
    name = envelope.transcript(packed, b"", hashlib.sha512(statement).digest())
    return Sealed(packed + signer(name, envelope.CONTEXTS[CLOSE]) + statement, name)


def read(
    data: bytes, want: Header, held: Session, public: bytes, *, verifier: str = "pqcrypto"
) -> tuple[Slot, Chain]:
    """A CLOSE that was verified, as a log keeps it, and its sender's chain after it.

    Args:
        data: the bytes received.
        want: ``header`` of the sender, with the server's chain; ``seq`` may be greater, by what
            was sealed and lost.
        held: the sender's session.
        public: key of the sender.
        verifier: name of the provider that verifies.

    Raises:
        EnvelopeError: SIZE, FORMAT, VERSION, SUITE, ROUND (another run), SENDER, REPLAY (another
            place in the chain, or other updates than were accepted) or SIGNATURE.
    """
    scheme = envelope.suite(want.suite, unsafe=True).scheme
    end = HEADER_SIZE + sign.SIZES[scheme][1]
    if len(data) != end + STATEMENT_SIZE:
        raise EnvelopeError(Code.SIZE, f"{len(data)} bytes, expected {end + STATEMENT_SIZE}")
    found = envelope.unpack(data)
    _check(found, want)
    packed, signature, statement = data[:HEADER_SIZE], data[HEADER_SIZE:end], data[end:]
    digest = hashlib.sha512(statement).digest()
    slot = Slot(hashlib.sha256(data).digest(), packed, b"", digest, signature, statement)
    name = envelope.transcript(packed, b"", digest)
    if not sign.verifier(verifier, scheme)(public, name, signature, envelope.CONTEXTS[CLOSE]):
        raise EnvelopeError(
            Code.SIGNATURE, f"client {found.sender.hex()}: signature does not verify"
        )
    if statement != session.statement(held):
        raise EnvelopeError(
            Code.REPLAY, f"client {found.sender.hex()}: closes another session than this one"
        )
    return slot, Chain(found.seq + 1, name[:32])


def _check(found: Header, want: Header) -> None:
    who = f"client {want.sender.hex()}"
    codes = {"type": Code.FORMAT, "suite": Code.SUITE, "run": Code.ROUND, "sender": Code.SENDER}
    codes |= {"key_epoch": Code.SENDER, "recipient": Code.ROUND, "prev": Code.REPLAY}
    for field in (*codes, *want._fields):
        if field != "seq" and getattr(found, field) != getattr(want, field):
            code = codes.get(field, Code.FORMAT)
            raise EnvelopeError(code, f"{who}: {field} of its CLOSE is not the one expected")
    if not 0 <= found.seq - want.seq <= session.MAX_SKIP:
        raise EnvelopeError(Code.REPLAY, f"{who}: CLOSE {found.seq}, expected number {want.seq}")
