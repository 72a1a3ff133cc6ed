"""A model for those in a round: who can read it, and what an altered byte does."""

import pytest

from qoejax.wire import announce, broadcast, client, codec, envelope, server, session
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.secret import Secret
from tests.wire import helpers
from tests.wire.helpers import EMPTY, MODEL, MODEL_KEY, RUN, deliver, refused


def told(at):
    return announce.read(at.data, at.server.public, RUN, verifier="openssl")


def test_only_the_model_key_reveals_the_model():
    at = helpers.scene(confidential=True)
    assert MODEL not in at.data
    found = told(at)
    assert found.sealed
    assert found == at.round.announced
    assert announce.reveal(found, MODEL_KEY) == found._replace(model=MODEL, sealed=False)
    with pytest.raises(EnvelopeError) as caught:
        announce.reveal(found, Secret(bytes(32)))
    assert caught.value.code is Code.DECRYPT


def test_a_key_for_another_model_does_not_pass():
    """AES-GCM does not commit to its key, so the digest in the signed body has to."""
    found = told(helpers.scene(confidential=True))
    other = broadcast.seal_model(MODEL_KEY, found.digest, bytes(len(MODEL)))
    with pytest.raises(EnvelopeError) as caught:
        announce.reveal(found._replace(model=other), MODEL_KEY)
    assert caught.value.code is Code.SPEC


def test_every_byte_of_a_confidential_announcement_counts():
    data = helpers.scene(confidential=True).data
    for at in [*range(218), *range(218, len(data) - 48, 61), *range(len(data) - 48, len(data))]:
        bad = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(EnvelopeError):
            announce.read(bad, helpers.scene().server.public, RUN, verifier="openssl")


def test_a_client_gets_the_key_after_its_hello_in_48_bytes():
    at = helpers.scene(confidential=True)
    one, found = at.clients[0], told(at)
    header = client.hello_header(found, one.id, 0, client.Chain())
    key = found.announce.round_key
    sealed = envelope.seal_update(header, session.statement(None), key, one.sign)
    state, leaves = deliver(at, sealed.envelope)
    assert leaves == []
    assert state.sessions == {}  # this run has no sessions, only a reply key
    granted = broadcast.grant(state.replies[one.id], found.digest, MODEL_KEY)
    assert len(granted) == 48
    assert broadcast.accept(sealed.exports.reply, found.digest, granted) == MODEL_KEY
    # The update comes next in the chain, and its own export is the reply key from then on.
    chain = client.Chain(1, sealed.transcript[:32])
    update = helpers.seal(at, chain=chain)
    state, leaves = deliver(at, update.envelope, state)
    assert leaves
    assert state.replies[one.id] == update.exports.reply != sealed.exports.reply


def test_grants_are_for_one_client_and_one_announcement():
    reply, digest = Secret(b"r" * 32), b"d" * 32
    granted = broadcast.grant(reply, digest, MODEL_KEY)
    cases = [
        (Secret(b"s" * 32), digest, granted, Code.DECRYPT),
        (reply, b"e" * 32, granted, Code.DECRYPT),
        (reply, digest, granted[:-1], Code.SIZE),
        (reply, digest, granted + b"\0", Code.SIZE),
    ]
    cases += [
        (reply, digest, granted[:i] + bytes([granted[i] ^ 1]) + granted[i + 1 :], Code.DECRYPT)
        for i in range(48)
    ]
    for with_reply, of, data, code in cases:
        with pytest.raises(EnvelopeError) as caught:
            broadcast.accept(with_reply, of, data)
        assert caught.value.code is code


def test_an_open_run_takes_no_hello():
    at = helpers.scene()
    one = at.clients[0]
    header = client.hello_header(at.round.announced, one.id, 0, client.Chain())
    key = at.round.announced.announce.round_key
    sealed = envelope.seal_update(header, session.statement(None), key, one.sign)
    refused(Code.SIZE, at, sealed.envelope)


def test_the_plaintext_suite_has_no_hello():
    at = helpers.scene(suite=envelope.PLAINTEXT)
    header = client.hello_header(at.round.announced, at.clients[0].id, 0, client.Chain())
    with pytest.raises(EnvelopeError, match="SUITE"):
        envelope.seal_update(header, session.statement(None), b"", bytes, unsafe=True)


def test_digests_of_confidential_and_open_announcements_differ():
    secret, plain = helpers.scene(confidential=True), helpers.scene()
    assert secret.round.announced.digest != plain.round.announced.digest
    assert codec.model_digest(MODEL) == secret.round.announced.announce.base_model
    assert server.open_round(EMPTY) == EMPTY
