"""A witness: it remembers the largest checkpoint of each log and cosigns only what continues it.

This is C2SP's tlog-witness without the network (``service`` has that). A witness has its own key
and its own folder; for each log one file holds the last checkpoint that it cosigned, on the disk
before the answer leaves. Signed checkpoints that contradict it are kept as evidence.
"""

import hashlib
import pathlib
from typing import NamedTuple

from qoejax.wire.log import merkle, note, proof, store
from qoejax.wire.log.errors import LogError
from qoejax.wire.log.merkle import EMPTY
from qoejax.wire.log.note import Checkpoint, Cosigner, Note, Verifier

SIZE_TYPE = "text/x.tlog.size"
TEXT_TYPE = "text/plain; charset=utf-8"
_MAX_EVIDENCE = 16


class Witness(NamedTuple):
    """Its key, the logs it knows by origin, and the folder of its memory."""

    cosigner: Cosigner
    logs: dict[str, Verifier]
    folder: pathlib.Path


class Answer(NamedTuple):
    """An HTTP status, body and content type, as tlog-witness prescribes."""

    status: int
    body: str
    kind: str = TEXT_TYPE


def _file(witness: Witness, origin: str) -> pathlib.Path:
    return witness.folder / hashlib.sha256(origin.encode()).hexdigest()


def remembered(witness: Witness, origin: str) -> Note | None:
    """The last checkpoint of a log that the witness cosigned, or None.

    Raises:
        LogError: its memory is damaged: it must not cosign until someone has looked.
    """
    path = _file(witness, origin)
    try:
        found = note.parse(path.read_text())
        intact = note.verify(found, witness.cosigner.verifier, witness.cosigner.provider)
    except FileNotFoundError:
        return None
    except (LogError, ValueError) as error:
        raise LogError(f"{path}: the witness's memory is damaged: {error}") from None
    if intact is None or found.checkpoint.origin != origin:
        raise LogError(f"{path}: not the memory of this witness")
    return found


def add_checkpoint(witness: Witness, body: str, now: int) -> Answer:
    """Answers one request; not to be called twice at once for one witness.

    Args:
        witness: keys and memory.
        body: text of the request.
        now: Unix seconds, for the cosignature.
    """
    try:
        old, path, signed = proof.parse_request(body)
    except LogError as error:
        return Answer(400, f"{error}\n")
    head = signed.checkpoint
    log = witness.logs.get(head.origin)
    if log is None:
        return Answer(404, f"log {head.origin!r} is unknown here\n")
    try:
        time = note.verify(signed, log, witness.cosigner.provider)
    except LogError as error:
        return Answer(403, f"{error}\n")
    if time is None:
        return Answer(403, "no signature by a known key of this log\n")
    if old > head.size:
        return Answer(400, f"old size {old} beyond the checkpoint's {head.size}\n")
    last = remembered(witness, head.origin)
    before = Checkpoint(head.origin, 0, EMPTY) if last is None else last.checkpoint
    if old != before.size:
        if head.size == before.size and head.root != before.root:
            _keep(witness, signed)
        return Answer(409, f"{before.size}\n", SIZE_TYPE)
    if not merkle.verify_consistency(old, head.size, path, before.root, head.root):
        if old < head.size:
            return Answer(422, "the consistency proof does not verify\n")
        _keep(witness, signed)
        return Answer(409, f"{before.size}\n", SIZE_TYPE)
    line = witness.cosigner.line(head, now)
    kept = note.assemble(head, _line_of(signed, log) + line)
    store.write(_file(witness, head.origin), kept.text.encode())
    return Answer(200, line)


def _line_of(signed: Note, log: Verifier) -> str:
    prefix = f"— {log.name} "
    rest = signed.text.rpartition("\n\n")[2].splitlines(keepends=True)
    own = [line for line in rest if line.startswith(prefix)]
    return next(line for line in own if note.unbase64(line[len(prefix) : -1])[:4] == log.key_id)


def _keep(witness: Witness, signed: Note) -> None:
    """Keeps a checkpoint that the log signed against an earlier one: proof of a split view."""
    folder = witness.folder / "evidence"
    folder.mkdir(exist_ok=True)
    name = hashlib.sha256(signed.text.encode()).hexdigest()
    if len(list(folder.iterdir())) < _MAX_EVIDENCE:
        store.write(folder / name, signed.text.encode())


def contradict(first: Note, second: Note, log: Verifier) -> bool:
    """Whether two checkpoints, both signed by ``log``, prove that it showed two histories.

    Only equal sizes prove it by themselves; for others, ask for a consistency proof.

    Raises:
        LogError: one of them is not signed by the log, so it proves nothing.
    """
    for one in (first, second):
        if one.checkpoint.origin != log.name or note.verify(one, log) is None:
            raise LogError(f"a checkpoint of size {one.checkpoint.size} is not by {log.name}")
    a, b = first.checkpoint, second.checkpoint
    return a.size == b.size and a.root != b.root
