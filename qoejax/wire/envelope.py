"""Header and the signed envelopes, UPDATE and HELLO: what is sealed, in which order it opens.

    header (218) || enc || AEAD(signature || payload) (+16)       sizes: ``suites``

Stateless; who may send what and when is decided in ``server``.
"""

import hashlib
import struct
from collections.abc import Callable
from typing import NamedTuple

from qoejax.wire import kem, sign, suites
from qoejax.wire.clock import Clock
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.secret import Secret
from qoejax.wire.suites import DEFAULT, PLAINTEXT, SUITES, Suite, suite

__all__ = ["DEFAULT", "PLAINTEXT", "SUITES", "Suite", "suite"]

MAGIC = b"QJX1"
VERSION = 1
HELLO, ANNOUNCE, UPDATE, REVOKE, CLOSE = 1, 2, 3, 8, 9
"""Message types used here; 4 to 7 are secure aggregation's (docs/wire.md)."""
SESSION, CONFIDENTIAL = 0x0001, 0x0002
"""Flags: an UPDATE under a session's key; an ANNOUNCE whose model is encrypted."""

UPDATE_CONTEXT, HELLO_CONTEXT = b"qoejax/v1/update", b"qoejax/v1/hello"
CONTEXTS = {UPDATE: UPDATE_CONTEXT, HELLO: HELLO_CONTEXT, CLOSE: b"qoejax/v1/close"}
"""What a client's signature stands for, by type of message."""
_INFO = b"qoejax/v1/hpke\0"
_TRANSCRIPT = b"qoejax/v1/transcript\0"
_FORMAT = struct.Struct(">4sBBHHI16sQI16s16s32s32s32s32sQQ")
HEADER_SIZE = _FORMAT.size


class Header(NamedTuple):
    """The fixed 218 bytes in front of every message; all integers big-endian.

    ``prev`` is the sender's previous transcript hash, first 32 bytes, zeros at first; ``sender``
    and ``recipient`` are key ids. ``flags`` are ``SESSION`` or ``CONFIDENTIAL``.
    """

    type: int
    suite: int
    key_epoch: int
    run: bytes
    round: int
    seq: int
    sender: bytes
    recipient: bytes
    base_model: bytes
    tree_spec: bytes
    announce: bytes
    prev: bytes
    n_samples: int
    payload_len: int
    flags: int = 0


_FLAGS = {ANNOUNCE: CONFIDENTIAL, UPDATE: SESSION}
_WIDTHS = {
    "run": 16,
    "sender": 16,
    "recipient": 16,
    "base_model": 32,
    "tree_spec": 32,
    "announce": 32,
    "prev": 32,
}


def pack(header: Header) -> bytes:
    """The 218 bytes; FORMAT names a field that does not fit."""
    for field, width in _WIDTHS.items():
        if len(getattr(header, field)) != width:
            raise EnvelopeError(Code.FORMAT, f"header field {field} needs {width} bytes")
    try:
        front = (MAGIC, VERSION, header.type, header.suite, header.flags)
        return _FORMAT.pack(*front, *header[2:-1])
    except struct.error as error:
        raise EnvelopeError(Code.FORMAT, f"header field out of range: {error}") from None


def unpack(data: bytes) -> Header:
    """The header in front of ``data``; SIZE, FORMAT or VERSION if there is none."""
    if len(data) < HEADER_SIZE:
        raise EnvelopeError(Code.SIZE, f"{len(data)} bytes hold no header of {HEADER_SIZE}")
    magic, version, kind, number, flags, *rest = _FORMAT.unpack_from(data)
    if magic != MAGIC:
        raise EnvelopeError(Code.FORMAT, f"magic {magic!r}, expected {MAGIC!r}")
    if version != VERSION:
        raise EnvelopeError(Code.VERSION, f"version {version}, expected {VERSION}")
    if flags & ~_FLAGS.get(kind, 0):
        raise EnvelopeError(Code.FORMAT, f"flags {flags:#06x} in a message of type {kind}")
    return Header(kind, number, *rest)._replace(flags=flags)


def update_size(chosen: Suite, payload_len: int) -> int:
    """Exact length of an UPDATE."""
    return HEADER_SIZE + chosen.enc_size + chosen.signature_size + payload_len + chosen.tag_size


def transcript(header: bytes, enc: bytes, payload_digest: bytes) -> bytes:
    """SHA-512 [64] over everything a signature stands for."""
    sizes = (len(header).to_bytes(4, "big"), len(enc).to_bytes(4, "big"))
    parts = (_TRANSCRIPT, sizes[0], header, sizes[1], enc, payload_digest)
    return hashlib.sha512(b"".join(parts)).digest()


class Exports(NamedTuple):
    """Secrets that both ends of an envelope share: for replies, and to begin a session with."""

    reply: Secret
    session: Secret


def _exports(context: kem.Context) -> Exports:
    return Exports(
        kem.export(context, b"qoejax/v1/reply"), kem.export(context, b"qoejax/v1/session")
    )


class Sealed(NamedTuple):
    """An envelope, the transcript hash [64] that its sender continues from, and its exports."""

    envelope: bytes
    transcript: bytes
    exports: Exports | None = None


def _signed(header: Header, unsafe: bool) -> Suite:
    """The suite of a signed message; FORMAT or SUITE if it cannot be one."""
    chosen = suite(header.suite, unsafe)
    if header.type not in (UPDATE, HELLO) or header.flags:
        raise EnvelopeError(
            Code.FORMAT, f"type {header.type}, expected UPDATE ({UPDATE}) or HELLO ({HELLO})"
        )
    if header.type == HELLO and not chosen.sealed:
        raise EnvelopeError(Code.SUITE, "the plaintext suite has no HELLO: nothing to agree on")
    return chosen


def seal_update(
    header: Header,
    payload: bytes,
    round_key: bytes,
    signer: Callable[[bytes, bytes], bytes],
    *,
    unsafe: bool = False,
    clock: Clock | None = None,
    provider: str = "pqcrypto",
) -> Sealed:
    """Signs one payload, or HELLO's statement, and encrypts it to the round's key.

    Args:
        header: with type UPDATE or HELLO and the payload's length.
        payload: encoded leaves.
        round_key: KEM public key of the round's announcement.
        signer: the sender's ``Identity.sign``.
        unsafe: allow the plaintext and classical suites.
        clock: collects CPU seconds of kem, hash, sign and aead.
        provider: which library encapsulates, where it can.
    """
    clock = Clock() if clock is None else clock
    chosen = _signed(header, unsafe)
    if header.payload_len != len(payload):
        raise EnvelopeError(
            Code.SIZE, f"payload of {len(payload)} bytes, header says {header.payload_len}"
        )
    packed = pack(header)
    if not chosen.sealed:
        with clock("hash"):
            name = transcript(packed, b"", hashlib.sha512(payload).digest())
        return Sealed(packed + payload, name)
    with clock("kem"):
        enc, shared = kem.encaps(round_key, chosen.kem, suites.kem_provider(chosen, provider))
        context = _schedule(chosen, shared, packed)
    with clock("hash"):
        name = transcript(packed, enc, hashlib.sha512(payload).digest())
    with clock("sign"):
        signature = signer(name, CONTEXTS[header.type])
    with clock("aead"):
        sealed = kem.aead_seal(context, chosen.aead_id, signature + payload)
        envelope = b"".join((packed, enc, sealed))
    return Sealed(envelope, name, _exports(context))


def _schedule(chosen: Suite, shared: Secret, packed: bytes) -> kem.Context:
    number = kem.HYBRIDS[chosen.kem].id
    return kem.key_schedule(shared, _INFO + packed, number, chosen.aead_id, kdf_id=chosen.kdf_id)


class Opened(NamedTuple):
    """A decrypted message whose signature, or whose session's tag, holds.

    ``header_bytes``, ``enc``, ``digest`` (SHA-512 of the payload) and ``signature`` prove to
    anyone who sent it, without the payload; ``envelope`` is the SHA-256 of all its bytes. In a
    session ``enc`` and ``signature`` are empty and prove nothing.
    """

    envelope: bytes
    header: Header
    payload: bytes
    transcript: bytes
    header_bytes: bytes
    enc: bytes
    digest: bytes
    signature: bytes
    exports: Exports | None = None


def open_update(
    data: bytes,
    secret: Secret,
    sender_key: bytes,
    *,
    verifier: str = "pqcrypto",
    unsafe: bool = False,
    clock: Clock | None = None,
    provider: str = "pqcrypto",
) -> Opened:
    """Decrypts, then verifies; DECRYPT or SIGNATURE.

    Args:
        data: the envelope; its length is checked again, so this is safe on its own.
        secret: the round's KEM secret key.
        sender_key: public key that the registry holds for ``header.sender``.
        verifier: name of the provider that verifies.
        unsafe: allow the plaintext and classical suites.
        clock: collects CPU seconds of kem, aead, hash and verify.
        provider: which library made the round's key.
    """
    clock = Clock() if clock is None else clock
    header = unpack(data)
    chosen = _signed(header, unsafe)
    if len(data) != update_size(chosen, header.payload_len):
        raise EnvelopeError(
            Code.SIZE, f"{len(data)} bytes, expected {update_size(chosen, header.payload_len)}"
        )
    packed, enc = data[:HEADER_SIZE], data[HEADER_SIZE : HEADER_SIZE + chosen.enc_size]
    plain, exports = data[HEADER_SIZE:], None
    if chosen.sealed:
        with clock("kem"):
            shared = kem.decaps(secret, enc, chosen.kem, suites.kem_provider(chosen, provider))
            context = _schedule(chosen, shared, packed)
        with clock("aead"):
            plain = kem.aead_open(context, chosen.aead_id, data[HEADER_SIZE + chosen.enc_size :])
        exports = _exports(context)
    signature, payload = plain[: chosen.signature_size], plain[chosen.signature_size :]
    with clock("hash"):
        whole, digest = hashlib.sha256(data).digest(), hashlib.sha512(payload).digest()
        name = transcript(packed, enc, digest)
    if chosen.sealed:
        with clock("verify"):
            verify = sign.verifier(verifier, chosen.scheme)
            good = verify(sender_key, name, signature, CONTEXTS[header.type])
        if not good:
            raise EnvelopeError(
                Code.SIGNATURE, f"client {header.sender.hex()}: signature does not verify"
            )
    return Opened(whole, header, payload, name, packed, enc, digest, signature, exports)
