"""REVOKE: a signed notice that a key is no longer to be trusted.

    REVOKE = header (218, type 8) || signature || subject id (16) || new epoch (u32)

The issuer is the enrolment authority, the server, or the subject itself. Notices of one issuer
form a chain by ``seq`` and ``prev``, so none can be dropped or moved unnoticed; they are not bound
to a round, and the header's fields that have no meaning here are zero.
"""

import hashlib
from typing import NamedTuple

from qoejax.wire import envelope, keys, sign
from qoejax.wire.client import Chain, advance
from qoejax.wire.envelope import HEADER_SIZE, Header
from qoejax.wire.errors import Code, EnvelopeError

CONTEXT = b"qoejax/v1/revoke"
PAYLOAD_SIZE = keys.ID_SIZE + 4


class Notice(NamedTuple):
    """Who is revoked, the epoch from which a new key of theirs counts, and what proves it."""

    subject: bytes
    epoch: int
    issuer: bytes
    transcript: bytes


def seal(
    issuer: keys.Identity, run: bytes, suite: int, chain: Chain, subject: bytes, epoch: int
) -> tuple[bytes, Chain]:
    """The notice, and the issuer's chain after it."""
    if envelope.suite(suite, unsafe=True).scheme != issuer.scheme:
        raise EnvelopeError(Code.SUITE, f"suite {suite:#06x} does not sign with {issuer.scheme}")
    payload = subject + epoch.to_bytes(4, "big")
    packed = envelope.pack(_header(issuer.id, run, suite, chain))
    name = envelope.transcript(packed, b"", hashlib.sha512(payload).digest())
    return packed + issuer.sign(name, CONTEXT) + payload, advance(chain, name)


def _header(issuer: bytes, run: bytes, suite: int, chain: Chain) -> Header:
    none = bytes(32)
    return Header(
        type=envelope.REVOKE, suite=suite, key_epoch=0, run=run, round=0, seq=chain.seq,
        sender=issuer, recipient=bytes(16), base_model=none, tree_spec=none, announce=none,
        prev=chain.prev, n_samples=0, payload_len=PAYLOAD_SIZE,
    )  # fmt: skip


def read(
    data: bytes,
    issuer_key: bytes,
    run: bytes,
    suite: int,
    chain: Chain,
    *,
    verifier: str = "pqcrypto",
) -> tuple[Notice, Chain]:
    """A notice that was verified, and the issuer's chain after it.

    Args:
        data: the bytes received.
        issuer_key: public key of one who may revoke.
        run: id of the run.
        suite: the run's suite.
        chain: where the issuer's notices stand.
        verifier: name of the provider that verifies.

    Raises:
        EnvelopeError: SIZE, FORMAT, VERSION, SUITE, ROUND, SENDER, REPLAY or SIGNATURE.
    """
    scheme = envelope.suite(suite, unsafe=True).scheme
    end = HEADER_SIZE + sign.SIZES[scheme][1]
    if len(data) != end + PAYLOAD_SIZE:
        raise EnvelopeError(Code.SIZE, f"{len(data)} bytes, expected {end + PAYLOAD_SIZE}")
    header = envelope.unpack(data)
    _check(header, keys.key_id(issuer_key), run, suite, chain)
    signature, payload = data[HEADER_SIZE:end], data[end:]
    name = envelope.transcript(data[:HEADER_SIZE], b"", hashlib.sha512(payload).digest())
    if not sign.verifier(verifier, scheme)(issuer_key, name, signature, CONTEXT):
        raise EnvelopeError(Code.SIGNATURE, "the notice's signature does not verify")
    subject, epoch = payload[: keys.ID_SIZE], int.from_bytes(payload[keys.ID_SIZE :], "big")
    return Notice(subject, epoch, header.sender, name), advance(chain, name)


def _check(header: Header, issuer: bytes, run: bytes, suite: int, chain: Chain) -> None:
    want = _header(issuer, run, suite, chain)
    codes = {"type": Code.FORMAT, "suite": Code.SUITE, "run": Code.ROUND, "sender": Code.SENDER}
    codes |= {"seq": Code.REPLAY, "prev": Code.REPLAY}
    for field in (*codes, *want._fields):
        if getattr(header, field) != getattr(want, field):
            raise EnvelopeError(
                codes.get(field, Code.FORMAT), f"notice: {field} is not the one expected"
            )
