"""Keys and enrolment as files: what ``experiments.keys`` does. No JAX."""

import contextlib
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

from qoejax.run import files
from qoejax.run.errors import RunError
from qoejax.wire import authority, enrolment, envelope, keyfile, keys, sign
from qoejax.wire.enrolment import SignedRegistry
from qoejax.wire.errors import EnvelopeError
from qoejax.wire.keyfile import KeyFileError, Pair
from qoejax.wire.log import note
from qoejax.wire.log.errors import LogError
from qoejax.wire.log.note import Verifier

PASSPHRASE = "QOEJAX_PASSPHRASE"
"""Environment variable that encrypts key files; never a flag, which other users could list."""

KINDS = {
    "identity": sign.DEFAULT,
    "cosigner": note.SCHEME,
    "authority": authority.SCHEME,
}
"""What a key is for, and its algorithm: clients and servers, logs and witnesses, the authority."""


@contextlib.contextmanager
def wire_errors() -> Iterator[None]:
    """Refusals of the wire's key files, registries and logs, as the commands' errors."""
    try:
        yield
    except (KeyFileError, EnvelopeError, LogError) as error:
        raise RunError(str(error)) from None


def passphrase(plain: bool) -> bytes | None:
    """The passphrase from the environment; None for readable key files.

    Raises:
      RunError: it is not set.
    """
    if plain:
        return None
    found = os.environ.get(PASSPHRASE, "")
    if not found:
        raise RunError(
            f"the environment variable {PASSPHRASE} is not set: expected the passphrase of the "
            "key file (--plain for readable key files)"
        )
    return found.encode()


def create(
    path: pathlib.Path, kind: str, signer: str, plain: bool, suite: int = envelope.DEFAULT
) -> dict[str, Any]:
    """Makes a key file; says what is public of it. An identity's scheme is that of its suite."""
    if kind not in KINDS:
        raise RunError(f"kind {kind!r}: expected one of {', '.join(KINDS)}")
    if kind != "authority" and signer not in sign.PROVIDERS:
        raise RunError(f"signer {signer!r}: expected one of {', '.join(sign.PROVIDERS)}")
    secret_phrase = passphrase(plain)
    with wire_errors():
        if path.exists():
            raise RunError(f"{path} exists: keys are never overwritten")
        signer = authority.PROVIDER if kind == "authority" else signer
        chosen = envelope.suite(suite).scheme if kind == "identity" else KINDS[kind]
        pair = Pair(*_generator(signer, chosen).generate())
        keyfile.save_pairs(path, chosen, signer, [pair], secret_phrase, plain=plain)
    return inspect(path)


def _generator(signer: str, scheme: str) -> sign.Signature:
    try:
        return sign.provider(signer, scheme)
    except ValueError as error:
        raise RunError(f"signer {signer!r}: {error}") from None


def inspect(path: pathlib.Path) -> dict[str, Any]:
    """What a key file says without its passphrase."""
    with wire_errors():
        facts = keyfile.inspect(path)
    kinds = {algorithm: kind for kind, algorithm in KINDS.items()}
    return {
        "key": str(path),
        "kind": kinds.get(facts.algorithm, "identity"),
        "algorithm": facts.algorithm,
        "provider": facts.provider,
        "protection": facts.protection,
        "ids": [keys.key_id(public).hex() for public in facts.public],
        "public": [public.hex() for public in facts.public] if len(facts.public) == 1 else None,
    }


def vkey(path: pathlib.Path, name: str | None) -> dict[str, Any]:
    """Vkeys of a cosigner, for policy files: as a run's log, and under a name if there is one."""
    with wire_errors():
        facts = keyfile.inspect(path)
        if facts.algorithm != note.SCHEME:
            if name is not None:
                raise RunError(f"{path}: only cosigners have a vkey, this is {facts.algorithm}")
            return {}
        public = facts.public[0]
        named = {} if name is None else {"vkey": Verifier(name, public).vkey}
        return {"log_vkey": Verifier(note.origin(public), public).vkey} | named


def check_key(path: pathlib.Path, plain: bool) -> dict[str, Any]:
    """``inspect``, and proof that the secret keys are there and belong to the public ones."""
    found = inspect(path)
    with wire_errors():
        _, pairs = keyfile.load_pairs(path, found["algorithm"], passphrase(plain))
    return found | {"checked": len(pairs)}


def _identity(path: pathlib.Path, plain: bool) -> keys.Identity:
    found = keyfile.load(path, passphrase(plain))
    if len(found) != 1:
        raise RunError(f"{path}: holds {len(found)} keys, expected one")
    return found[0]


def request(
    path: pathlib.Path,
    output: pathlib.Path,
    valid_to: int,
    plain: bool,
    suite: int = envelope.DEFAULT,
) -> dict[str, Any]:
    """A device's request to be enrolled, for the authority; holds no secret."""
    with wire_errors():
        one = _identity(path, plain)
        entry = keys.enrol(one, (suite,), int(time.time()), valid_to)
        data = enrolment.pack_request(enrolment.Request(entry))
    files.write_bytes(output, data)
    return {"id": one.id.hex(), "request": str(output)}


def rotate(
    old: pathlib.Path,
    new: pathlib.Path,
    output: pathlib.Path,
    registry: pathlib.Path,
    valid_to: int,
    plain: bool,
) -> dict[str, Any]:
    """A request to go on under a new key, signed by the old one too."""
    with wire_errors():
        before, after = _identity(old, plain), _identity(new, plain)
        entry = read_registry(registry).registry.entries.get(before.id)
        if entry is None:
            raise RunError(f"{old}: client {before.id.hex()} is not in {registry}")
        epoch, start = entry.epoch + 1, int(time.time())
        found = enrolment.rotate(before, after, epoch, entry.suites, start, valid_to)
        files.write_bytes(output, enrolment.pack_request(found))
    return {
        "id": after.id.hex(), "replaces": before.id.hex(), "epoch": epoch, "request": str(output)
    }  # fmt: skip


def _authority(path: pathlib.Path, plain: bool) -> Pair:
    _, pairs = keyfile.load_pairs(path, authority.SCHEME, passphrase(plain))
    if len(pairs) != 1:
        raise RunError(f"{path}: holds {len(pairs)} keys, expected the authority's one")
    return pairs[0]


def read_registry(path: pathlib.Path) -> SignedRegistry:
    """A registry file, its signature and proofs not yet checked.

    Raises:
      RunError: it is missing or no registry.
    """
    try:
        return enrolment.parse_registry(path.read_bytes())
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}, expected a registry") from None
    except EnvelopeError as error:
        raise RunError(f"{path}: {error}") from None


def enrolled(registry: str | None, authority: str | None, first_use: bool) -> keys.Registry | None:
    """Those who may take part; None for whoever shows a key first.

    Raises:
      RunError: neither or both were asked for, or the registry is not the authority's.
    """
    if (registry is None) != first_use or (registry is None) != (authority is None):
        raise RunError(
            "expected either --registry=FILE and --authority=KEY, or --trust_on_first_use for a "
            "trial"
        )
    if registry is None or authority is None:
        return None
    try:
        return enrolment.check(read_registry(pathlib.Path(registry)), bytes.fromhex(authority))
    except ValueError as error:
        raise RunError(f"registry {registry}: {error}") from None


def _current(path: pathlib.Path, pair: Pair) -> SignedRegistry:
    """The authority's registry, checked; an empty one before the first enrolment."""
    if not path.exists():
        return SignedRegistry(keys.Registry({}, frozenset()), 0, pair.public, b"")
    found = read_registry(path)
    try:
        enrolment.check(found, pair.public)
    except EnvelopeError as error:
        raise RunError(f"{path}: {error}") from None
    return found


def _publish(path: pathlib.Path, registry: keys.Registry, serial: int, pair: Pair) -> None:
    signed = enrolment.publish(registry, serial, *pair)
    files.write_bytes(path, enrolment.pack_registry(signed))


def enrol(
    authority_key: pathlib.Path, registry: pathlib.Path, requested: pathlib.Path, plain: bool
) -> dict[str, Any]:
    """The authority grants a request and signs the registry under the next serial number."""
    with wire_errors(), files.locked(_lock(registry), f"registry {registry}"):
        pair = _authority(authority_key, plain)
        try:
            wanted = enrolment.parse_request(requested.read_bytes())
        except OSError as error:
            raise RunError(f"{requested}: {error.strerror}, expected a request") from None
        except EnvelopeError as error:
            raise RunError(f"{requested}: {error}") from None
        known = _current(registry, pair)
        grown = enrolment.admit(known.registry, wanted)
        _publish(registry, grown, known.serial + 1, pair)
    return {
        "id": wanted.entry.id.hex(),
        "replaces": wanted.replaces.hex() or None,
        "epoch": wanted.entry.epoch,
        "registry": str(registry),
        "serial": known.serial + 1,
    }


def revoke(
    authority_key: pathlib.Path, registry: pathlib.Path, name: str, plain: bool
) -> dict[str, Any]:
    """The authority refuses a key from now on, for good."""
    try:
        wanted = bytes.fromhex(name)
    except ValueError:
        wanted = b""
    if len(wanted) != keys.ID_SIZE:
        raise RunError(f"id {name!r}: expected {2 * keys.ID_SIZE} hexadecimal digits")
    with wire_errors(), files.locked(_lock(registry), f"registry {registry}"):
        pair = _authority(authority_key, plain)
        known = _current(registry, pair)
        if wanted in known.registry.revoked:
            raise RunError(f"client {name} is revoked already")
        _publish(registry, keys.revoke(known.registry, wanted), known.serial + 1, pair)
    return {"id": name, "registry": str(registry), "serial": known.serial + 1}


def _lock(registry: pathlib.Path) -> pathlib.Path:
    if not registry.parent.is_dir():
        raise RunError(f"{registry.parent} is no folder: expected that of the registry")
    return registry.with_name(f".{registry.name}.lock")


def show(registry: pathlib.Path, trusted: str) -> dict[str, Any]:
    """A registry with all its signatures checked.

    Args:
      registry: the file.
      trusted: the authority's public key in hexadecimal; "" takes the one in the file.
    """
    found = read_registry(registry)
    try:
        key = bytes.fromhex(trusted) or found.authority
    except ValueError:
        raise RunError(f"authority {trusted!r}: expected a public key in hexadecimal") from None
    try:
        content = enrolment.check(found, key)
    except EnvelopeError as error:
        raise RunError(f"{registry}: {error}") from None
    clients = [
        {
            "id": name.hex(),
            "epoch": entry.epoch,
            "from": entry.valid_from,
            "to": None if entry.valid_to == keys.FOREVER else entry.valid_to,
            "revoked": name in content.revoked,
        }
        for name, entry in sorted(content.entries.items())
    ]
    return {
        "registry": str(registry),
        "serial": found.serial,
        "authority": found.authority.hex(),
        "trusted": bool(trusted),
        "digest": keys.registry_digest(content).hex(),
        "clients": clients,
    }
