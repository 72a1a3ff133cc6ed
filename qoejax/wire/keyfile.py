r"""Identities at rest: one file, mode 0600 in a directory of mode 0700, encrypted.

    "QJXKEY1\n" || u32 length || header (deterministic CBOR) || body

The body is the list of secret keys, under AES-256-GCM with a key that scrypt makes from a
passphrase; everything before it is associated data. The header names the provider and holds the
public keys. Protection "plain" leaves the body readable; it exists for simulations, where the
keys protect nothing, and must be asked for by name.
"""

import contextlib
import os
import pathlib
import secrets
import stat
from collections.abc import Sequence
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from qoejax.wire import cbor, sign
from qoejax.wire.errors import EnvelopeError
from qoejax.wire.keys import Identity, generate, key_id
from qoejax.wire.secret import Secret

_MAGIC = b"QJXKEY1\n"
_ENCRYPTED, _PLAIN = "scrypt-aes256gcm", "plain"
_COST = {"n": 1 << 15, "r": 8, "p": 1}
"""scrypt: 32 MiB and about 0.1 s for a guess."""
_MOST = {"n": 1 << 18, "r": 8, "p": 4}
_MAX_FILE = 64 << 20


class KeyFileError(ValueError):
    """A key file is missing, too open, damaged, or the passphrase is wrong; names the file."""


class Pair(NamedTuple):
    """A public key and the secret key that belongs to it, in the provider's own form."""

    public: bytes
    secret: Secret


class Facts(NamedTuple):
    """What a key file says without its passphrase."""

    algorithm: str
    provider: str
    protection: str
    public: tuple[bytes, ...]


def save(
    path: pathlib.Path,
    identities: Sequence[Identity],
    passphrase: bytes | None,
    *,
    plain: bool = False,
) -> None:
    """Writes identities of one provider; never overwrites, never leaves half a file.

    Args:
        path: the file; its directory is made with mode 0700 if it is missing.
        identities: at least one.
        passphrase: encrypts the secret keys.
        plain: store them readable instead; only together with ``passphrase=None``.
    """
    kinds = {(identity.provider, identity.scheme) for identity in identities}
    if len(kinds) != 1:
        names = sorted({name for name, _ in kinds})
        raise KeyFileError(f"{path}: expected identities of one provider and scheme, got {names}")
    ((provider, scheme),) = kinds
    pairs = [Pair(identity.public, identity.secret) for identity in identities]
    save_pairs(path, scheme, provider, pairs, passphrase, plain=plain)


def save_pairs(
    path: pathlib.Path,
    algorithm: str,
    provider: str,
    pairs: Sequence[Pair],
    passphrase: bytes | None,
    *,
    plain: bool = False,
) -> None:
    """Writes key pairs of any algorithm; as ``save``."""
    if (passphrase is None) != plain or passphrase == b"":
        raise KeyFileError(f"{path}: give either a passphrase or plain=True")
    header: dict[str, Any] = {
        "algorithm": algorithm,
        "protection": _PLAIN if plain else _ENCRYPTED,
        "provider": provider,
        "public": [pair.public for pair in pairs],
    }
    body = cbor.encode([pair.secret.expose() for pair in pairs])
    if passphrase is not None:
        header |= {"salt": secrets.token_bytes(16), "nonce": secrets.token_bytes(12), **_COST}
    packed = cbor.encode(header)
    front = _MAGIC + len(packed).to_bytes(4, "big") + packed
    if passphrase is not None:
        body = AESGCM(_derive(header, passphrase)).encrypt(header["nonce"], body, front)
    _write(path, front + body)


def load(path: pathlib.Path, passphrase: bytes | None = None) -> tuple[Identity, ...]:
    """Identities of a file, each checked by a fresh signature; KeyFileError names what is wrong."""
    scheme = inspect(path).algorithm
    provider, pairs = load_pairs(path, scheme, passphrase)
    return tuple(Identity(provider, *pair, scheme) for pair in pairs)


def load_pairs(
    path: pathlib.Path, algorithm: str, passphrase: bytes | None = None
) -> tuple[str, tuple[Pair, ...]]:
    """Provider and key pairs of a file of one algorithm; as ``load``."""
    data = _read(path)
    try:
        header, front, body = _split(data)
        encrypted = header["protection"] == _ENCRYPTED
        if header["algorithm"] != algorithm:
            raise KeyFileError(f"{path}: holds {header['algorithm']} keys, expected {algorithm}")
        if encrypted and passphrase is None:
            raise KeyFileError(f"{path}: encrypted, and no passphrase was given")
        if not encrypted and passphrase is not None:
            raise KeyFileError(f"{path}: not encrypted, though a passphrase was given")
        if passphrase is not None:
            if any(not 0 < header[name] <= most for name, most in _MOST.items()):
                raise KeyFileError(f"{path}: scrypt parameters out of bounds")
            body = AESGCM(_derive(header, passphrase)).decrypt(header["nonce"], body, front)
        found = list(zip(header["public"], cbor.decode(body), strict=True))
        if not all(isinstance(half, bytes) for pair in found for half in pair):
            raise ValueError("keys")  # bytes(n) of an integer would be n zeros
        pairs = tuple(Pair(public, Secret(secret)) for public, secret in found)
        good = [sign.consistent(header["provider"], *pair, algorithm) for pair in pairs]
    except InvalidTag:
        raise KeyFileError(f"{path}: wrong passphrase, or the file was altered") from None
    except KeyFileError:
        raise
    except (EnvelopeError, KeyError, TypeError, ValueError, IndexError, OverflowError):
        # No cause attached: a parser's message could quote key bytes.
        raise KeyFileError(f"{path}: not a key file, or damaged") from None
    if not all(good):
        odd = pairs[good.index(False)]
        raise KeyFileError(f"{path}: secret key does not match {key_id(odd.public).hex()}")
    return header["provider"], pairs


def inspect(path: pathlib.Path) -> Facts:
    """What a key file says in the clear; modes are checked, no secret is read."""
    try:
        header, _, _ = _split(_read(path))
        facts = Facts(
            header["algorithm"], header["provider"], header["protection"], tuple(header["public"])
        )
    except KeyFileError:
        raise
    except (EnvelopeError, KeyError, TypeError, ValueError, IndexError):
        raise KeyFileError(f"{path}: not a key file, or damaged") from None
    if not all(isinstance(public, bytes) for public in facts.public):
        raise KeyFileError(f"{path}: not a key file, or damaged")
    return facts


def obtain(
    path: pathlib.Path | None,
    provider: str,
    count: int,
    passphrase: bytes | None = None,
    *,
    plain: bool = False,
    scheme: str = sign.DEFAULT,
) -> tuple[Identity, ...]:
    """``count`` identities of ``provider``: from ``path`` if it exists, else new and saved there.

    Without a path they live in memory only.
    """
    if path is None or not path.exists():
        found = tuple(generate(provider, scheme) for _ in range(count))
        if path is not None:
            save(path, found, passphrase, plain=plain)
        return found
    found = load(path, passphrase)
    kinds = sorted({identity.provider for identity in found})
    if len(found) != count or kinds != [provider]:
        raise KeyFileError(
            f"{path}: holds {len(found)} keys of {kinds}, expected {count} of {provider!r}"
        )
    if found[0].scheme != scheme:
        raise KeyFileError(f"{path}: holds {found[0].scheme} keys, expected {scheme}")
    return found


def _derive(header: dict[str, Any], passphrase: bytes) -> bytes:
    scrypt = Scrypt(header["salt"], 32, n=header["n"], r=header["r"], p=header["p"])
    return scrypt.derive(passphrase)


def _split(data: bytes) -> tuple[dict[str, Any], bytes, bytes]:
    if not data.startswith(_MAGIC):
        raise ValueError("magic")
    start = len(_MAGIC) + 4
    end = start + int.from_bytes(data[len(_MAGIC) : start], "big")
    header = cbor.decode(data[start:end])
    fields = {"algorithm", "protection", "provider", "public"}
    if header["protection"] == _ENCRYPTED:
        fields |= {"salt", "nonce", *_COST}
    elif header["protection"] != _PLAIN:
        raise ValueError("protection")
    if set(header) != fields or header["algorithm"] not in sign.SCHEMES:
        raise ValueError("fields")
    return header, data[:end], data[end:]


def _private(info: os.stat_result, what: pathlib.Path, want: str) -> None:
    """Refuses what others may read, or what someone else owns."""
    mode = stat.S_IMODE(info.st_mode)
    if mode & 0o077:
        raise KeyFileError(f"{what}: mode {mode:04o}, expected {want} or narrower")
    if info.st_uid != os.geteuid():
        raise KeyFileError(f"{what}: belongs to user {info.st_uid}, not to this process's user")


def _read(path: pathlib.Path) -> bytes:
    try:
        _private(path.parent.stat(), path.parent, "0700")
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from None
    with open(handle, "rb") as file:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode) or info.st_size > _MAX_FILE:
            raise KeyFileError(f"{path}: not a regular file of at most {_MAX_FILE} bytes")
        _private(info, path, "0600")
        return file.read()


def _write(path: pathlib.Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _private(path.parent.stat(), path.parent, "0700")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(temporary, flags, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # A hard link fails where a file exists, unlike a rename.
        os.link(temporary, path)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
