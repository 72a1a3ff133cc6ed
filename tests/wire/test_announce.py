import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoejax.wire import announce, cbor, envelope, sign
from qoejax.wire.errors import Code, EnvelopeError
from tests.wire import helpers
from tests.wire.helpers import MODEL, RUN

SIGNATURE = slice(-len(MODEL) - sign.SIGNATURE_SIZE, -len(MODEL))


def read(data, *, key=None, run=RUN, last=(-1, announce.ZERO), verifier="openssl"):
    key = helpers.scene().server.public if key is None else key
    return announce.read(data, key, run, last, verifier=verifier)


def refused(code, data, **more):
    with pytest.raises(EnvelopeError) as caught:
        read(data, **more)
    assert caught.value.code is code, caught.value


@pytest.mark.parametrize("verifier", sorted(sign.PROVIDERS))
def test_clients_read_what_the_server_published(verifier):
    at = helpers.scene()
    found = read(at.data, verifier=verifier)
    assert found == at.round.announced
    assert found.model == MODEL


def test_another_server_run_or_order_is_refused():
    first, later = helpers.scene(), helpers.scene(number=3)
    refused(Code.SENDER, first.data, key=first.clients[0].public)
    refused(Code.ROUND, first.data, run=b"x" * 16)
    refused(Code.ROUND, first.data, last=(0, announce.ZERO))
    refused(Code.ROUND, first.data, last=(7, announce.ZERO))
    refused(Code.ROUND, later.data, last=(2, first.round.announced.digest))
    # A client that missed round 2 cannot check the link, and goes on.
    assert read(later.data, last=(1, b"\1" * 32)).announce.round == 3


def test_plaintext_announcements_need_unsafe():
    at = helpers.scene(suite=envelope.PLAINTEXT)
    refused(Code.SUITE, at.data)
    assert announce.read(at.data, at.server.public, RUN, unsafe=True, verifier="openssl")


def test_every_byte_counts():
    data = helpers.scene().data
    # The signature's own bytes are checked one by one for updates; a few are enough here.
    start, end, _ = SIGNATURE.indices(len(data))
    for at in [*range(start + 5), *range(start + 5, end, 97), *range(end, len(data))]:
        bad = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(EnvelopeError):
            read(bad)


def test_every_length_but_one_is_refused():
    data = helpers.scene().data
    for n in range(len(data)):
        refused(Code.SIZE, data[:n])
    refused(Code.SIZE, data + b"\0")


@given(st.binary(max_size=400), st.integers(0, 300))
def test_only_envelope_errors_escape(noise, keep):
    data = helpers.scene().data
    for bad in (noise, data[:keep] + noise, data[:keep] + noise + data[keep + len(noise) :]):
        if bad != data:
            with pytest.raises(EnvelopeError):
                read(bad)


def forge(**changes):
    """An announcement whose body has other fields, properly signed by the server."""
    at = helpers.scene()
    facts = at.round.announced.announce
    fields = facts._asdict() | {"caps": facts.caps._asdict()} | changes
    body = cbor.encode({k: v for k, v in fields.items() if v is not None})
    front = at.data[: envelope.HEADER_SIZE]
    name = envelope.transcript(front, body, announce.hashlib.sha512(MODEL).digest())
    signature = at.server.sign(name, announce.CONTEXT)
    return front + len(body).to_bytes(4, "big") + body + signature + MODEL


def test_forge_makes_a_valid_announcement_when_nothing_changes():
    assert read(forge()) == helpers.scene().round.announced


CAPS = helpers.scene().round.announced.announce.caps._asdict()


@pytest.mark.parametrize(
    "changes",
    [
        {"round": 1},
        {"round": "0"},
        {"run": b"short"},
        {"round_key": b"short"},
        {"deadline": 1.0},
        {"log": 0},
        {"log": None},
        {"extra": 0},
        {"caps": 0},
        {"caps": CAPS | {"norm": 1}},
        {"caps": CAPS | {"norm": -1.0}},
        {"caps": CAPS | {"samples": b""}},
        {"caps": {"norm": 1.0}},
        {"base_model": bytes(32)},
    ],
    ids=str,
)
def test_signed_nonsense_is_a_format_error(changes):
    refused(Code.FORMAT, forge(**changes))


def test_a_server_cannot_announce_another_model_than_it_sends():
    at = helpers.scene()
    with pytest.raises(EnvelopeError) as caught:
        announce.publish(at.server, at.round.announced.announce, MODEL[:-1] + b"\1")
    assert caught.value.code is Code.SPEC
