"""Who takes part in a run: the identities of its server and clients, and the registry of them.

A simulated run enrols its own clients. A deployment's clients bring keys that an authority has
enrolled: its signed registry decides who may send, and under which epoch.
"""

import pathlib
from collections.abc import Iterable
from typing import NamedTuple

from qoejax.wire import enrolment, keyfile, keys, suites
from qoejax.wire.enrolment import SignedRegistry
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.keys import Identity, Registry

NOBODY = Registry({}, frozenset())


class Members(NamedTuple):
    """The parties of a run.

    Attributes:
        server: who announces.
        clients: who answers, in order of index.
        registry: all who are enrolled, the clients among them, and all who are revoked.
        signed: the registry as an authority signed it; None where everybody enrolled himself.
    """

    server: Identity
    clients: tuple[Identity, ...]
    registry: Registry
    signed: SignedRegistry | None = None


def simulated(
    clients: int,
    suite: int,
    signer: str,
    folder: pathlib.Path | None = None,
    passphrase: bytes | None = None,
    *,
    plain: bool = False,
    known: Registry = NOBODY,
) -> Members:
    """Identities from key files, or new ones, that enrol themselves.

    Args:
        clients: how many.
        suite: number of the run's suite.
        signer: provider of all keys.
        folder: where key files are kept; None keeps keys in memory only.
        passphrase: encrypts them.
        plain: keep readable files instead.
        known: what a log holds of earlier runs: entries stay, and revocations are for good.

    Raises:
        keyfile.KeyFileError: a key file cannot be used; names it.
    """
    scheme = suites.suite(suite, unsafe=True).scheme

    def get(name: str, count: int) -> tuple[Identity, ...]:
        path = None if folder is None else folder / f"{name}.key"
        return keyfile.obtain(path, signer, count, passphrase, plain=plain, scheme=scheme)

    (server,), found = get("server", 1), get("clients", clients)
    new = [keys.enrol(one, (suite,)) for one in found if one.id not in known.entries]
    entries = known.entries | keys.register(new, verifier=signer).entries
    return Members(server, found, Registry(entries, known.revoked))


def enrolled(
    server: Identity,
    clients: Iterable[Identity],
    suite: int,
    signed: SignedRegistry,
    trusted: bytes,
    *,
    least: int = 0,
    known: Registry = NOBODY,
    verifier: str = "pqcrypto",
) -> Members:
    """Parties whose clients an authority enrolled.

    A revoked client is no error: it takes part no more, and the server refuses what it sends.

    Args:
        server: its identity.
        clients: theirs.
        suite: number of the run's suite.
        signed: the registry.
        trusted: public key [32] of the authority.
        least: serial number that the log knows.
        known: what the log holds; whom the server revoked stays revoked.
        verifier: provider that verifies proofs of possession.

    Raises:
        EnvelopeError: SENDER, SIGNATURE or REPLAY of the registry (``enrolment.check``); SENDER
            for a client that is not in it, or is there twice; SUITE for one enrolled for others.
    """
    registry = enrolment.check(signed, trusted, least, verifier)
    clients = tuple(clients)
    if len({one.id for one in clients}) != len(clients):
        raise EnvelopeError(Code.SENDER, "two clients share one key")
    for one in clients:
        entry = registry.entries.get(one.id)
        if entry is None:
            raise EnvelopeError(Code.SENDER, f"client {one.id.hex()} is not in the registry")
        if suite not in entry.suites:
            names = ", ".join(f"{number:#06x}" for number in sorted(entry.suites))
            raise EnvelopeError(
                Code.SUITE, f"client {one.id.hex()} is enrolled for {names}, not for {suite:#06x}"
            )
    revoked = registry.revoked | (known.revoked & registry.entries.keys())
    return Members(server, clients, registry._replace(revoked=revoked), signed)
