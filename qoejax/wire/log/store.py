"""The log on disk: entries, their hashes, and every checkpoint; survives being killed anywhere.

    entries              u32 length || entry, one after the other
    hashes               leaf hashes, 32 bytes each (level 0 of C2SP's tlog-tiles, in one file)
    checkpoints/SIZE     signed notes, SIZE in ten digits

A checkpoint file is what commits: entries and hashes are on the disk before it is signed, it
appears whole by renaming, and only then is it shown to anyone. Bytes beyond the last checkpoint
were never promised to anybody and are cut off when the log is opened again.
"""

import contextlib
import fcntl
import os
import pathlib
import secrets
from collections.abc import Sequence
from typing import NamedTuple

from qoejax.wire.log import merkle, note
from qoejax.wire.log.errors import LogError
from qoejax.wire.log.merkle import HASH_SIZE, Tree
from qoejax.wire.log.note import Checkpoint, Cosigner, Note

MAX_ENTRY = 1 << 24
_LENGTH = 4


class Contents(NamedTuple):
    """What lies in a log's folder, before anything was checked.

    Attributes:
        entries: every whole frame of ``entries``.
        hashes: every whole hash of ``hashes``.
        notes: text of every checkpoint by its file's name, in order of size.
        torn: bytes of ``entries`` after its last whole frame.
    """

    entries: list[bytes]
    hashes: list[bytes]
    notes: dict[str, str]
    torn: int


def read(folder: pathlib.Path) -> Contents:
    """Reads a log without a key; LogError if there is none."""
    try:
        entries, torn = frames((folder / "entries").read_bytes())
        raw = (folder / "hashes").read_bytes()
        files = sorted((folder / "checkpoints").iterdir())
        notes = {f.name: _text(f) for f in files if not f.name.startswith(".")}
    except OSError as error:
        raise LogError(f"{error.filename}: {error.strerror}, expected a log") from None
    hashes = [raw[at : at + HASH_SIZE] for at in range(0, len(raw) - HASH_SIZE + 1, HASH_SIZE)]
    return Contents(entries, hashes, notes, torn)


def frames(data: bytes) -> tuple[list[bytes], int]:
    """Entries of length-prefixed bytes, and how many bytes follow the last whole one."""
    found, at = [], 0
    while len(data) - at >= _LENGTH:
        end = at + _LENGTH + int.from_bytes(data[at : at + _LENGTH], "big")
        if end > len(data):
            break
        found.append(data[at + _LENGTH : end])
        at = end
    return found, len(data) - at


def _text(path: pathlib.Path) -> str:
    # A damaged byte must reach the parser, which refuses it by name.
    return path.read_bytes().decode("utf-8", "surrogateescape")


class Log:
    """A log that this process appends to; nobody else can meanwhile.

    Args:
        folder: made if missing.
        cosigner: signs checkpoints; its name is the log's origin.

    Raises:
        LogError: another process holds the log, its files contradict its last checkpoint, or that
            is not by ``cosigner``.
    """

    def __init__(self, folder: pathlib.Path, cosigner: Cosigner):
        self._folder, self._cosigner = folder, cosigner
        self._checkpoints = folder / "checkpoints"
        self._checkpoints.mkdir(parents=True, exist_ok=True)
        self._entries = _open(folder / "entries")
        self._hashes = _open(folder / "hashes")
        try:
            fcntl.flock(self._entries, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise LogError(f"{folder}: another process appends to this log") from None
        try:
            self._recover()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases the files; may be called twice."""
        for handle in (self._entries, self._hashes):
            with contextlib.suppress(OSError):
                os.close(handle)
        self._entries = self._hashes = -1

    def _recover(self) -> None:
        """Takes the last checkpoint for true, checks the files against it, cuts what follows."""
        contents = read(self._folder)
        self.note: Note | None = None
        size = 0
        if contents.notes:
            name, text = list(contents.notes.items())[-1]
            self.note = note.parse(text)
            size = self.note.checkpoint.size
            time = note.verify(self.note, self._cosigner.verifier, self._cosigner.provider)
            if time is None or self.note.checkpoint.origin != self._cosigner.verifier.name:
                raise LogError(f"checkpoint {name} is not by the log {self._cosigner!r}")
        if len(contents.entries) < size:
            raise LogError(
                f"{self._folder}: {len(contents.entries)} entries, but the log has signed a "
                f"checkpoint of {size}",
                len(contents.entries),
            )
        self.entries = contents.entries[:size]
        self.tree = Tree([merkle.leaf_hash(entry) for entry in self.entries])
        if self.note is not None and self.tree.root() != self.note.checkpoint.root:
            raise LogError(f"{self._folder}: the entries are not those of the last checkpoint")
        os.ftruncate(self._entries, sum(_LENGTH + len(entry) for entry in self.entries))
        os.ftruncate(self._hashes, 0)  # written anew: they follow from the entries
        _write(self._hashes, b"".join(self.tree.leaf(i) for i in range(size)))
        os.fsync(self._entries)

    def append(self, entries: Sequence[bytes], now: int) -> Note:
        """Adds entries and signs the new checkpoint; both are on the disk when it returns.

        Args:
            entries: at least one, of at most ``MAX_ENTRY`` bytes each.
            now: Unix seconds, never less than at the checkpoint before.
        """
        if not entries or any(len(entry) > MAX_ENTRY for entry in entries):
            raise LogError(f"expected one entry or more, of at most {MAX_ENTRY} bytes")
        hashes = [merkle.leaf_hash(entry) for entry in entries]
        packed = b"".join(len(e).to_bytes(_LENGTH, "big") + e for e in entries)
        try:
            _write(self._entries, packed)
            _write(self._hashes, b"".join(hashes))
        except BaseException:
            self.close()  # what reached the disk is beyond the checkpoint: opening cuts it off
            raise
        for leaf in hashes:
            self.tree.append(leaf)
        self.entries.extend(entries)
        head = Checkpoint(self._cosigner.verifier.name, self.tree.size, self.tree.root())
        return self._commit(note.assemble(head, self._cosigner.line(head, now)))

    def add(self, lines: str) -> Note:
        """Adds witnesses' signature lines, already verified, to the last checkpoint."""
        if self.note is None:
            raise LogError("an empty log has no checkpoint to cosign")
        return self._commit(note.parse(self.note.text + lines))

    def _commit(self, signed: Note) -> Note:
        write(self._checkpoints / f"{signed.checkpoint.size:010d}", signed.text.encode())
        self.note = signed
        return signed


def _open(path: pathlib.Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)


def _write(handle: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(handle, rest) :]
    os.fsync(handle)


def write(path: pathlib.Path, data: bytes, mode: int = 0o644) -> None:
    """Replaces a file by renaming a whole one over it; on the disk when it returns."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            _write(handle, data)
        finally:
            os.close(handle)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
