"""Who may take part: requests with proof of possession, rotation, and the signed registry.

A device makes a request and never shows its secret key; the authority admits it, or replaces an
older key of the same device, or revokes one, and signs the registry anew under the next serial
number. All encodings are deterministic CBOR.
"""

from typing import Any, NamedTuple

from qoejax.wire import authority, cbor, keys, sign, suites
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.keys import Entry, Identity, Registry
from qoejax.wire.secret import Secret

ROTATE_CONTEXT = b"qoejax/v1/rotate"


class Request(NamedTuple):
    """A device's wish to be enrolled.

    Attributes:
        entry: with its proof of possession.
        replaces: id of the key that it takes over from, empty at first.
        link: the replaced key's signature over the new entry's proof, empty at first.
    """

    entry: Entry
    replaces: bytes = b""
    link: bytes = b""


class SignedRegistry(NamedTuple):
    """A registry as the authority published it; ``serial`` grows by one each time."""

    registry: Registry
    serial: int
    authority: bytes
    signature: bytes


def rotate(
    old: Identity,
    new: Identity,
    epoch: int,
    suite_ids: tuple[int, ...],
    valid_from: int = 0,
    valid_to: int = keys.FOREVER,
) -> Request:
    """A request that moves a device from one key to the next, signed by both.

    ``epoch`` is that of the new key: the replaced one's and one more.
    """
    entry = keys.enrol(new, suite_ids, valid_from, valid_to, epoch)
    return Request(entry, old.id, old.sign(_linked(entry, old.id), ROTATE_CONTEXT))


def _linked(entry: Entry, replaces: bytes) -> bytes:
    return cbor.encode([replaces, entry.id, entry.epoch, entry.proof])


def admit(registry: Registry, request: Request, verifier: str = "pqcrypto") -> Registry:
    """The registry with a request granted.

    Raises:
        EnvelopeError: SIGNATURE (no proof of possession, or no consent of the replaced key),
            SENDER (enrolled already, or replaces nobody enrolled), REVOKED (replaces a revoked
            key) or POLICY (not the next epoch).
    """
    entry = request.entry
    (name,) = keys.register([entry], verifier).entries
    if name in registry.entries:
        raise EnvelopeError(Code.SENDER, f"client {name.hex()} is enrolled already")
    if not request.replaces:
        return registry._replace(entries={**registry.entries, name: entry})
    old = registry.entries.get(request.replaces)
    if old is None:
        raise EnvelopeError(Code.SENDER, f"client {request.replaces.hex()} is not enrolled")
    if old.id in registry.revoked:
        raise EnvelopeError(Code.REVOKED, f"client {old.id.hex()} was revoked and has no successor")
    if entry.epoch != old.epoch + 1:
        raise EnvelopeError(
            Code.POLICY, f"client {name.hex()}: key epoch {entry.epoch}, expected {old.epoch + 1}"
        )
    message = _linked(entry, old.id)
    verify = sign.verifier(verifier, suites.scheme_of(old.suites))
    if not verify(old.public, message, request.link, ROTATE_CONTEXT):
        raise EnvelopeError(
            Code.SIGNATURE, f"client {old.id.hex()} did not consent to being replaced"
        )
    added = registry._replace(entries={**registry.entries, name: entry})
    return keys.revoke(added, old.id)


def publish(registry: Registry, serial: int, public: bytes, secret: Secret) -> SignedRegistry:
    """The registry under the authority's signature."""
    signature = authority.seal(secret, keys.registry_digest(registry), serial)
    return SignedRegistry(registry, serial, public, signature)


def check(
    signed: SignedRegistry, trusted: bytes, least: int = 0, verifier: str = "pqcrypto"
) -> Registry:
    """The registry, if it is the authority's, not older than known, and all proofs hold.

    Args:
        signed: what was read.
        trusted: public key [32] of the authority.
        least: serial number below which it is an old registry shown again.
        verifier: name of the ML-DSA implementation.
    """
    digest = keys.registry_digest(signed.registry)
    if signed.authority != trusted:
        raise EnvelopeError(Code.SENDER, "the registry is signed by another authority")
    if not authority.verify(trusted, digest, signed.serial, signed.signature):
        raise EnvelopeError(Code.SIGNATURE, "the authority's signature does not verify")
    if signed.serial < least:
        raise EnvelopeError(Code.REPLAY, f"registry {signed.serial}, known up to {least}")
    keys.register(signed.registry.entries.values(), verifier)
    return signed.registry


def pack_entry(entry: Entry) -> dict[str, cbor.Value]:
    """An entry as a CBOR map."""
    return entry._asdict() | {"suites": list(entry.suites)}


def unpack_entry(fields: Any) -> Entry:
    """Inverse of ``pack_entry``; FORMAT for anything else."""
    if not isinstance(fields, dict) or set(fields) != set(Entry._fields):
        raise EnvelopeError(Code.FORMAT, "not an entry of a registry")
    entry = Entry(**(fields | {"suites": tuple(_list(fields["suites"]))}))
    numbers = (entry.valid_from, entry.valid_to, entry.epoch, *entry.suites)
    strings = (entry.public, entry.proof)
    if not all(isinstance(n, int) for n in numbers) or not all(
        isinstance(s, bytes) for s in strings
    ):
        raise EnvelopeError(Code.FORMAT, "an entry of a registry has a field of another type")
    return entry


def pack_request(request: Request) -> bytes:
    """A request as bytes."""
    return cbor.encode(request._asdict() | {"entry": pack_entry(request.entry)})


def parse_request(data: bytes) -> Request:
    """Inverse of ``pack_request``; FORMAT for anything else."""
    fields = _map(data, Request._fields, "an enrolment request")
    return Request(unpack_entry(fields["entry"]), fields["replaces"], fields["link"])


def pack_registry(signed: SignedRegistry) -> bytes:
    """A signed registry as bytes."""
    registry = signed.registry
    entries = [pack_entry(registry.entries[name]) for name in sorted(registry.entries)]
    content = {"entries": entries, "revoked": sorted(registry.revoked)}
    return cbor.encode(signed._asdict() | {"registry": content})


def parse_registry(data: bytes) -> SignedRegistry:
    """Inverse of ``pack_registry``, nothing checked; FORMAT for anything else."""
    fields = _map(data, SignedRegistry._fields, "a registry")
    content = fields["registry"]
    if not isinstance(content, dict) or set(content) != {"entries", "revoked"}:
        raise EnvelopeError(Code.FORMAT, "not a registry")
    found = [unpack_entry(entry) for entry in _list(content["entries"])]
    revoked = _list(content["revoked"])
    entries = {entry.id: entry for entry in found}
    if not all(isinstance(name, bytes) for name in revoked):
        raise EnvelopeError(Code.FORMAT, "a registry revokes by id")
    if [one.id for one in found] != sorted(entries) or revoked != sorted(set(revoked)):
        raise EnvelopeError(Code.FORMAT, "a registry with an id twice, or out of order")
    if not set(revoked) <= set(entries):
        raise EnvelopeError(Code.FORMAT, "a registry that revokes somebody who is not enrolled")
    registry = Registry(entries, frozenset(revoked))
    return SignedRegistry(registry, fields["serial"], fields["authority"], fields["signature"])


def _map(data: bytes, names: tuple[str, ...], what: str) -> dict[str, Any]:
    fields = cbor.decode(data)
    if not isinstance(fields, dict) or set(fields) != set(names):
        raise EnvelopeError(Code.FORMAT, f"not {what}")
    for name, value in fields.items():
        want = {"entry": dict, "registry": dict, "serial": int}.get(name, bytes)
        if not isinstance(value, want):
            raise EnvelopeError(Code.FORMAT, f"{what}: {name} is of another type")
    return fields


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise EnvelopeError(Code.FORMAT, "expected an array")
    return value
