"""A server, clients and one open round, small and quick (signatures by the faster provider)."""

import functools
from typing import NamedTuple

import numpy as np
import pytest

from qoejax.wire import announce, client, codec, envelope, kem, keys, server
from qoejax.wire.errors import Code, EnvelopeError

RUN = b"run-0123456789ab"
SPEC = codec.tree_spec([("dense/bias", (2,), "f4"), ("dense/kernel", (2, 3), "f4")])
LEAVES = [np.array([1.0, -2.0], np.float32), np.arange(6, dtype=np.float32).reshape(2, 3)]
MODEL = codec.encode(SPEC, LEAVES)
NOW = 1_000_000


class Scene(NamedTuple):
    """Everything both ends know, and the secrets of both."""

    server: keys.Identity
    clients: tuple[keys.Identity, ...]
    round: server.Round
    secret: kem.Secret
    data: bytes


@functools.cache
def identities(provider: str = "openssl", count: int = 4) -> tuple[keys.Identity, ...]:
    return tuple(keys.generate(provider) for _ in range(count))


@functools.cache
def registry(suite: int) -> keys.Registry:
    """Clients 0 to 2; client 3 stays an outsider."""
    return keys.register(
        [keys.enrol(one, (suite,), 0, 2 * NOW) for one in identities()[:3]], verifier="openssl"
    )


@functools.cache
def scene(number: int = 0, run: bytes = RUN, suite: int = envelope.DEFAULT, **caps) -> Scene:
    boss = identities(count=5)[4]
    unsafe = suite == envelope.PLAINTEXT
    public, secret = kem.keygen()
    invited = frozenset(one.id for one in identities()[:3])
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
    data, announced = announce.publish(boss, facts, MODEL)
    rnd = server.Round(announced, SPEC, registry(suite), invited, unsafe)
    return Scene(boss, identities(), rnd, secret, data)


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
    return server.open(at.round, state, data, at.secret, now, verifier="openssl")


def refused(code: Code, at: Scene, data: bytes, state: server.State = EMPTY, now: int = NOW):
    """Checks that the server refuses ``data`` with exactly ``code``; gives the error."""
    with pytest.raises(EnvelopeError) as caught:
        deliver(at, data, state, now)
    assert caught.value.code is code, caught.value
    return caught.value
