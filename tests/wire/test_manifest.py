"""What a run fixes once, and that no announcement moves it."""

import pytest

from qoejax.wire import announce, codec, manifest, sign, suites
from qoejax.wire.errors import Code, EnvelopeError
from tests.wire import helpers
from tests.wire.helpers import RUN, SPEC


def facts(at, **changes):
    told = at.round.announced
    found = manifest.Manifest(RUN, told.server, told.announce.suite, codec.spec_digest(SPEC))
    return found._replace(**changes)


def signed(at, **changes):
    return manifest.publish(at.server, facts(at, **changes))


def refused(code, data, key, **more):
    with pytest.raises(EnvelopeError) as caught:
        manifest.read(data, key, **more)
    assert caught.value.code is code, caught.value


@pytest.mark.parametrize("number", suites.SUITES)
def test_what_was_signed_is_what_is_read(number):
    at = helpers.scene(suite=number)
    want = facts(at, session=3, confidential=True)
    data = manifest.publish(at.server, want)
    unsafe = not suites.SUITES[number].safe
    for verifier in sign.PROVIDERS:
        if not suites.lacking(suites.SUITES[number], verifier):
            assert manifest.read(data, at.server.public, verifier=verifier, unsafe=unsafe) == want
    if unsafe:
        refused(Code.SUITE, data, at.server.public)


def test_every_byte_and_length_counts():
    at = helpers.scene()
    data, key = signed(at), at.server.public
    for i in [*range(200), *range(200, len(data), 41)]:
        with pytest.raises(EnvelopeError):
            manifest.read(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :], key)
    for n in [*range(0, 300), len(data) - 1]:
        with pytest.raises(EnvelopeError):
            manifest.read(data[:n], key)
    refused(Code.SIZE, data + b"\0", key)
    refused(Code.SENDER, data, at.clients[0].public)
    forged = manifest.publish(at.clients[0], facts(at))
    refused(Code.SIGNATURE, forged, key)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"suite": 0x0002}, Code.SUITE),
        ({"suite": 0x0003}, Code.SUITE),
        ({"session": 5}, Code.POLICY),
        ({"confidential": True}, Code.POLICY),
        ({"tree_spec": bytes(32)}, Code.SPEC),
    ],
    ids=str,
)
def test_an_announcement_that_departs_from_the_manifest_is_refused(change, code):
    at = helpers.scene()
    with pytest.raises(EnvelopeError) as caught:
        announce.read(
            at.data, at.server.public, RUN, agreed=facts(at, **change), verifier="openssl"
        )
    assert caught.value.code is code
    assert announce.read(at.data, at.server.public, RUN, agreed=facts(at), verifier="openssl")


@pytest.mark.parametrize(
    "change", [{"run": b"x"}, {"session": -1}, {"suite": 9}, {"tree_spec": "x"}], ids=str
)
def test_what_could_not_be_read_is_not_published(change):
    with pytest.raises(EnvelopeError):
        signed(helpers.scene(), **change)
