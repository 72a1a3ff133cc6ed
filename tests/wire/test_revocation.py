"""REVOKE: who says so, in which order, and that every byte counts."""

import pytest

from qoejax.wire import client, keys, revocation, suites
from qoejax.wire.client import Chain
from qoejax.wire.errors import Code, EnvelopeError
from tests.wire import helpers
from tests.wire.helpers import RUN, deliver, refused, seal


def notice(at, chain=None, suite=1, issuer=None, run=RUN):
    return revocation.seal(issuer or at.server, run, suite, chain or Chain(), at.clients[0].id, 2)


def read(at, data, chain=None, key=None, suite=1, run=RUN, verifier="openssl"):
    key = at.server.public if key is None else key
    return revocation.read(data, key, run, suite, chain or Chain(), verifier=verifier)


def bad(code, at, data, **more):
    with pytest.raises(EnvelopeError) as caught:
        read(at, data, **more)
    assert caught.value.code is code, caught.value


@pytest.mark.parametrize("number", suites.SUITES)
def test_a_notice_is_read_and_takes_effect(number):
    at = helpers.scene(suite=number)
    data, chain = notice(at, suite=number)
    found, after = read(at, data, suite=number, verifier=helpers.signer_of(number))
    assert (found.subject, found.epoch, found.issuer) == (at.clients[0].id, 2, at.server.id)
    assert after == chain == Chain(1, found.transcript[:32])
    revoked = keys.revoke(at.round.registry, found.subject)
    late = at._replace(round=at.round._replace(registry=revoked))
    refused(Code.REVOKED, late, seal(at).envelope)
    assert deliver(late, seal(at, who=1).envelope)[1]


def test_every_byte_and_length_counts():
    at = helpers.scene()
    data, _ = notice(at)
    for i in range(len(data)):
        with pytest.raises(EnvelopeError):
            read(at, data[:i] + bytes([data[i] ^ 1 << i % 8]) + data[i + 1 :])
    for n in range(0, len(data), 13):
        bad(Code.SIZE, at, data[:n])
    bad(Code.SIZE, at, data + b"\0")


def test_notices_of_one_issuer_form_a_chain():
    at = helpers.scene()
    first, chain = notice(at)
    second, _ = notice(at, chain)
    bad(Code.REPLAY, at, second)
    _, after = read(at, first)
    assert read(at, second, after)[1].seq == 2
    bad(Code.REPLAY, at, first, chain=after)
    fork, _ = notice(at, Chain(1, b"\7" * 32))
    bad(Code.REPLAY, at, fork, chain=after)


def test_others_runs_suites_and_issuers_are_refused():
    at = helpers.scene()
    bad(Code.ROUND, at, notice(at, run=b"y" * 16)[0])
    bad(Code.SUITE, at, notice(at, suite=2)[0])
    bad(Code.SENDER, at, notice(at, issuer=at.clients[1])[0])
    itself, _ = notice(at, issuer=at.clients[0])
    assert read(at, itself, key=at.clients[0].public)[0].subject == at.clients[0].id
    bad(Code.FORMAT, at, at.data[: len(notice(at)[0])])
    with pytest.raises(EnvelopeError, match="does not sign with"):
        notice(at, suite=3)


def test_nobody_else_can_issue():
    at = helpers.scene()
    data, _ = notice(at)
    forged, _ = revocation.seal(at.clients[1], RUN, 1, Chain(), at.clients[0].id, 2)
    swapped = forged[:36] + at.server.id + forged[52:]
    bad(Code.SENDER, at, swapped)
    start = 218
    mixed = data[:start] + forged[start : start + 3309] + data[start + 3309 :]
    bad(Code.SIGNATURE, at, mixed)
    # An update's signature is none of a notice: the contexts differ.
    assert client.advance(Chain(), b"x" * 64).seq == 1
