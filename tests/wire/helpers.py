"""A server, clients and one open round, small and quick (signatures by the faster provider)."""

import functools
from typing import NamedTuple

import numpy as np
import pytest

from qoejax.wire import announce, authority, client, codec, envelope, kem, keys, server, suites
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.secret import Secret

RUN = b"run-0123456789ab"
SPEC = codec.tree_spec([("dense/bias", (2,), "f4"), ("dense/kernel", (2, 3), "f4")])
LEAVES = [np.array([1.0, -2.0], np.float32), np.arange(6, dtype=np.float32).reshape(2, 3)]
MODEL = codec.encode(SPEC, LEAVES)
NOW = 1_000_000
MODEL_KEY = Secret(bytes(range(32)))


class Scene(NamedTuple):
    """Everything both ends know, and the secrets of both."""

    server: keys.Identity
    clients: tuple[keys.Identity, ...]
    round: server.Round
    secret: kem.Secret
    data: bytes


def identities(
    provider: str = "openssl", count: int = 5, scheme: str = "ml-dsa-65"
) -> tuple[keys.Identity, ...]:
    return _identities(provider, count, scheme)


@functools.cache
def _identities(provider: str, count: int, scheme: str) -> tuple[keys.Identity, ...]:
    return tuple(keys.generate(provider, scheme) for _ in range(count))


def signer_of(suite: int) -> str:
    """The faster provider that has the suite's signature."""
    lacking = suites.lacking(suites.SUITES[suite], "openssl")
    return "pqcrypto" if lacking else "openssl"


QUICK = "slh-dsa-sha2-128f"
"""Signs twenty times faster than the authority's own scheme, which tests of enrolment keep."""


def quick_authority(patch: pytest.MonkeyPatch) -> None:
    """Lets the authority sign with ``QUICK``."""
    patch.setattr(authority, "SCHEME", QUICK)


@functools.cache
def people(suite: int) -> tuple[keys.Identity, ...]:
    """Clients 0 to 3 and the server, of the suite's scheme."""
    return identities(signer_of(suite), 5, suites.SUITES[suite].scheme)


@functools.cache
def registry(suite: int) -> keys.Registry:
    """Clients 0 to 2; client 3 stays an outsider."""
    return keys.register(
        [keys.enrol(one, (suite,), 0, 2 * NOW) for one in people(suite)[:3]],
        verifier=signer_of(suite),
    )


@functools.cache
def scene(
    number: int = 0,
    run: bytes = RUN,
    suite: int = envelope.DEFAULT,
    confidential: bool = False,
    **caps,
) -> Scene:
    chosen = suites.suite(suite, unsafe=True)
    *clients, boss = people(suite)
    public, secret = kem.keygen(chosen.kem) if chosen.sealed else (b"", Secret(b""))
    invited = frozenset(one.id for one in clients[:3])
    facts = announce.Announce(
        run=run,
        round=number,
        suite=suite,
        previous=announce.ZERO,
        base_model=codec.model_digest(MODEL),
        tree_spec=codec.spec_digest(SPEC),
        round_key=public,
        registry=keys.registry_digest(registry(suite)),
        clients=keys.clients_digest(invited),
        deadline=NOW + 60,
        caps=announce.Caps(**caps),
        log=b"",
    )
    key = MODEL_KEY if confidential else None
    data, announced = announce.publish(boss, facts, MODEL, key)
    rnd = server.Round(announced, SPEC, registry(suite), invited, not chosen.safe)
    return Scene(boss, tuple(clients), rnd, secret, data)


EMPTY = server.State({}, {})


def seal(at: Scene, who: int = 0, leaves=None, chain=None, n_samples: int = 5) -> envelope.Sealed:
    return client.seal(
        SPEC,
        LEAVES if leaves is None else leaves,
        at.clients[who],
        at.round.announced,
        n_samples=n_samples,
        chain=chain,
        unsafe=at.round.unsafe,
    )


def reseal(at: Scene, who: int = 0, signer: int | None = None, **changes) -> bytes:
    """A proper envelope around a header with some fields changed, signed by ``signer``."""
    header = client.update_header(
        at.round.announced, at.clients[who].id, 0, client.Chain(), 5, len(MODEL)
    )._replace(**changes)
    sign = at.clients[who if signer is None else signer].sign
    key = at.round.announced.announce.round_key
    return envelope.seal_update(header, MODEL, key, sign, unsafe=at.round.unsafe).envelope


def deliver(at: Scene, data: bytes, state: server.State = EMPTY, now: int = NOW):
    verifier = signer_of(at.round.announced.announce.suite)
    return server.open(at.round, state, data, at.secret, now, verifier=verifier)


def refused(code: Code, at: Scene, data: bytes, state: server.State = EMPTY, now: int = NOW):
    """Checks that the server refuses ``data`` with exactly ``code``; gives the error."""
    with pytest.raises(EnvelopeError) as caught:
        deliver(at, data, state, now)
    assert caught.value.code is code, caught.value
    return caught.value
