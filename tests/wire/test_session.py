"""Sessions: the ratchet, the chain through it, its end, and what its HELLO signs."""

import hashlib
import hmac

import pytest

from qoejax.wire import client, envelope, keys, server, session
from qoejax.wire.envelope import Sealed
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.secret import Secret
from tests.wire import helpers
from tests.wire.helpers import EMPTY, LEAVES, MODEL, NOW, deliver, refused

ROUNDS = 4


def scene(number=0, **caps):
    return helpers.scene(number, session=ROUNDS, **caps)


class Peer:
    """A client in a session, as far as a test needs one."""

    def __init__(self, who=0):
        self.who, self.chain, self.session = who, client.Chain(), None

    def hello(self, at, closing=None, **changes) -> Sealed:
        one = at.clients[self.who]
        header = client.hello_header(at.round.announced, one.id, 0, self.chain)._replace(**changes)
        payload = session.statement(self.session if closing is None else closing)
        key = at.round.announced.announce.round_key
        return envelope.seal_update(header, payload, key, one.sign)

    def greet(self, at, state, now=NOW):
        sealed = self.hello(at)
        state, leaves = deliver(at, sealed.envelope, state, now)
        assert leaves == []
        header = envelope.unpack(sealed.envelope)
        self.session = session.begin(sealed.exports.session, header, now)
        self.chain = client.Chain(header.seq + 1, sealed.transcript[:32])
        return state

    def seal(self, at, payload=MODEL, **changes) -> Sealed:
        key, self.session = session.take(self.session)
        one = at.clients[self.who]
        header = client.update_header(at.round.announced, one.id, 0, self.chain, 5, len(payload))
        self.chain = self.chain._replace(seq=self.chain.seq + 1)
        header = client.in_session(header)._replace(**changes)
        return session.seal(header, payload, key)

    def acknowledged(self, sealed):
        self.session = session.accept(self.session, sealed.transcript)
        self.chain = self.chain._replace(prev=sealed.transcript[:32])


def started(who=0, at=None):
    peer = Peer(who)
    return peer, peer.greet(at or scene(), EMPTY)


def test_an_update_costs_234_bytes_and_moves_both_ends_on():
    peer, state = started()
    for number in range(3):
        at = scene(number)
        state = server.open_round(state) if number else state
        sealed = peer.seal(at)
        assert len(sealed.envelope) == len(MODEL) + 234
        state, leaves = deliver(at, sealed.envelope, state)
        assert len(leaves) == len(LEAVES)
        peer.acknowledged(sealed)
        assert state.sessions[at.clients[0].id] == peer.session
        assert state.chains[at.clients[0].id] == peer.chain


def test_the_ratchet_is_hmac_and_never_gives_a_key_twice():
    first = one = session.Session(Secret(b"k" * 32), 5, 0, 0)
    seen = []
    for _ in range(session.MAX_SKIP + 1):
        chain = one.chain_key.expose()
        key, one = session.take(one)
        assert key.expose() == hmac.digest(chain, b"\1", "sha256")
        assert one.chain_key.expose() == hmac.digest(chain, b"\2", "sha256")
        seen.append((key, one))
    assert len({key.expose() for key, _ in seen}) == len(seen)
    assert [session.key_at(first, 5 + i) for i in range(len(seen))] == seen


@pytest.mark.parametrize("seq", [-1, 4, 5 + session.MAX_SKIP + 1, 2**32])
def test_keys_of_the_past_and_of_a_far_future_are_refused(seq):
    with pytest.raises(EnvelopeError) as caught:
        session.key_at(session.Session(Secret(b"k" * 32), 5, 0, 0), seq)
    assert caught.value.code is Code.REPLAY


def test_an_old_state_opens_nothing_new_and_a_new_state_nothing_old():
    """Forward secrecy: what an end keeps after a message cannot give that message's key."""
    peer, _ = started()
    at = scene()
    before = peer.session
    sealed = peer.seal(at)
    key = session.take(before)[0]
    assert session.open(sealed.envelope, key).payload == MODEL
    with pytest.raises(EnvelopeError, match="REPLAY"):
        session.key_at(peer.session, envelope.unpack(sealed.envelope).seq)
    with pytest.raises(EnvelopeError, match="DECRYPT"):
        session.open(sealed.envelope, session.take(peer.session)[0])


def test_every_altered_byte_is_refused_and_changes_nothing():
    peer, state = started()
    at = scene()
    data = peer.seal(at).envelope
    codes = {}
    for i in range(len(data)):
        bad = data[:i] + bytes([data[i] ^ (1 << i % 8)]) + data[i + 1 :]
        with pytest.raises(EnvelopeError) as caught:
            deliver(at, bad, state)
        codes[caught.value.code] = codes.get(caught.value.code, 0) + 1
    assert sum(codes.values()) == len(data) == 266
    assert codes[Code.DECRYPT] >= len(MODEL) + 16
    for n in range(len(data)):
        refused(Code.SIZE, at, data[:n], state)
        refused(Code.SIZE, at, data + data[: n + 1], state)
    assert deliver(at, data, state)[1]


def test_lost_messages_are_stepped_over_and_late_ones_refused():
    peer, state = started(at=scene(updates=9))
    at = scene(updates=9)
    lost = [peer.seal(at) for _ in range(3)]
    sealed = peer.seal(at)
    state, leaves = deliver(at, sealed.envelope, state)
    assert leaves
    for late in lost:
        refused(Code.REPLAY, at, late.envelope, state)
    peer.acknowledged(sealed)
    assert deliver(at, peer.seal(at).envelope, state)[1]


def test_a_message_that_does_not_continue_the_chain_is_refused():
    peer, state = started()
    refused(Code.REPLAY, scene(), peer.seal(scene(), prev=b"\7" * 32).envelope, state)


def test_repeats_are_duplicates_and_other_bytes_a_replay():
    peer, state = started()
    at = scene()
    sealed = peer.seal(at)
    state, _ = deliver(at, sealed.envelope, state)
    assert deliver(at, sealed.envelope, state) == (state, [])
    other = sealed.envelope[:-1] + bytes([sealed.envelope[-1] ^ 1])
    refused(Code.REPLAY, at, other, state)


def test_two_holders_of_one_session_are_noticed_without_evidence():
    """Both copies pass ``precheck`` before either is committed, as happens in a pool."""
    peer, state = started()
    at = scene()
    twin = Peer()
    twin.chain, twin.session = peer.chain, peer.session
    key, facts = at.clients[0].public, at.round.announced.announce
    other = bytes(len(MODEL))
    opened = [
        server.inspect(
            facts, at.round.spec, data, server.opening_key(state, data, at.secret), key,
            verifier="openssl",
        )
        for data in (peer.seal(at).envelope, twin.seal(at, payload=other).envelope)
    ]  # fmt: skip
    state, _ = server.commit(at.round, state, opened[0], NOW)
    with pytest.raises(EnvelopeError) as caught:
        server.commit(at.round, state, opened[1], NOW)
    assert caught.value.code is Code.EQUIVOCATION
    assert caught.value.evidence is None


def test_without_a_session_or_after_its_end_hello_is_expected():
    at = scene()
    peer, state = started()
    sealed = peer.seal(at)
    assert "HELLO expected" in str(refused(Code.ROUND, at, sealed.envelope, EMPTY._replace(
        chains=state.chains)))  # fmt: skip
    late = scene(ROUNDS)
    refused(Code.ROUND, late, peer.seal(late).envelope, server.open_round(state))
    now = NOW + 50
    assert session.over(peer.session, ROUNDS, 1, NOW + session.SECONDS)
    assert session.over(peer.session, ROUNDS, 1, NOW - 1)  # a clock that went back proves nothing
    assert not session.over(peer.session, ROUNDS, ROUNDS - 1, now)
    assert session.over(None, ROUNDS, 0, NOW)


def test_modes_do_not_mix():
    """A run has sessions or it has not; neither form of update passes for the other."""
    at, plain = scene(), helpers.scene()
    peer, state = started()
    signed = helpers.seal(at, chain=peer.chain).envelope
    refused(Code.SIZE, at, signed, state)
    refused(Code.SIZE, plain, peer.seal(plain).envelope)
    refused(Code.SIZE, plain, Peer().hello(plain).envelope)
    flagged = envelope.unpack(signed)._replace(flags=envelope.SESSION)
    with pytest.raises(EnvelopeError, match="FORMAT"):
        envelope.seal_update(flagged, MODEL, at.round.announced.announce.round_key, bytes)
    with pytest.raises(EnvelopeError, match="expected UPDATE in a session"):
        session.seal(envelope.unpack(signed), MODEL, Secret(bytes(32)))
    with pytest.raises(EnvelopeError, match="no sessions"):
        session.seal(flagged._replace(suite=envelope.PLAINTEXT), MODEL, Secret(bytes(32)))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"run": b"x" * 16}, Code.ROUND),
        ({"round": 1}, Code.ROUND),
        ({"announce": bytes(32)}, Code.ROUND),
        ({"recipient": bytes(16)}, Code.ROUND),
        ({"key_epoch": 1}, Code.SENDER),
        ({"base_model": bytes(32)}, Code.SPEC),
        ({"n_samples": 0}, Code.POLICY),
    ],
)
def test_every_field_is_bound_in_a_session(changes, code):
    peer, state = started()
    refused(code, scene(), peer.seal(scene(), **changes).envelope, state)


def test_another_clients_session_is_of_no_use():
    peer, state = started(0)
    other = Peer(1)
    state = other.greet(scene(), state)
    forged = peer.seal(scene(), sender=scene().clients[1].id, prev=other.chain.prev)
    refused(Code.DECRYPT, scene(), forged.envelope, state)


def test_the_next_hello_signs_what_was_accepted():
    peer, state = started()
    transcripts = []
    for number in range(ROUNDS):
        at = scene(number)
        state = server.open_round(state) if number else state
        sealed = peer.seal(at)
        state, _ = deliver(at, sealed.envelope, state)
        peer.acknowledged(sealed)
        transcripts.append(sealed.transcript)
    at = scene(ROUNDS)
    state = server.open_round(state)
    lie = peer.session._replace(accepted=peer.session.accepted[:-1])
    refused(Code.REPLAY, at, peer.hello(at, closing=lie).envelope, state)
    state = peer.greet(at, state)
    slot = state.slots[at.clients[0].id, peer.chain.seq - 1]
    assert server.proves(slot, at.clients[0].public)
    held = session.Session(Secret(bytes(32)), 0, 0, 0, tuple(transcripts))
    assert slot.statement == session.statement(held)
    assert slot.statement[:4] == (4).to_bytes(4, "big")
    assert hashlib.sha512(slot.statement).digest() == slot.digest
    assert state.sessions[at.clients[0].id].accepted == ()


def test_a_client_that_lost_its_session_may_begin_anew():
    peer, state = started()
    at = scene()
    sealed = peer.seal(at)
    state, _ = deliver(at, sealed.envelope, state)
    peer.acknowledged(sealed)
    peer.session = None
    state = peer.greet(scene(1), server.open_round(state))
    assert deliver(scene(1), peer.seal(scene(1)).envelope, state)[1]


def test_hello_is_bound_signed_and_refused_like_an_update():
    at = scene()
    peer = Peer()
    data = peer.hello(at).envelope
    for i in range(0, len(data), 7):
        with pytest.raises(EnvelopeError):
            deliver(at, data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :])
    refused(Code.SPEC, at, peer.hello(at, tree_spec=bytes(32)).envelope)
    refused(Code.REPLAY, at, peer.hello(at, seq=session.MAX_SKIP + 1).envelope)
    revoked = keys.revoke(at.round.registry, at.clients[0].id)
    refused(Code.REVOKED, at._replace(round=at.round._replace(registry=revoked)), data)
    state, _ = deliver(at, data)
    assert deliver(at, data, state) == (state, [])
    other = peer.hello(at, n_samples=3).envelope
    error = refused(Code.EQUIVOCATION, at, other, state)
    assert all(server.proves(slot, at.clients[0].public) for slot in error.evidence)
    # Its signature is for a HELLO and for nothing else.
    key = at.clients[0].public
    slot = error.evidence[0]
    header = envelope.pack(envelope.unpack(slot.header_bytes)._replace(type=envelope.UPDATE))
    assert not server.proves(slot._replace(header_bytes=header), key)


def test_a_greeting_counts_as_no_update():
    peer, state = started()
    at = scene()
    sealed = peer.seal(at)
    state, leaves = deliver(at, sealed.envelope, state)
    assert leaves
    peer.acknowledged(sealed)
    refused(Code.POLICY, at, peer.seal(at).envelope, state)


def test_merkle_roots_are_those_of_rfc_6962():
    texts = ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")
    leaves = tuple(bytes.fromhex(h) for h in (*texts, "606162636465666768696a6b6c6d6e6f"))
    want = {
        0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    }
    assert session.statement(None).hex() == f"{0:08x}{want[0]}"
    for n, root in want.items():
        held = session.Session(Secret(bytes(32)), 0, 0, 0, leaves[:n])
        assert session.statement(held).hex() == f"{n:08x}{root}"
