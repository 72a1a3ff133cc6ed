"""Bodies of the frames, and the small derivations that both ends share.

Fixed-size records in a fixed order, so there is nothing to parse: a body has exactly the length
that its count says, or is refused.
"""

import functools
import hashlib
import hmac
import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.keys import ID_SIZE
from qoejax.wire.secagg import shamir
from qoejax.wire.secret import Secret

DIGEST_SIZE = 32
COMMIT_SIZE = 16
"""Second preimages matter, not collisions: a sender that finds two shares for one commitment only
spoils its own secret, which any sender can."""
TAG_SIZE = 16
BOX_SIZE = 2 * shamir.SHARE_SIZE + 16
BLIND, WRAP = 0, 1
"""Kinds of a secret: b, opened for survivors, and K, opened for those that left."""

_LABEL = b"qoejax/v1/secagg/"
Bits = bytes
"""One bit for every member of the directory, in its order, most significant first."""


class Directory(NamedTuple):
    """All who joined, in order of id, with the digests [32] of their KEM keys."""

    names: tuple[bytes, ...]
    keys: dict[bytes, bytes]


def directory(keys: Mapping[bytes, bytes]) -> Directory:
    """The directory of KEM public keys by id."""
    names = tuple(sorted(keys))
    return Directory(names, {name: key_digest(keys[name]) for name in names})


@functools.lru_cache(maxsize=256)
def key_digest(public: bytes) -> bytes:
    """SHA-256 [32] of a KEM public key."""
    return hashlib.sha256(public).digest()


def seed(name: bytes, found: Directory) -> bytes:
    """Seed [32] of the graph: nobody knows it before the last honest key is there."""
    content = b"".join(one + found.keys[one] for one in found.names)  # fixed widths
    return hashlib.sha256(_LABEL + b"graph\0" + name + content).digest()


def extract(shared: Secret, bound: bytes) -> Secret:
    """What both ends of an edge keep of a KEM's secret: HKDF-SHA256 (RFC 5869, without salt)."""
    return derive(Secret(hmac.digest(bytes(32), shared.expose(), "sha256")), b"edge", bound)


def derive(secret: Secret, purpose: bytes, bound: bytes) -> Secret:
    """One block [32] of HKDF-Expand (RFC 5869, 2.3), from what ``extract`` gave (3.3)."""
    info = _LABEL + purpose + b"\0" + bound
    return Secret(hmac.digest(secret.expose(), info + b"\x01", "sha256"))


def commit(name: bytes, owner: bytes, holder: bytes, value: Secret) -> bytes:
    """Commitment [16] to a share, or with holder = owner and a 32-byte value, to the secret."""
    parts = (_LABEL, b"commit\0", name, owner, holder, value.expose())
    return hashlib.sha256(b"".join(parts)).digest()[:COMMIT_SIZE]


def commit_pair(
    name: bytes, owner: bytes, holder: bytes, pair: tuple[Secret, Secret]
) -> tuple[bytes, bytes]:
    """Commitments to the shares of b and K that one holder gets."""
    first, second = pair
    return commit(name, owner, holder, first), commit(name, owner, holder, second)


def sign(me: bytes, peer: bytes) -> int:
    """+1 at one end of an edge, -1 at the other."""
    return 1 if me < peer else -1


def bits(members: Iterable[bytes], found: Directory) -> Bits:
    """The set as bits."""
    members = set(members)
    text = "".join("1" if name in members else "0" for name in found.names)
    size = -(-len(text) // 8)
    return int(text.ljust(8 * size, "0"), 2).to_bytes(size, "big")


def chosen(which: Bits, found: Directory) -> set[bytes]:
    """The members whose bits are set; SIZE unless there is a bit for each and no other."""
    size = -(-len(found.names) // 8)
    text = format(int.from_bytes(which, "big"), f"0{8 * size}b")
    if len(which) != size or "1" in text[len(found.names) :]:
        raise EnvelopeError(Code.SIZE, f"a set of {len(found.names)} members has {size} bytes")
    return {name for name, bit in zip(found.names, text, strict=False) if bit == "1"}


def pack_sets(members: Bits, survivors: Bits) -> bytes:
    """Body of SURVIVORS: who shared secrets, and whose input arrived."""
    return members + survivors


def unpack_sets(body: bytes, found: Directory) -> tuple[Bits, Bits]:
    """Inverse of ``pack_sets``."""
    half = -(-len(found.names) // 8)
    if len(body) != 2 * half:
        raise EnvelopeError(Code.SIZE, f"two sets of {len(body)} bytes, expected {2 * half}")
    return body[:half], body[half:]


def _records(body: bytes, at: int, record: struct.Struct) -> list[tuple]:
    """All of a body from ``at`` on as records; SIZE unless it is a whole number of them."""
    if (len(body) - at) % record.size:
        raise EnvelopeError(Code.SIZE, f"{len(body) - at} bytes are no records of {record.size}")
    return list(record.iter_unpack(body[at:]))


def _by_id(rows: list[tuple]) -> dict[bytes, tuple]:
    """Records by the id in front; FORMAT if one is there twice or out of order."""
    names = [row[0] for row in rows]
    if names != sorted(set(names)):
        raise EnvelopeError(Code.FORMAT, "ids are repeated or out of order")
    return {row[0]: row[1:] for row in rows}


_CIPHERTEXT = struct.Struct(f">{ID_SIZE}s{DIGEST_SIZE}s")


def pack_ciphertexts(graph_seed: bytes, sent: Mapping[bytes, bytes]) -> bytes:
    """Body of CIPHERTEXTS: the graph's seed and, for each recipient, SHA-256 of its ciphertext."""
    rows = [_CIPHERTEXT.pack(peer, hashlib.sha256(sent[peer]).digest()) for peer in sorted(sent)]
    return graph_seed + b"".join(rows)


def unpack_ciphertexts(graph_seed: bytes, body: bytes) -> dict[bytes, bytes]:
    """Digests by recipient; SPEC if the sender saw another directory."""
    if body[:DIGEST_SIZE] != graph_seed:
        raise EnvelopeError(Code.SPEC, "the sender was given another directory of members")
    return {k: v[0] for k, v in _by_id(_records(body, DIGEST_SIZE, _CIPHERTEXT)).items()}


class Box(NamedTuple):
    """Both shares of one holder, sealed to it, and what the owner committed to."""

    sealed: bytes
    commits: tuple[bytes, bytes]


class Shares(NamedTuple):
    """Body of SHARES: commitments to b and K and to the owner's own shares, boxes, sealed seeds.

    The seeds are those of the boxes' holders, in order of id.
    """

    secrets: tuple[bytes, bytes]
    own: tuple[bytes, bytes]
    boxes: dict[bytes, Box]
    seeds: bytes


_FRONT = struct.Struct(f">{COMMIT_SIZE}s{COMMIT_SIZE}s{COMMIT_SIZE}s{COMMIT_SIZE}sH")
_BOX = struct.Struct(f">{ID_SIZE}s{BOX_SIZE}s{COMMIT_SIZE}s{COMMIT_SIZE}s")
RECORD_SIZE = _BOX.size
SEED_SIZE = 32


def pack_shares(shares: Shares) -> bytes:
    """The body's bytes."""
    rows = [
        _BOX.pack(holder, box.sealed, *box.commits) for holder, box in sorted(shares.boxes.items())
    ]
    front = _FRONT.pack(*shares.secrets, *shares.own, len(rows))
    return b"".join((front, *rows, shares.seeds))


def unpack_shares(body: bytes) -> Shares:
    """Inverse of ``pack_shares``."""
    if len(body) < _FRONT.size:
        raise EnvelopeError(Code.SIZE, f"{len(body)} bytes hold no shares")
    first, second, own_first, own_second, count = _FRONT.unpack_from(body)
    end = _FRONT.size + count * _BOX.size
    if len(body) != end + count * SEED_SIZE + 16:
        raise EnvelopeError(Code.SIZE, f"{len(body)} bytes are no shares of {count} holders")
    rows = _by_id(_records(body[:end], _FRONT.size, _BOX))
    boxes = {holder: Box(sealed, (a, b)) for holder, (sealed, a, b) in rows.items()}
    return Shares((first, second), (own_first, own_second), boxes, body[end:])


_TAG = struct.Struct(f">{ID_SIZE}s{TAG_SIZE}s")


def pack_tags(told: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    """Body of CONFIRM: digest of the survivor set, and a tag for each neighbour."""
    return told + b"".join(_TAG.pack(peer, tag) for peer, tag in sorted(tags.items()))


def unpack_tags(body: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """Inverse of ``pack_tags``."""
    rows = _by_id(_records(body, DIGEST_SIZE, _TAG))
    return body[:DIGEST_SIZE], {peer: row[0] for peer, row in rows.items()}


_RELEASED = struct.Struct(f">{ID_SIZE}sB{shamir.SHARE_SIZE}s")


def pack_released(released: Mapping[bytes, tuple[int, Secret]]) -> bytes:
    """Body of UNMASK: for each owner the kind of one secret, and a share of it."""
    rows = [
        _RELEASED.pack(owner, kind, one.expose()) for owner, (kind, one) in sorted(released.items())
    ]
    return b"".join(rows)


def unpack_released(body: bytes) -> dict[bytes, tuple[int, bytes]]:
    """Inverse of ``pack_released``; FORMAT if an owner is there twice, so b and K never are."""
    return {o: (r[0], r[1]) for o, r in _by_id(_records(body, 0, _RELEASED)).items()}
