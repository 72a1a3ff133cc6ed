"""Header, suites and the UPDATE envelope: what is sealed, and in which order it opens.

    UPDATE = header (218) || enc (1120) || AEAD(signature (3309) || payload) (+16)

Stateless; who may send what and when is decided in ``server``.
"""

import hashlib
import struct
from collections.abc import Callable
from typing import NamedTuple

from qoejax.wire import kem, sign
from qoejax.wire.clock import Clock
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.secret import Secret

MAGIC = b"QJX1"
VERSION = 1
ANNOUNCE, UPDATE = 2, 3
"""Message types of this room; 4 to 7 are ``secagg.plan``'s, 1 and 8 reserved (docs/wire.md)."""

UPDATE_CONTEXT = b"qoejax/v1/update"
_INFO = b"qoejax/v1/hpke\0"
_TRANSCRIPT = b"qoejax/v1/transcript\0"
_FORMAT = struct.Struct(">4sBBHHI16sQI16s16s32s32s32s32sQQ")
HEADER_SIZE = _FORMAT.size


class Suite(NamedTuple):
    """Sizes and algorithm numbers of one suite; ``safe`` is false for plaintext."""

    id: int
    name: str
    aead_id: int
    enc_size: int
    signature_size: int
    tag_size: int
    safe: bool


DEFAULT = 0x0001
PLAINTEXT = 0x01FF
SUITES = {
    suite.id: suite
    for suite in (
        Suite(DEFAULT, "X-Wing/AES-256-GCM/ML-DSA-65", 2, kem.ENC_SIZE, 3309, 16, True),
        Suite(0x0002, "X-Wing/ChaCha20-Poly1305/ML-DSA-65", 3, kem.ENC_SIZE, 3309, 16, True),
        Suite(PLAINTEXT, "plaintext, unsigned", 0, 0, 0, 0, False),
    )
}


def suite(number: int, unsafe: bool = False) -> Suite:
    """The numbered suite; SUITE if unknown, or unsafe and not asked for."""
    found = SUITES.get(number)
    if found is None:
        raise EnvelopeError(Code.SUITE, f"suite {number:#06x} is unknown")
    if not found.safe and not unsafe:
        raise EnvelopeError(Code.SUITE, f"suite {number:#06x} protects nothing: needs unsafe=True")
    return found


class Header(NamedTuple):
    """The fixed 218 bytes in front of every message; all integers big-endian.

    ``prev`` is the sender's previous transcript hash, first 32 bytes, zeros at first; ``sender``
    and ``recipient`` are key ids.
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
        return _FORMAT.pack(MAGIC, VERSION, header.type, header.suite, 0, *header[2:])
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
    if flags != 0:
        raise EnvelopeError(Code.FORMAT, f"flags {flags:#06x}, expected none")
    return Header(kind, number, *rest)


def update_size(chosen: Suite, payload_len: int) -> int:
    """Exact length of an UPDATE."""
    return HEADER_SIZE + chosen.enc_size + chosen.signature_size + payload_len + chosen.tag_size


def transcript(header: bytes, enc: bytes, payload_digest: bytes) -> bytes:
    """SHA-512 [64] over everything a signature stands for."""
    sizes = (len(header).to_bytes(4, "big"), len(enc).to_bytes(4, "big"))
    parts = (_TRANSCRIPT, sizes[0], header, sizes[1], enc, payload_digest)
    return hashlib.sha512(b"".join(parts)).digest()


class Sealed(NamedTuple):
    """An envelope and the transcript hash [64] that its sender continues from."""

    envelope: bytes
    transcript: bytes


def seal_update(
    header: Header,
    payload: bytes,
    round_key: bytes,
    signer: Callable[[bytes, bytes], bytes],
    *,
    unsafe: bool = False,
    clock: Clock | None = None,
) -> Sealed:
    """Signs and encrypts one payload to the round's key.

    Args:
        header: with type UPDATE and the payload's length.
        payload: encoded leaves.
        round_key: KEM public key [1216] of the round's announcement.
        signer: the sender's ``Identity.sign``.
        unsafe: allow the plaintext suite.
        clock: collects CPU seconds of kem, hash, sign and aead.
    """
    clock = Clock() if clock is None else clock
    chosen = suite(header.suite, unsafe)
    if header.type != UPDATE:
        raise EnvelopeError(Code.FORMAT, f"type {header.type}, expected UPDATE ({UPDATE})")
    if header.payload_len != len(payload):
        raise EnvelopeError(
            Code.SIZE, f"payload of {len(payload)} bytes, header says {header.payload_len}"
        )
    packed = pack(header)
    if not chosen.safe:
        with clock("hash"):
            name = transcript(packed, b"", hashlib.sha512(payload).digest())
        return Sealed(packed + payload, name)
    with clock("kem"):
        enc, shared = kem.encaps(round_key)
        context = kem.key_schedule(shared, _INFO + packed, aead_id=chosen.aead_id)
    with clock("hash"):
        name = transcript(packed, enc, hashlib.sha512(payload).digest())
    with clock("sign"):
        signature = signer(name, UPDATE_CONTEXT)
    with clock("aead"):
        sealed = kem.aead_seal(context, chosen.aead_id, signature + payload)
        envelope = b"".join((packed, enc, sealed))
    return Sealed(envelope, name)


class Opened(NamedTuple):
    """A decrypted UPDATE whose signature holds.

    ``header_bytes``, ``enc``, ``digest`` (SHA-512 of the payload) and ``signature`` prove to
    anyone who sent it, without the payload; ``envelope`` is the SHA-256 of all its bytes.
    """

    envelope: bytes
    header: Header
    payload: bytes
    transcript: bytes
    header_bytes: bytes
    enc: bytes
    digest: bytes
    signature: bytes


def open_update(
    data: bytes,
    secret: Secret,
    sender_key: bytes,
    *,
    verifier: str = "pqcrypto",
    unsafe: bool = False,
    clock: Clock | None = None,
) -> Opened:
    """Decrypts, then verifies; DECRYPT or SIGNATURE.

    Args:
        data: the envelope; its length is checked again, so this is safe on its own.
        secret: the round's KEM secret key.
        sender_key: public key [1952] that the registry holds for ``header.sender``.
        verifier: name of the ML-DSA implementation.
        unsafe: allow the plaintext suite.
        clock: collects CPU seconds of kem, aead, hash and verify.
    """
    clock = Clock() if clock is None else clock
    header = unpack(data)
    if header.type != UPDATE:
        raise EnvelopeError(Code.FORMAT, f"type {header.type}, expected UPDATE ({UPDATE})")
    chosen = suite(header.suite, unsafe)
    if len(data) != update_size(chosen, header.payload_len):
        raise EnvelopeError(
            Code.SIZE, f"{len(data)} bytes, expected {update_size(chosen, header.payload_len)}"
        )
    packed, enc = data[:HEADER_SIZE], data[HEADER_SIZE : HEADER_SIZE + chosen.enc_size]
    if chosen.safe:
        with clock("kem"):
            shared = kem.decaps(secret, enc)
            context = kem.key_schedule(shared, _INFO + packed, aead_id=chosen.aead_id)
        with clock("aead"):
            plain = kem.aead_open(context, chosen.aead_id, data[HEADER_SIZE + chosen.enc_size :])
    else:
        plain = data[HEADER_SIZE:]
    signature, payload = plain[: chosen.signature_size], plain[chosen.signature_size :]
    with clock("hash"):
        whole, digest = hashlib.sha256(data).digest(), hashlib.sha512(payload).digest()
        name = transcript(packed, enc, digest)
    if chosen.safe:
        with clock("verify"):
            good = sign.provider(verifier).verify(sender_key, name, signature, UPDATE_CONTEXT)
        if not good:
            raise EnvelopeError(
                Code.SIGNATURE, f"client {header.sender.hex()}: signature does not verify"
            )
    return Opened(whole, header, payload, name, packed, enc, digest, signature)
