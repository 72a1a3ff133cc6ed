"""A secure sum in the log: one plan, one survivor set, signed by the server and by members.

The frames are those of secure aggregation: header (218) || body || signature, the header's announce
being the digest of the plan. SURVIVORS (step 5) carries two sets as bits, in the order of the
members' ids; CONFIRM (step 6) begins with SHA-256 of what its sender was told.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from qoejax.wire import cbor, envelope, keys, sign
from qoejax.wire.keys import Registry
from qoejax.wire.log.errors import LogError

CONTEXT = b"qoejax/v1/secagg"
_PLAN = b"qoejax/v1/secagg/plan\0"
_TYPE, _SURVIVORS, _CONFIRM = 7, 5, 6
_FIELDS = ("announce", "run", "round", "server", "base_model", "tree_spec", "suite")


class Sum(NamedTuple):
    """One secure sum: its entry, whose inputs are in it, and how many members confirmed that."""

    entry: int
    survivors: tuple[bytes, ...]
    confirmed: int


def plan_of(data: bytes) -> dict[str, Any]:
    """The fields of a plan that tie it to a round; LogError if it lacks one."""
    fields = cbor.decode(data)
    if not isinstance(fields, dict) or not set(_FIELDS) <= set(fields):
        raise LogError("its plan lacks what ties it to a round")
    return fields


def survivors(members: Sequence[bytes], body: bytes) -> tuple[bytes, ...]:
    """Whose bit is set in the second of two sets; LogError if they are not of these members."""
    half = -(-len(members) // 8)
    bits = format(int.from_bytes(body[half:], "big"), f"0{8 * half}b") if members else ""
    if len(body) != 2 * half or "1" in bits[len(members) :]:
        raise LogError(f"its sets are not of {len(members)} members")
    return tuple(name for name, bit in zip(members, bits, strict=False) if bit == "1")


def verify(
    fields: dict[str, Any], server: bytes, registry: Registry, index: int, verifier: str
) -> tuple[Sum, int]:
    """The sum, and how many signatures were verified.

    Args:
        fields: of the entry.
        server: public key of the server.
        registry: who is enrolled.
        index: of the entry.
        verifier: name of the provider that verifies.

    Raises:
        LogError: a frame is of another plan or step, or not signed by its sender; or a member
            confirmed something else than the server said.
    """
    name = hashlib.sha256(_PLAN + fields["plan"]).digest()
    members, frames = fields["members"], fields["confirmed"]
    _set(members, registry)
    if not all(isinstance(p, list) and list(map(type, p)) == [bytes, bytes] for p in frames):
        raise LogError("its confirmations are not pairs of an id and a frame")
    told = _body(fields["told"], name, _SURVIVORS, server, verifier)
    alive = survivors(members, told)
    if [pair[0] for pair in frames] != sorted({pair[0] for pair in frames} & set(alive)):
        raise LogError("it is confirmed by others than its survivors, or twice by one")
    for sender, frame in frames:
        public = registry.entries[sender].public
        body = _body(frame, name, _CONFIRM, public, verifier)
        if body[:32] != hashlib.sha256(told).digest():
            raise LogError(f"client {sender.hex()} was told of another survivor set")
    return Sum(index, alive, len(frames)), 1 + len(frames)


def _set(members: Sequence[Any], registry: Registry) -> None:
    if not members or not all(isinstance(name, bytes) for name in members):
        raise LogError("it has no members")
    if list(members) != sorted(set(members)) or not set(members) <= set(registry.entries):
        raise LogError("its members are not a set of enrolled clients")


def _body(frame: bytes, name: bytes, step: int, public: bytes, verifier: str) -> bytes:
    header = envelope.unpack(frame)
    scheme = envelope.suite(header.suite, unsafe=True).scheme
    end = len(frame) - sign.SIZES[scheme][1]
    packed, body = frame[: envelope.HEADER_SIZE], frame[envelope.HEADER_SIZE : end]
    found = (header.type, header.seq, header.announce, header.sender, header.payload_len)
    if found != (_TYPE, step, name, keys.key_id(public), len(body)):
        raise LogError(f"a frame that is not step {step} of its plan and sender")
    message = envelope.transcript(packed, b"", hashlib.sha512(body).digest())
    if not sign.verifier(verifier, scheme)(public, message, frame[end:], CONTEXT):
        raise LogError(f"step {step} of {header.sender.hex()} is not signed by it")
    return body
