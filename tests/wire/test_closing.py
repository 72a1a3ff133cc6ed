"""CLOSE: the last updates of a session are signed for, once and by nobody else."""

import numpy as np
import pytest

from qoejax.wire import client, closing, codec, envelope, keys, server, session
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.exchange import Exchange
from qoejax.wire.secret import Secret
from tests.wire.helpers import RUN, SPEC, identities

ME, PEER, OTHER = identities("openssl", 3)
HELD = session.Session(Secret(bytes(32)), 3, 0, 0, (bytes([1]) * 64, bytes([2]) * 64))
CHAIN = client.Chain(3, bytes([7]) * 32)
ENTRY = keys.enrol(PEER, (1,), epoch=2)
WANT = closing.header(RUN, 1, ME.id, ENTRY, CHAIN)
DATA = closing.seal(WANT, session.statement(HELD), PEER.sign).envelope


def read(data, want=WANT, held=HELD, public=PEER.public):
    return closing.read(data, want, held, public, verifier="openssl")


def code(*args, **changes):
    with pytest.raises(EnvelopeError) as caught:
        read(*args, **changes)
    return caught.value.code


def sealed(**changes):
    return closing.seal(WANT._replace(**changes), session.statement(HELD), PEER.sign).envelope


def test_a_close_is_signed_evidence_and_moves_the_chain_on():
    assert len(DATA) == 218 + 3309 + 36
    slot, chain = read(DATA)
    assert server.proves(slot, PEER.public, "openssl")
    assert not server.proves(slot, OTHER.public, "openssl")
    assert slot.statement == session.statement(HELD)
    assert chain.seq == 4
    assert chain.prev != CHAIN.prev
    assert read(sealed(seq=5))[1].seq == 6  # what was sealed and lost leaves a gap


def test_every_byte_and_length_counts():
    for at in [*range(envelope.HEADER_SIZE), *range(218, len(DATA), 37), len(DATA) - 1]:
        changed = bytearray(DATA)
        changed[at] ^= 1
        assert isinstance(code(bytes(changed)), Code)
    assert code(DATA[:-1]) is code(DATA + b"\0") is code(b"") is Code.SIZE


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        ({"run": bytes(16)}, Code.ROUND),
        ({"suite": 2}, Code.SUITE),
        ({"sender": OTHER.id}, Code.SENDER),
        ({"key_epoch": 1}, Code.SENDER),
        ({"recipient": bytes(16)}, Code.ROUND),
        ({"prev": bytes(32)}, Code.REPLAY),
        ({"seq": 2}, Code.REPLAY),
        ({"seq": 4 + session.MAX_SKIP}, Code.REPLAY),
        ({"round": 1}, Code.FORMAT),
        ({"type": envelope.HELLO}, Code.FORMAT),
        ({"n_samples": 1}, Code.FORMAT),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else str(value),
)
def test_each_header_field_is_bound_even_when_signed(changes, want):
    context = envelope.CONTEXTS.get(changes.get("type", envelope.CLOSE))
    assert context
    assert code(sealed(**changes)) is want


def test_other_updates_than_were_accepted_and_other_signers_are_refused():
    short = HELD._replace(accepted=HELD.accepted[:1])
    assert code(DATA, held=short) is Code.REPLAY
    assert code(DATA, public=OTHER.public) is Code.SIGNATURE
    # A HELLO's signature over the same bytes stands for something else.
    packed, statement = envelope.pack(WANT), session.statement(HELD)
    name = closing.seal(WANT, statement, PEER.sign).transcript
    forged = packed + PEER.sign(name, envelope.HELLO_CONTEXT) + statement
    assert code(forged) is Code.SIGNATURE
    with pytest.raises(EnvelopeError, match="type 9"):
        envelope.seal_update(WANT, statement, b"", PEER.sign)


def payload(value):
    return codec.encode(SPEC, [np.full(leaf.shape, value, np.float32) for leaf in SPEC])


def test_an_exchange_closes_every_session_with_updates_once():
    with Exchange(clients=3, spec=SPEC, signer="openssl", session=4) as wire:
        for number in range(2):
            sent = {0: payload(number), 1: payload(9)} if number == 0 else {0: payload(1)}
            wire.round(number, payload(0), sent, dict.fromkeys(sent, 1))
        wire.revoke(1)
        slots, refused = wire.close_sessions()
        assert list(slots) == [0]  # 2 sent nothing, 1 may not
        assert refused[1].code is Code.REVOKED
        assert int.from_bytes(slots[0].statement[:4], "big") == 2
        assert server.proves(slots[0], wire._fleet.ids[0].public, "openssl")
        assert wire.close_sessions() == ({}, {})
        # Going on is possible: a HELLO begins anew, on the same chain.
        result = wire.round(2, payload(0), {0: payload(2)}, {0: 1})
        assert list(result.payloads) == [0]
        assert set(result.greetings) >= {0}
        wire.begin_round(3, payload(0))
        with pytest.raises(ValueError, match="between rounds"):
            wire.close_sessions()


def test_a_signer_that_gives_up_leaves_the_session_unsigned():
    def exhausted(message, context):
        raise EnvelopeError(Code.SIGN_EXHAUSTED, "the signer gave up")

    with Exchange(clients=1, spec=SPEC, signer="openssl", session=4, mode="threads") as wire:
        wire.round(0, payload(0), {0: payload(1)}, {0: 1})
        wire._fleet.ids[0]._sign = exhausted
        slots, refused = wire.close_sessions()
    assert slots == {}
    assert refused[0].code is Code.SIGN_EXHAUSTED
