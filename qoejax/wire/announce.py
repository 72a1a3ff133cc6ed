"""ANNOUNCE: the server's signed opening of a round, which every UPDATE then names by digest.

ANNOUNCE = header (218) || u32 length || body (deterministic CBOR map) || signature || model

The model is in the clear, or encrypted to those who took part (``broadcast``; flag CONFIDENTIAL).
"""

import hashlib
import math
from typing import NamedTuple

from qoejax.wire import broadcast, cbor, codec, envelope, kem, sign
from qoejax.wire.clock import Clock
from qoejax.wire.envelope import Header
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.keys import Identity, key_id
from qoejax.wire.manifest import Manifest
from qoejax.wire.secret import Secret

CONTEXT = b"qoejax/v1/announce"
ZERO = bytes(32)
_NOBODY = bytes(16)


class Caps(NamedTuple):
    """What a server accepts from one client in one round.

    Attributes:
        norm: largest L2 norm of a payload; infinity for none.
        samples: largest ``n_samples``, so a client cannot weigh itself without limit.
        updates: updates a round.
        session: rounds that a session may last before its key is agreed anew; 0 for a run without
            sessions, where every update is signed and has a key of its own.
    """

    norm: float = math.inf
    samples: int = 2**32 - 1
    updates: int = 1
    session: int = 0


class Announce(NamedTuple):
    """The signed facts of a round.

    Attributes:
        run: id [16] of the run.
        round: number of the round, from 0.
        suite: the one suite of the run.
        previous: digest [32] of the announcement before, zeros at first.
        base_model: ``codec.model_digest`` [32] of the model that follows.
        tree_spec: ``codec.spec_digest`` [32] of an update.
        round_key: KEM public key, fresh each round; empty in the plaintext suite.
        registry: ``keys.registry_digest`` [32].
        clients: ``keys.clients_digest`` [32] of those invited.
        deadline: Unix seconds after which updates are refused; 0 for none.
        caps: limits on an update.
        log: checkpoint of the transparency log, empty without one.
    """

    run: bytes
    round: int
    suite: int
    previous: bytes
    base_model: bytes
    tree_spec: bytes
    round_key: bytes
    registry: bytes
    clients: bytes
    deadline: int
    caps: Caps
    log: bytes


class Announced(NamedTuple):
    """An announcement that was verified, its digest [32], who sent it, and the model with it.

    While ``sealed``, ``model`` is a ciphertext: ``reveal`` decrypts it.
    """

    announce: Announce
    digest: bytes
    server: bytes
    model: bytes
    sealed: bool = False


_SIZES = {
    "run": 16,
    "previous": 32,
    "base_model": 32,
    "tree_spec": 32,
    "registry": 32,
    "clients": 32,
}
_NUMBERS = ("round", "suite", "deadline")


def _header(announce: Announce, server: bytes, payload_len: int, flags: int = 0) -> bytes:
    return envelope.pack(
        Header(
            type=envelope.ANNOUNCE,
            suite=announce.suite,
            key_epoch=0,
            run=announce.run,
            round=announce.round,
            seq=0,
            sender=server,
            recipient=_NOBODY,
            base_model=announce.base_model,
            tree_spec=announce.tree_spec,
            announce=ZERO,
            prev=announce.previous,
            n_samples=0,
            payload_len=payload_len,
            flags=flags,
        )
    )


def _digest(header: bytes, body: bytes) -> bytes:
    return hashlib.sha256(b"qoejax/v1/announce\0" + header + body).digest()


def publish(
    identity: Identity, announce: Announce, model: bytes, key: Secret | None = None
) -> tuple[bytes, Announced]:
    """The bytes to send to every client, and what they mean; ``key`` [32] encrypts the model."""
    if announce.base_model != codec.model_digest(model):
        raise EnvelopeError(Code.SPEC, "base_model is not the digest of the model")
    _check(announce)
    body = cbor.encode(announce._asdict() | {"caps": announce.caps._asdict()})
    extra, flags = (0, 0) if key is None else (broadcast.TAG_SIZE, envelope.CONFIDENTIAL)
    header = _header(announce, identity.id, len(model) + extra, flags)
    digest = _digest(header, body)
    sent = model if key is None else broadcast.seal_model(key, digest, model)
    name = envelope.transcript(header, body, hashlib.sha512(sent).digest())
    signature = identity.sign(name, CONTEXT)
    data = b"".join((header, len(body).to_bytes(4, "big"), body, signature, sent))
    return data, Announced(announce, digest, identity.id, sent, key is not None)


def read(
    data: bytes,
    server_key: bytes,
    run: bytes,
    last: tuple[int, bytes] = (-1, ZERO),
    *,
    agreed: Manifest | None = None,
    verifier: str = "pqcrypto",
    unsafe: bool = False,
    clock: Clock | None = None,
) -> Announced:
    """Verifies an announcement as a client does, before it trains.

    Args:
        data: the bytes received.
        server_key: public key of the server, pinned at enrolment.
        run: id of the run that the client takes part in.
        last: number and digest of the announcement that the client saw before.
        agreed: the run's signed manifest; without one a client takes this announcement's word.
        verifier: name of the provider that verifies.
        unsafe: allow the plaintext and classical suites.
        clock: collects CPU seconds of hash and verify.

    Raises:
        EnvelopeError: SIZE, FORMAT, VERSION, SUITE, SENDER, SIGNATURE, ROUND (another run, an old
            round, or the next one but not linked to ``last``), SPEC (not the announced model) or
            POLICY (not as agreed).
    """
    clock = Clock() if clock is None else clock
    header, packed, body, signature, model = _split(data, unsafe)
    scheme = envelope.SUITES[header.suite].scheme
    if agreed is not None and header.suite != agreed.suite:
        raise EnvelopeError(
            Code.SUITE, f"suite {header.suite:#06x}, this run uses {agreed.suite:#06x} and no other"
        )
    if header.sender != key_id(server_key):
        raise EnvelopeError(Code.SENDER, f"announced by {header.sender.hex()}, not by the server")
    with clock("hash"):
        name = envelope.transcript(packed, body, hashlib.sha512(model).digest())
    with clock("verify"):
        good = sign.verifier(verifier, scheme)(server_key, name, signature, CONTEXT)
    if not good:
        raise EnvelopeError(Code.SIGNATURE, "the announcement's signature does not verify")
    announce = _parse(body)
    if packed != _header(announce, header.sender, len(model), header.flags):
        raise EnvelopeError(Code.FORMAT, "header and body of the announcement differ")
    # A client that missed rounds cannot check the link, only that it moves on.
    broken = announce.round == last[0] + 1 and announce.previous != last[1]
    if announce.run != run or announce.round <= last[0] or broken:
        raise EnvelopeError(
            Code.ROUND, f"round {announce.round} does not follow round {last[0]} of this run"
        )
    if agreed is not None:
        _as_agreed(agreed, announce, bool(header.flags))
    told = Announced(announce, _digest(packed, body), header.sender, model, bool(header.flags))
    if not told.sealed:
        with clock("hash"):
            check_model(announce, model)
    return told


def _as_agreed(agreed: Manifest, announce: Announce, confidential: bool) -> None:
    """POLICY or SPEC where a round is not run as the manifest says."""
    found = (announce.caps.session, confidential)
    if found != (agreed.session, agreed.confidential):
        raise EnvelopeError(
            Code.POLICY,
            f"announced with sessions of {found[0]} rounds and confidential {found[1]}, agreed "
            f"were {agreed.session} and {agreed.confidential}",
        )
    if announce.tree_spec != agreed.tree_spec:
        raise EnvelopeError(Code.SPEC, "announced with another layout than the run's")


def check_model(announce: Announce, model: bytes) -> None:
    """SPEC unless the model is the one announced."""
    if codec.model_digest(model) != announce.base_model:
        raise EnvelopeError(Code.SPEC, "the model is not the one announced")


def reveal(announced: Announced, key: Secret) -> Announced:
    """The announcement with its model decrypted; DECRYPT, or SPEC if it is not the announced one.

    AES-GCM does not commit to its key; the signed digest of the model does.
    """
    model = broadcast.open_model(key, announced.digest, announced.model)
    check_model(announced.announce, model)
    return announced._replace(model=model, sealed=False)


def _split(data: bytes, unsafe: bool) -> tuple[Header, bytes, bytes, bytes, bytes]:
    """Header, its bytes, body, signature, model."""
    header = envelope.unpack(data)
    if header.type != envelope.ANNOUNCE:
        raise EnvelopeError(Code.FORMAT, f"type {header.type}, expected ANNOUNCE")
    scheme = envelope.suite(header.suite, unsafe).scheme
    start = envelope.HEADER_SIZE + 4
    size = int.from_bytes(data[envelope.HEADER_SIZE : start], "big")
    end = start + size + sign.SIZES[scheme][1]
    if len(data) < start or len(data) != end + header.payload_len:
        raise EnvelopeError(Code.SIZE, f"{len(data)} bytes, expected {end + header.payload_len}")
    body, signature = data[start : start + size], data[start + size : end]
    return header, data[: envelope.HEADER_SIZE], body, signature, data[end:]


def _parse(body: bytes) -> Announce:
    fields = cbor.decode(body)
    if not isinstance(fields, dict) or set(fields) != set(Announce._fields):
        raise EnvelopeError(Code.FORMAT, "the announcement's fields are not those of version 1")
    caps = fields.pop("caps")
    if not isinstance(caps, dict) or set(caps) != set(Caps._fields):
        raise EnvelopeError(Code.FORMAT, "the announcement's caps are not those of version 1")
    announce = Announce(**fields, caps=Caps(**caps))
    _check(announce)
    return announce


def _check(announce: Announce) -> None:
    """Types and sizes of every field; FORMAT names the one that is wrong."""
    for field, size in _SIZES.items():
        value = getattr(announce, field)
        if not isinstance(value, bytes) or len(value) != size:
            raise EnvelopeError(Code.FORMAT, f"announcement: {field} needs {size} bytes")
    numbers = {field: getattr(announce, field) for field in _NUMBERS}
    numbers |= {f: getattr(announce.caps, f) for f in ("samples", "updates", "session")}
    for field, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**64:
            raise EnvelopeError(Code.FORMAT, f"announcement: {field} needs an unsigned integer")
    if not isinstance(announce.caps.norm, float) or not announce.caps.norm > 0:
        raise EnvelopeError(Code.FORMAT, "announcement: caps.norm needs a positive number")
    chosen = envelope.suite(announce.suite, unsafe=True)
    size = kem.public_size(chosen.kem) if chosen.sealed else 0
    if not isinstance(announce.round_key, bytes) or len(announce.round_key) != size:
        raise EnvelopeError(Code.FORMAT, f"announcement: round_key needs {size} bytes")
    if not isinstance(announce.log, bytes):
        raise EnvelopeError(Code.FORMAT, "announcement: log needs bytes")


def proves(
    front: bytes, model_digest: bytes, server_key: bytes, verifier: str = "pqcrypto"
) -> tuple[Announce, bytes]:
    """Facts and digest [32] of an announcement that ``server_key`` signed, without the model.

    Args:
        front: all bytes of the announcement before the model.
        model_digest: SHA-512 [64] of the model as sent.
        server_key: public key of the server.
        verifier: name of the ML-DSA implementation.

    Raises:
        EnvelopeError: SIZE, FORMAT, VERSION, SENDER or SIGNATURE.
    """
    header = envelope.unpack(front)
    packed, start = front[: envelope.HEADER_SIZE], envelope.HEADER_SIZE + 4
    end = start + int.from_bytes(front[envelope.HEADER_SIZE : start], "big")
    scheme = envelope.suite(header.suite, unsafe=True).scheme
    if len(front) != end + sign.SIZES[scheme][1] or len(front) < start:
        raise EnvelopeError(Code.SIZE, f"{len(front)} bytes are no announcement without its model")
    if header.sender != key_id(server_key):
        raise EnvelopeError(Code.SENDER, f"announced by {header.sender.hex()}, not by the server")
    body = front[start:end]
    name = envelope.transcript(packed, body, model_digest)
    if not sign.verifier(verifier, scheme)(server_key, name, front[end:], CONTEXT):
        raise EnvelopeError(Code.SIGNATURE, "the announcement's signature does not verify")
    announce = _parse(body)
    if packed != _header(announce, header.sender, header.payload_len, header.flags):
        raise EnvelopeError(Code.FORMAT, "header and body of the announcement differ")
    return announce, _digest(packed, body)
