"""Session mode: one signed key agreement (HELLO), then updates under a ratchet, 234 bytes each.

    chain key  = Export("qoejax/v1/session") of the HELLO
    message i  : key = HMAC-SHA256(chain key, 1), chain key <- HMAC-SHA256(chain key, 2)
    UPDATE     = header (218, flag SESSION) || AEAD(key, nonce = seq, aad = header, payload) (+16)

Every sealing takes a number and a key of its own, accepted or not, so no key meets two messages;
the receiver steps over at most ``MAX_SKIP`` numbers. An update's tag convinces the server only:
either end could have made it. What binds the sender is its next HELLO, which signs the Merkle root
of all that was accepted in the session before.
"""

import hashlib
import hmac
from typing import NamedTuple

from cryptography.exceptions import InvalidTag

from qoejax.wire import envelope, kem
from qoejax.wire.clock import Clock
from qoejax.wire.envelope import HEADER_SIZE, Header, Opened, Sealed
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.log.merkle import Tree, leaf_hash
from qoejax.wire.secret import Secret
from qoejax.wire.suites import Suite

ROUNDS, SECONDS = 64, 24 * 3600
"""A session ends after this many rounds (unless the announcement says fewer) or seconds."""
MAX_SKIP = 64
"""Message numbers that may be missing before one that is accepted."""
STATEMENT_SIZE = 36
"""Payload of a HELLO: u32 updates accepted in the session before, and their Merkle root [32]."""


class Session(NamedTuple):
    """One end of a session; both hold the same.

    Attributes:
        chain_key: makes the key of message ``seq`` and the next chain key.
        seq: number of the next message.
        round: number of the round in which it began.
        since: Unix seconds at which it began.
        accepted: transcript hashes [64] of the updates accepted in it, in order.
    """

    chain_key: Secret
    seq: int
    round: int
    since: int
    accepted: tuple[bytes, ...] = ()


def begin(export: Secret, hello: Header, now: int) -> Session:
    """The session that an accepted HELLO begins; ``export`` is its ``Exports.session``."""
    return Session(export, hello.seq + 1, hello.round, now)


def over(session: Session | None, rounds: int, number: int, now: int) -> bool:
    """Whether round ``number`` needs a new HELLO; ``rounds`` is the announcement's cap."""
    if session is None:
        return True
    return number - session.round >= rounds or not 0 <= now - session.since < SECONDS


def take(session: Session) -> tuple[Secret, Session]:
    """The key [32] of message ``session.seq``, and the session after it."""
    old = session.chain_key.expose()
    key, chain = (Secret(hmac.digest(old, one, "sha256")) for one in (b"\1", b"\2"))
    return key, session._replace(chain_key=chain, seq=session.seq + 1)


def key_at(session: Session, seq: int) -> tuple[Secret, Session]:
    """The key of message ``seq`` and the session after it; REPLAY if it is behind or too far."""
    if not 0 <= seq - session.seq <= MAX_SKIP:
        raise EnvelopeError(Code.REPLAY, f"message {seq}, expected number {session.seq}")
    key, session = take(session)
    while session.seq <= seq:
        key, session = take(session)
    return key, session


def accept(session: Session, transcript: bytes) -> Session:
    """The session with one more accepted update."""
    return session._replace(accepted=(*session.accepted, transcript))


def statement(closing: Session | None) -> bytes:
    """What a HELLO says of the session before [STATEMENT_SIZE]; of none if there was none."""
    accepted = () if closing is None else closing.accepted
    return len(accepted).to_bytes(4, "big") + Tree(map(leaf_hash, accepted)).root()


def size(chosen: Suite, payload_len: int) -> int:
    """Exact length of an UPDATE in a session."""
    return HEADER_SIZE + payload_len + chosen.tag_size


def seal(header: Header, payload: bytes, key: Secret, *, clock: Clock | None = None) -> Sealed:
    """Encrypts one payload under its message key, which must not be used again."""
    clock = Clock() if clock is None else clock
    chosen = _checked(header)
    if header.payload_len != len(payload):
        raise EnvelopeError(
            Code.SIZE, f"payload of {len(payload)} bytes, header says {header.payload_len}"
        )
    packed = envelope.pack(header)
    with clock("hash"):
        name = envelope.transcript(packed, b"", hashlib.sha512(payload).digest())
    with clock("aead"):
        cipher = kem.AEADS[chosen.aead_id](key.expose())
        data = packed + cipher.encrypt(_nonce(header.seq), payload, packed)
    return Sealed(data, name)


def open(data: bytes, key: Secret, *, clock: Clock | None = None) -> Opened:
    """Decrypts with the message key of ``header.seq``; SIZE, FORMAT, SUITE or DECRYPT."""
    clock = Clock() if clock is None else clock
    header = envelope.unpack(data)
    chosen = _checked(header)
    if len(data) != size(chosen, header.payload_len):
        raise EnvelopeError(
            Code.SIZE, f"{len(data)} bytes, expected {size(chosen, header.payload_len)}"
        )
    packed = data[:HEADER_SIZE]
    try:
        with clock("aead"):
            cipher = kem.AEADS[chosen.aead_id](key.expose())
            payload = cipher.decrypt(_nonce(header.seq), data[HEADER_SIZE:], packed)
    except InvalidTag:
        raise EnvelopeError(Code.DECRYPT, "the envelope does not open") from None
    with clock("hash"):
        whole, digest = hashlib.sha256(data).digest(), hashlib.sha512(payload).digest()
        name = envelope.transcript(packed, b"", digest)
    return Opened(whole, header, payload, name, packed, b"", digest, b"")


def _checked(header: Header) -> Suite:
    chosen = envelope.suite(header.suite, unsafe=True)
    if header.type != envelope.UPDATE or header.flags != envelope.SESSION:
        raise EnvelopeError(Code.FORMAT, f"type {header.type}, expected UPDATE in a session")
    if not chosen.sealed:
        raise EnvelopeError(Code.SUITE, "the plaintext suite has no sessions")
    return chosen


def _nonce(seq: int) -> bytes:
    return seq.to_bytes(12, "big")
