"""Texts that carry proofs: C2SP tlog-proof (a receipt), and the request to a witness."""

import base64
from typing import NamedTuple

from qoejax.wire.log import merkle, note, policy
from qoejax.wire.log.errors import LogError
from qoejax.wire.log.note import Note
from qoejax.wire.log.policy import Policy, Verdict

HEADER = "c2sp.org/tlog-proof@v1"
MAX_LINES = 63


class Receipt(NamedTuple):
    """That an entry is in a log: its number, its path, the signed checkpoint, and the entry.

    ``entry`` travels as the format's extra data, unauthenticated until ``verify`` has hashed it.
    """

    index: int
    path: tuple[bytes, ...]
    note: Note
    entry: bytes


def render(receipt: Receipt) -> str:
    """The text of a ``.tlog-proof`` file."""
    lines = [HEADER, f"extra {_base64(receipt.entry)}", f"index {receipt.index}"]
    lines += [_base64(part) for part in receipt.path]
    return "\n".join([*lines, "", receipt.note.text])


def parse(text: str) -> Receipt:
    """The receipt of a ``.tlog-proof`` file; LogError if it is none."""
    front, blank, rest = text.partition("\n\n")
    lines = front.split("\n")
    if not blank or lines[0] != HEADER:
        raise LogError(f"a receipt begins with {HEADER!r}")
    if len(lines) < 3 or not lines[1].startswith("extra ") or not lines[2].startswith("index "):
        raise LogError("a receipt has a line 'extra ENTRY' and a line 'index NUMBER'")
    index = note.decimal(lines[2].removeprefix("index "))
    entry = note.unbase64(lines[1].removeprefix("extra "))
    return Receipt(index, _hashes(lines[3:]), note.parse(rest), entry)


def verify(receipt: Receipt, trusted: Policy) -> Verdict:
    """Checks a receipt against a policy, without the log.

    Raises:
        LogError: the checkpoint is not signed by a known log or lacks a quorum, or the entry is
            not in it.
    """
    verdict = policy.check(trusted, receipt.note)
    head = receipt.note.checkpoint
    if not verdict.quorum:
        raise LogError(
            f"checkpoint of size {head.size}: cosigned by {sorted(verdict.witnesses)}, which is "
            f"not the quorum {trusted.quorum!r}"
        )
    leaf = merkle.leaf_hash(receipt.entry)
    if not merkle.verify_inclusion(leaf, receipt.index, head.size, receipt.path, head.root):
        raise LogError(
            f"entry {receipt.index} is not in the tree of size {head.size}", receipt.index
        )
    return verdict


def request(old: int, path: tuple[bytes, ...], signed: Note) -> str:
    """Body of a witness's ``add-checkpoint``: old size, consistency proof, checkpoint."""
    lines = [f"old {old}", *map(_base64, path)]
    return "\n".join([*lines, "", signed.text])


def parse_request(text: str) -> tuple[int, tuple[bytes, ...], Note]:
    """Old size, proof and checkpoint of a request; LogError if it is malformed."""
    front, blank, rest = text.partition("\n\n")
    first, *lines = front.split("\n")
    if not blank or not first.startswith("old "):
        raise LogError("expected 'old SIZE', proof lines, an empty line and a checkpoint")
    return note.decimal(first.removeprefix("old ")), _hashes(lines), note.parse(rest)


def _hashes(lines: list[str]) -> tuple[bytes, ...]:
    if len(lines) > MAX_LINES:
        raise LogError(f"a proof has at most {MAX_LINES} hashes, got {len(lines)}")
    found = tuple(note.unbase64(line) for line in lines)
    if any(len(part) != merkle.HASH_SIZE for part in found):
        raise LogError(f"every hash of a proof has {merkle.HASH_SIZE} bytes")
    return found


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
