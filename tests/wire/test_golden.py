"""Stored messages of every suite still open, with either provider, to what they held."""

import base64
import json

import pytest

from qoejax.wire import (
    announce,
    broadcast,
    client,
    codec,
    envelope,
    keys,
    manifest,
    revocation,
    server,
    session,
    sign,
    suites,
)
from qoejax.wire.secret import Secret
from tests.golden.wire_regenerate import NOW, PATH, RUN, SPEC, payload

STORED = json.loads(PATH.read_text())


def part(name):
    return {key: base64.b64decode(value) for key, value in STORED[name].items()}


def test_there_is_one_of_every_suite():
    assert set(STORED) == {f"{number:#06x}" for number in suites.SUITES} | {"session"}
    assert PATH.stat().st_size < 200_000


WAYS = [
    (n, v) for n, s in suites.SUITES.items() for v in sign.PROVIDERS if not suites.lacking(s, v)
]


@pytest.mark.parametrize(("number", "verifier"), WAYS)
def test_updates_open(number, verifier):
    stored = part(f"{number:#06x}")
    opened = envelope.open_update(
        stored["update"], Secret(stored["round_secret"]), stored["client_key"],
        verifier=verifier, unsafe=True,
    )  # fmt: skip
    assert opened.payload == payload()
    assert opened.transcript == stored["transcript"]
    assert opened.header.sender == keys.key_id(stored["client_key"])


def round_of(stored):
    told = announce.read(stored["announce"], stored["server_key"], RUN)
    entry = keys.Entry(stored["client_key"], (1,), 0, keys.FOREVER, 0, b"")
    registry = keys.Registry({entry.id: entry}, frozenset())
    assert keys.registry_digest(registry) == told.announce.registry
    return server.Round(told, SPEC, registry, frozenset([entry.id])), entry.id


def test_a_round_of_the_default_suite():
    stored = part("0x0001")
    rnd, who = round_of(stored)
    assert rnd.announced.digest == stored["digest"]
    secret = Secret(stored["round_secret"])
    state, leaves = server.open(rnd, server.State({}, {}), stored["update"], secret, NOW)
    assert codec.encode(SPEC, leaves) == payload()
    assert state.chains[who] == client.Chain(1, stored["transcript"][:32])
    agreed = manifest.read(stored["manifest"], stored["server_key"])
    assert announce.read(stored["announce"], stored["server_key"], RUN, agreed=agreed)
    notice, _ = revocation.read(
        stored["revoke"], stored["server_key"], RUN, suites.DEFAULT, client.Chain()
    )
    assert notice.subject == who


def test_a_session_with_a_confidential_model():
    stored = part("session")
    rnd, who = round_of(stored)
    assert rnd.announced.sealed
    assert rnd.announced.announce.caps.session == session.ROUNDS
    secret = Secret(stored["round_secret"])
    state, _ = server.open(rnd, server.State({}, {}), stored["hello"], secret, NOW)
    digest = rnd.announced.digest
    assert (
        broadcast.grant(state.replies[who], digest, Secret(stored["model_key"]))
        == (stored["grant"])
    )
    key = broadcast.accept(state.replies[who], digest, stored["grant"])
    assert announce.reveal(rnd.announced, key).model == payload()
    state, leaves = server.open(rnd, state, stored["update"], secret, NOW)
    assert codec.encode(SPEC, leaves) == payload()
    assert state.sessions[who].accepted == (stored["transcript"],)
