"""Identities that sign, and the registry of those whom a server accepts.

An identity is a key pair of one signature scheme, ML-DSA-65 by default; its id is SHA-256 of the
public key, first 16 bytes. An entry of the registry carries a proof of possession: a signature
over the entry itself, so nobody enrols a key that they cannot use.
"""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple, NoReturn

from qoejax.wire import cbor, sign, suites
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.secret import Secret

ID_SIZE = 16
FOREVER = 2**64 - 1
ENROL_CONTEXT = b"qoejax/v1/enrol"


def key_id(public: bytes) -> bytes:
    """Id [16] of a public key."""
    return hashlib.sha256(public).digest()[:ID_SIZE]


class Identity:
    """A key pair that can sign. Prints no secret and cannot be pickled.

    Attributes:
        provider: name of the implementation that holds the secret key.
        public: public key.
        secret: secret key, in the provider's own form.
        scheme: of ``sign.SCHEMES``.
        id: id [16] of the public key.
    """

    __slots__ = ("_sign", "id", "provider", "public", "scheme", "secret")

    def __init__(self, provider: str, public: bytes, secret: Secret, scheme: str = sign.DEFAULT):
        self.provider = provider
        self.public = public
        self.secret = secret
        self.scheme = scheme
        self.id = key_id(public)
        self._sign = sign.provider(provider, scheme).signer(secret)

    def sign(self, message: bytes, context: bytes) -> bytes:
        """Signature; SIGN_EXHAUSTED or RNG when the signer cannot."""
        return self._sign(message, context)

    def __repr__(self) -> str:
        return f"<Identity {self.id.hex()} of {self.provider}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an Identity is not pickled: write it with keyfile.save")


def generate(provider: str, scheme: str = sign.DEFAULT) -> Identity:
    """A fresh identity."""
    public, secret = sign.provider(provider, scheme).generate()
    return Identity(provider, public, secret, scheme)


class Entry(NamedTuple):
    """One enrolled identity: key, suites, validity [from, to) in Unix seconds, epoch, proof."""

    public: bytes
    suites: tuple[int, ...]
    valid_from: int
    valid_to: int
    epoch: int
    proof: bytes

    @property
    def id(self) -> bytes:
        """Id [16] of the key."""
        return key_id(self.public)


class Registry(NamedTuple):
    """Enrolled identities by id, and the ids that were revoked."""

    entries: dict[bytes, Entry]
    revoked: frozenset[bytes]


def _statement(entry: Entry) -> dict[str, cbor.Value]:
    return {
        "epoch": entry.epoch,
        "from": entry.valid_from,
        "id": entry.id,
        "key": entry.public,
        "suites": sorted(entry.suites),
        "to": entry.valid_to,
    }


def enrol(
    identity: Identity,
    suite_ids: tuple[int, ...],
    valid_from: int = 0,
    valid_to: int = FOREVER,
    epoch: int = 0,
) -> Entry:
    """An entry with its proof of possession; SUITE unless the suites sign with such a key."""
    if suites.scheme_of(suite_ids) != identity.scheme:
        raise EnvelopeError(Code.SUITE, f"a {identity.scheme} key does not sign for these suites")
    entry = Entry(identity.public, suite_ids, valid_from, valid_to, epoch, b"")
    return entry._replace(proof=identity.sign(cbor.encode(_statement(entry)), ENROL_CONTEXT))


def register(entries: Iterable[Entry], verifier: str = "pqcrypto") -> Registry:
    """A registry of entries whose proofs hold; SIGNATURE or SENDER names the one that fails."""
    found: dict[bytes, Entry] = {}
    for entry in entries:
        message = cbor.encode(_statement(entry))
        verify = sign.verifier(verifier, suites.scheme_of(entry.suites))
        if not verify(entry.public, message, entry.proof, ENROL_CONTEXT):
            raise EnvelopeError(
                Code.SIGNATURE, f"client {entry.id.hex()}: proof of possession does not verify"
            )
        if entry.id in found:
            raise EnvelopeError(Code.SENDER, f"client {entry.id.hex()} is enrolled twice")
        found[entry.id] = entry
    return Registry(found, frozenset())


def revoke(registry: Registry, identity: bytes) -> Registry:
    """The registry with one id revoked for good; SENDER if it never was enrolled."""
    if identity not in registry.entries:
        raise EnvelopeError(Code.SENDER, f"client {identity.hex()} is not enrolled")
    return registry._replace(revoked=registry.revoked | {identity})


def lookup(registry: Registry, sender: bytes, epoch: int, suite: int, now: int) -> Entry:
    """The entry of a sender that may send now; SENDER or REVOKED says why it may not."""
    entry = registry.entries.get(sender)
    if entry is None:
        raise EnvelopeError(Code.SENDER, f"client {sender.hex()} is not enrolled")
    if sender in registry.revoked:
        raise EnvelopeError(Code.REVOKED, f"client {sender.hex()} was revoked")
    if entry.epoch != epoch:
        raise EnvelopeError(
            Code.SENDER, f"client {sender.hex()}: key epoch {epoch}, enrolled for {entry.epoch}"
        )
    if not entry.valid_from <= now < entry.valid_to:
        raise EnvelopeError(Code.SENDER, f"client {sender.hex()}: enrolment not valid now")
    if suite not in entry.suites:
        raise EnvelopeError(
            Code.SENDER, f"client {sender.hex()}: not enrolled for suite {suite:#06x}"
        )
    return entry


def registry_digest(registry: Registry) -> bytes:
    """SHA-256 [32] over statements and revocations, in order of id; proofs are left out.

    Signing is randomised: with proofs, enrolling the same keys again would look like a change.
    """
    content = [
        [_statement(registry.entries[name]) for name in sorted(registry.entries)],
        sorted(registry.revoked),
    ]
    return hashlib.sha256(b"qoejax/v1/registry\0" + cbor.encode(content)).digest()


def clients_digest(ids: Iterable[bytes]) -> bytes:
    """SHA-256 [32] over the sorted ids of those invited to a round."""
    return hashlib.sha256(b"qoejax/v1/clients\0" + cbor.encode(sorted(ids))).digest()
