r"""Signed notes, checkpoints and ML-DSA-44 cosignatures, as C2SP writes them.

    ORIGIN \n SIZE \n base64(root) \n \n {em dash} NAME base64(key id || timestamp || signature) \n

Signature type 0x06 signs a binary statement about (origin, size, root), not the text, so lines
after the third would be unsigned and are refused here.
"""

import base64
import binascii
import hashlib
from typing import NamedTuple, NoReturn

from qoejax.wire import sign
from qoejax.wire.log.errors import LogError
from qoejax.wire.log.merkle import HASH_SIZE
from qoejax.wire.secret import Secret

SCHEME = "ml-dsa-44"
PUBLIC_SIZE, SIGNATURE_SIZE = sign.SIZES[SCHEME]
CONTEXT = b""
TYPE = 6
"""Signed-note signature type: timestamped ML-DSA-44 (sub)tree cosignature."""
MAX_NOTE = 1 << 17
"""Bytes of a note that are read: 16 signatures of 4 kB and some room."""
_DASH = "— "
_LABEL = b"subtree/v1\n\0"
_MAX_TIME = 2**63 - 1


class Checkpoint(NamedTuple):
    """The head of a log: which log, how many entries, and the root [32] over them."""

    origin: str
    size: int
    root: bytes


class Signature(NamedTuple):
    """One signature line: key name, key id [4], signature bytes."""

    name: str
    key_id: bytes
    value: bytes


class Note(NamedTuple):
    """A checkpoint with its signature lines; ``text`` is all of it."""

    checkpoint: Checkpoint
    signatures: tuple[Signature, ...]
    text: str


class Verifier(NamedTuple):
    """Name and ML-DSA-44 public key [1312] of a log or a witness."""

    name: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        """SHA-256(name || 0x0A || 0x06 || key), first four bytes."""
        return hashlib.sha256(self.name.encode() + b"\n\6" + self.public).digest()[:4]

    @property
    def vkey(self) -> str:
        """The key as one word: ``NAME+ID+BASE64``."""
        return f"{self.name}+{self.key_id.hex()}+{_base64(bytes([TYPE]) + self.public)}"


class Cosigner:
    """A named ML-DSA-44 key that cosigns. Prints no secret and cannot be pickled."""

    __slots__ = ("_sign", "provider", "verifier")

    def __init__(self, name: str, provider: str, public: bytes, secret: Secret):
        _check_name(name)
        self.verifier = Verifier(name, public)
        self.provider = provider
        self._sign = sign.provider(provider, SCHEME).signer(secret)

    def line(self, checkpoint: Checkpoint, now: int) -> str:
        """Signature line over a checkpoint, stating that none larger was seen at ``now``."""
        message = cosigned_message(self.verifier.name, now, checkpoint)
        signature = self._sign(message, CONTEXT)
        value = self.verifier.key_id + now.to_bytes(8, "big") + signature
        return f"{_DASH}{self.verifier.name} {_base64(value)}\n"

    def __repr__(self) -> str:
        return f"<Cosigner {self.verifier.name} {self.verifier.key_id.hex()} of {self.provider}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Cosigner is not pickled: write its key with keyfile.save_pairs")


def origin(public: bytes) -> str:
    """Name of the log that ``public`` signs: unique without a registry of names."""
    return f"qoejax/log/{hashlib.sha256(public).hexdigest()[:16]}"


def cosigned_message(name: str, timestamp: int, checkpoint: Checkpoint) -> bytes:
    """The bytes that a cosignature signs (tlog-cosignature, ``cosigned_message``)."""
    who, origin = name.encode(), checkpoint.origin.encode()
    if not 0 < len(who) < 256 or not 0 < len(origin) < 256 or not 0 <= timestamp <= _MAX_TIME:
        raise LogError("names and origins have 1 to 255 bytes, times fit in 63 bits")
    return b"".join(
        (
            _LABEL,
            bytes([len(who)]), who,
            timestamp.to_bytes(8, "big"),
            bytes([len(origin)]), origin,
            (0).to_bytes(8, "big"),
            checkpoint.size.to_bytes(8, "big"),
            checkpoint.root,
        )
    )  # fmt: skip


def body(checkpoint: Checkpoint) -> str:
    """The three lines that say what is signed."""
    return f"{checkpoint.origin}\n{checkpoint.size}\n{_base64(checkpoint.root)}\n"


def assemble(checkpoint: Checkpoint, lines: str) -> Note:
    """A note from a checkpoint and its signature lines."""
    return parse(f"{body(checkpoint)}\n{lines}")


def parse_body(text: str) -> Checkpoint:
    """The checkpoint of its three lines; LogError if they are not in their only form."""
    lines = text.split("\n")
    if len(lines) != 4 or lines[3]:
        raise LogError(f"a checkpoint has three lines (no extension lines), got {len(lines) - 1}")
    origin, size, root = lines[:3]
    if not origin or len(origin.encode()) > 255:
        raise LogError("the origin of a checkpoint has 1 to 255 bytes")
    found = Checkpoint(origin, decimal(size), unbase64(root))
    if len(found.root) != HASH_SIZE:
        raise LogError(f"the root of a checkpoint has {HASH_SIZE} bytes, got {len(found.root)}")
    return found


def parse(text: str) -> Note:
    """A signed checkpoint; LogError unless every byte is where the format wants it."""
    if len(text) > MAX_NOTE:
        raise LogError(f"a note of {len(text)} characters, expected at most {MAX_NOTE}")
    if any(ord(c) < 32 and c != "\n" for c in text):
        raise LogError("a note holds no control characters but newlines")
    front, blank, rest = text.rpartition("\n\n")
    if not blank or not rest.endswith("\n"):
        raise LogError("a note is text, an empty line and signature lines")
    signatures = tuple(_signature(line) for line in rest[:-1].split("\n"))
    return Note(parse_body(front + "\n"), signatures, text)


def _signature(line: str) -> Signature:
    words = line.removeprefix(_DASH).split(" ")
    if not line.startswith(_DASH) or len(words) != 2:
        raise LogError(f"not a signature line: {line[:40]!r}")
    _check_name(words[0])
    value = unbase64(words[1])
    if len(value) < 5:
        raise LogError(f"signature line of {words[0]!r}: too short")
    return Signature(words[0], value[:4], value[4:])


def verify(note: Note, verifier: Verifier, provider: str = "openssl") -> int | None:
    """Time of the verifier's signature on a note, or None if it did not sign.

    Raises:
        LogError: a line claims to be the verifier's and is not (signed-note: reject the note), or
            signs twice.
    """
    own = [s for s in note.signatures if (s.name, s.key_id) == (verifier.name, verifier.key_id)]
    if not own:
        return None
    value = own[0].value
    if len(own) > 1:
        raise LogError(f"{verifier.name} signed a checkpoint of size {note.checkpoint.size} twice")
    timestamp, signature = int.from_bytes(value[:8], "big"), value[8:]
    good = len(signature) == SIGNATURE_SIZE and timestamp <= _MAX_TIME
    if good:
        message = cosigned_message(verifier.name, timestamp, note.checkpoint)
        check = sign.provider(provider, SCHEME).verify
        good = check(verifier.public, message, signature, CONTEXT)
    if not good:
        raise LogError(
            f"the signature of {verifier.name} on the checkpoint of size "
            f"{note.checkpoint.size} does not verify"
        )
    return timestamp


def parse_vkey(text: str) -> Verifier:
    """The verifier of a vkey; LogError says what is wrong with it."""
    name, plus, rest = text.partition("+")
    given, second, encoded = rest.partition("+")
    if not plus or not second:
        raise LogError(f"a vkey is NAME+ID+KEY, got {text[:40]!r}")
    _check_name(name)
    key = unbase64(encoded)
    if key[:1] != bytes([TYPE]) or len(key) != 1 + PUBLIC_SIZE:
        raise LogError(f"vkey of {name!r}: expected an ML-DSA-44 cosigner key (type 0x06)")
    found = Verifier(name, key[1:])
    if given != found.key_id.hex():
        raise LogError(f"vkey of {name!r}: id {given!r}, expected {found.key_id.hex()!r}")
    return found


def _check_name(name: str) -> None:
    if not name or "+" in name or any(c.isspace() for c in name) or len(name.encode()) > 255:
        raise LogError(f"key name {name[:40]!r}: expected 1 to 255 bytes, no spaces and no plus")


def decimal(text: str) -> int:
    """A number without sign or leading zeros, below 2**63."""
    if not (text.isascii() and text.isdigit()) or (text[0] == "0" and text != "0"):
        raise LogError(f"{text[:40]!r} is not a plain decimal number")
    if len(text) > 19 or int(text) > _MAX_TIME:
        raise LogError(f"{text[:40]!r} is too large")
    return int(text)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def unbase64(text: str) -> bytes:
    """Bytes of standard base64, in its only form: a changed spare bit is refused."""
    try:
        found = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise LogError(f"not base64: {text[:40]!r}") from None
    if _base64(found) != text:
        raise LogError(f"base64 not in its only form: {text[:40]!r}")
    return found
