"""Which envelope a server takes, which code it gives for the others, and in which order."""

import math

import numpy as np
import pytest

from qoejax.wire import client, envelope, errors, keys, server
from qoejax.wire.errors import Code
from tests.wire import helpers
from tests.wire.helpers import EMPTY, LEAVES, NOW, deliver, refused, reseal, seal


def test_a_client_continues_its_chain_over_rounds():
    state, chain = EMPTY, client.Chain()
    for number in range(3):
        at = helpers.scene(number)
        state = server.open_round(state)
        sealed = seal(at, chain=chain)
        state, leaves = deliver(at, sealed.envelope, state)
        assert len(leaves) == len(LEAVES)
        chain = client.advance(chain, sealed.transcript)
        assert state.chains[at.clients[0].id] == chain
    assert chain.seq == 3


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"run": b"x" * 16}, Code.ROUND),
        ({"round": 1}, Code.ROUND),
        ({"announce": bytes(32)}, Code.ROUND),
        ({"recipient": bytes(16)}, Code.ROUND),
        ({"key_epoch": 1}, Code.SENDER),
        ({"sender": bytes(16)}, Code.SENDER),
        ({"seq": 1}, Code.REPLAY),
        ({"prev": b"\1" * 32}, Code.REPLAY),
        ({"base_model": bytes(32)}, Code.SPEC),
        ({"tree_spec": bytes(32)}, Code.SPEC),
        ({"n_samples": 0}, Code.POLICY),
        ({"n_samples": 2**32}, Code.POLICY),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else str(value),
)
def test_each_header_field_is_bound_even_when_signed(changes, code):
    at = helpers.scene()
    refused(code, at, reseal(at, **changes))


def test_reseal_is_accepted_when_nothing_changes():
    state, _ = deliver(helpers.scene(), reseal(helpers.scene()))
    assert len(state.slots) == 1


ORDER = [
    ({"run": b"x" * 16}, Code.ROUND),
    ({"sender": bytes(16)}, Code.SENDER),
    ({"seq": 9}, Code.REPLAY),
    ({}, Code.DECRYPT),
    ({}, Code.SIGNATURE),
    ({"tree_spec": bytes(32)}, Code.SPEC),
    ({"n_samples": 0}, Code.POLICY),
]


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_the_first_failing_check_names_the_code(first):
    """An envelope with every fault from ``first`` on; mending one at a time moves on in order."""
    at = helpers.scene()
    changes = {k: v for fault, _ in ORDER[first:] for k, v in fault.items()}
    codes = [code for _, code in ORDER[first:]]
    data = reseal(at, signer=1 if Code.SIGNATURE in codes else None, **changes)
    if Code.DECRYPT in codes:
        data = data[:-1] + bytes([data[-1] ^ 1])
    refused(codes[0], at, data)
    refused(Code.SIZE, at, data + b"\0")
    refused(Code.FORMAT, at, b"X" + data[1:])
    refused(Code.VERSION, at, data[:4] + b"\2" + data[5:])
    refused(Code.FORMAT, at, data[:5] + b"\2" + data[6:])
    refused(Code.SUITE, at, data[:6] + b"\0\2" + data[8:])


def test_cheap_checks_run_before_any_cryptography(monkeypatch):
    at = helpers.scene()
    data = reseal(at, seq=4)

    def fail(*arguments, **more):
        raise AssertionError("decrypted an envelope that was to be refused before")

    monkeypatch.setattr(envelope, "open_update", fail)
    refused(Code.REPLAY, at, data)
    refused(Code.SIZE, at, data[:-1])
    with pytest.raises(AssertionError, match="to be refused before"):
        deliver(at, reseal(at))


def test_others_rounds_runs_servers_and_suites_do_not_mix():
    at = helpers.scene()
    data = seal(at).envelope
    refused(Code.ROUND, helpers.scene(1), data)
    refused(Code.ROUND, helpers.scene(run=b"y" * 16), data)
    refused(Code.SUITE, helpers.scene(suite=2), data)
    refused(Code.SUITE, at, seal(helpers.scene(suite=2)).envelope)
    again = helpers.scene(samples=77)  # the same round, announced a second time
    refused(Code.ROUND, again, data)
    # Forwarding: the recipient's id is signed, so another server cannot pass it on as meant for it.
    told = at.round.announced._replace(server=at.clients[1].id)
    refused(Code.ROUND, at._replace(round=at.round._replace(announced=told)), data)


def test_a_late_round_key_opens_nothing():
    at, later = helpers.scene(), helpers.scene(1)
    refused(Code.DECRYPT, at._replace(secret=later.secret), seal(at).envelope)


def test_senders_outside_the_registry_the_round_or_the_time_are_refused():
    at = helpers.scene()
    refused(Code.SENDER, at, seal(at, who=3).envelope)
    data = seal(at).envelope
    uninvited = at.round._replace(invited=frozenset([at.clients[1].id]))
    refused(Code.SENDER, at._replace(round=uninvited), data)
    refused(Code.ROUND, at, data, now=NOW + 61)
    assert deliver(at, data, now=NOW + 60)[1]
    revoked = keys.revoke(at.round.registry, at.clients[0].id)
    refused(Code.REVOKED, at._replace(round=at.round._replace(registry=revoked)), data)


def test_keys_outside_their_time_or_epoch_are_refused():
    at = helpers.scene()
    one, data = at.clients[0], seal(at).envelope
    for valid, outcome in (((0, NOW), Code.SENDER), ((NOW + 1, 2 * NOW), Code.SENDER),
                           ((NOW, NOW + 1), None)):  # fmt: skip
        registry = keys.register([keys.enrol(one, (1,), *valid)], verifier="openssl")
        then = at._replace(round=at.round._replace(registry=registry))
        if outcome is None:
            assert deliver(then, data)[1]
        else:
            refused(outcome, then, data)
    # A new epoch of the same key: what it sealed in the old one no longer counts.
    registry = keys.register([keys.enrol(one, (1,), epoch=1)], verifier="openssl")
    then = at._replace(round=at.round._replace(registry=registry))
    refused(Code.SENDER, then, data)
    assert deliver(then, reseal(then, key_epoch=1))[1]


def test_an_identity_cannot_be_borrowed():
    at = helpers.scene()
    error = refused(Code.SIGNATURE, at, reseal(at, who=0, signer=1))
    assert at.clients[0].id.hex() in str(error)


def test_the_same_bytes_twice_count_once():
    at = helpers.scene()
    data = seal(at).envelope
    state, leaves = deliver(at, data)
    assert leaves
    assert deliver(at, data, state) == (state, [])


def test_sealing_the_same_content_again_is_a_harmless_duplicate():
    at = helpers.scene()
    state, _ = deliver(at, seal(at).envelope)
    assert deliver(at, seal(at).envelope, state) == (state, [])


@pytest.mark.parametrize("what", ["payload", "n_samples"])
def test_two_contents_for_one_slot_are_equivocation_with_evidence(what):
    at = helpers.scene()
    state, _ = deliver(at, seal(at).envelope)
    other = [leaf + 1 for leaf in LEAVES] if what == "payload" else LEAVES
    data = seal(at, leaves=other, n_samples=5 if what == "payload" else 6).envelope
    error = refused(Code.EQUIVOCATION, at, data, state)
    held, claim = error.evidence
    key = at.clients[0].public
    assert server.proves(held, key)
    assert server.proves(claim, key)
    assert (held.header_bytes, held.digest) != (claim.header_bytes, claim.digest)
    assert state.slots[at.clients[0].id, 0] == held
    # Nobody else can put a client in that position.
    forged = reseal(at, who=0, signer=1, n_samples=9)
    assert refused(Code.SIGNATURE, at, forged, state).evidence is None


def test_replays_of_accepted_messages_in_later_rounds_are_refused():
    first, later = helpers.scene(), helpers.scene(1)
    sealed = seal(first)
    state, _ = deliver(first, sealed.envelope)
    state = server.open_round(state)
    refused(Code.ROUND, later, sealed.envelope, state)
    # The message number again, even sealed for the right round.
    refused(Code.REPLAY, later, seal(later).envelope, state)
    chain = client.advance(client.Chain(), sealed.transcript)
    refused(Code.REPLAY, later, seal(later, chain=chain._replace(seq=2)).envelope, state)
    refused(Code.REPLAY, later, seal(later, chain=chain._replace(prev=bytes(32))).envelope, state)
    assert deliver(later, seal(later, chain=chain).envelope, state)[1]


def test_reordered_messages_of_one_sender_are_refused():
    at = helpers.scene(updates=3)
    chain, sent = client.Chain(), []
    for _ in range(3):
        sent.append(seal(at, chain=chain))
        chain = client.advance(chain, sent[-1].transcript)
    refused(Code.REPLAY, at, sent[1].envelope)
    state, _ = deliver(at, sent[0].envelope)
    refused(Code.REPLAY, at, sent[2].envelope, state)
    for one in sent[1:]:
        state, leaves = deliver(at, one.envelope, state)
        assert leaves
    assert state.chains[at.clients[0].id] == chain


def test_a_clone_is_detected_when_the_two_meet():
    first, later = helpers.scene(), helpers.scene(1)
    clone = seal(first, leaves=[leaf * 2 for leaf in LEAVES])
    state, _ = deliver(first, clone.envelope)
    refused(Code.EQUIVOCATION, first, seal(first).envelope, state)
    chain = client.advance(client.Chain(), seal(first).transcript)
    refused(Code.REPLAY, later, seal(later, chain=chain).envelope, server.open_round(state))


def test_a_sender_catches_up_after_a_lost_acknowledgement():
    first, later = helpers.scene(), helpers.scene(1)
    sealed = seal(first)
    state, _ = deliver(first, sealed.envelope)  # and nothing comes back
    state = server.open_round(state)
    chain = client.Chain()
    refused(Code.REPLAY, later, seal(later, chain=chain).envelope, state)
    assert errors.reply(Code.REPLAY) == "STALE"
    head = state.chains[first.clients[0].id]
    found = client.catch_up(chain, [(0, sealed.transcript)], head)
    assert deliver(later, seal(later, chain=found).envelope, state)[1]
    assert client.catch_up(chain, [(0, sealed.transcript)], client.Chain()) == chain
    for stranger in (client.Chain(1, b"\7" * 32), head._replace(seq=5)):
        with pytest.raises(errors.EnvelopeError, match="EQUIVOCATION"):
            client.catch_up(chain, [(0, sealed.transcript)], stranger)


def test_more_updates_than_allowed_are_against_policy():
    at = helpers.scene()
    sealed = seal(at)
    state, _ = deliver(at, sealed.envelope)
    chain = client.advance(client.Chain(), sealed.transcript)
    refused(Code.POLICY, at, seal(at, chain=chain).envelope, state)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nonfinite_updates_are_refused(bad):
    at = helpers.scene()
    leaves = [LEAVES[0], np.where(LEAVES[1] == 3, np.float32(bad), LEAVES[1])]
    error = refused(Code.NONFINITE, at, seal(at, leaves=leaves).envelope)
    assert "dense/kernel" in str(error)
    assert at.clients[0].id.hex() in str(error)


def test_the_norm_cap_is_a_cap():
    norm = math.sqrt(sum(float(np.sum(leaf.astype(float) ** 2)) for leaf in LEAVES))
    tight, loose = helpers.scene(norm=norm * 0.999), helpers.scene(norm=norm * 1.001)
    refused(Code.POLICY, tight, seal(tight).envelope)
    assert deliver(loose, seal(loose).envelope)[1]


def test_a_refusal_leaves_the_state_as_it_was():
    at = helpers.scene()
    state, _ = deliver(at, seal(at, who=1).envelope)
    before = (dict(state.chains), dict(state.slots))
    for data in (b"", reseal(at, seq=1), reseal(at, n_samples=0), reseal(at, signer=2)):
        with pytest.raises(errors.EnvelopeError):
            deliver(at, data, state)
    assert (state.chains, state.slots) == before


def test_a_slot_filled_while_another_copy_was_being_opened():
    """Two copies pass ``precheck`` before either is committed, as happens in a pool."""
    at = helpers.scene()
    key = at.clients[0].public
    facts = at.round.announced.announce

    def race(one, two):
        assert [server.precheck(at.round, EMPTY, d, NOW) for d in (one, two)] == [key, key]
        opened = [
            server.inspect(facts, at.round.spec, data, at.secret, key, verifier="openssl")
            for data in (one, two)
        ]
        state, outcome = server.commit(at.round, EMPTY, opened[0], NOW)
        assert outcome == "accepted"
        return state, server.commit(at.round, state, opened[1], NOW)

    data = seal(at).envelope
    state, second = race(data, data)
    assert second == (state, "duplicate")
    with pytest.raises(errors.EnvelopeError) as caught:
        race(data, seal(at, n_samples=6).envelope)
    assert caught.value.code is Code.EQUIVOCATION


def test_peers_learn_little():
    replies = {code: errors.reply(code) for code in Code}
    assert set(replies.values()) == {"REJECT", "STALE", "RETRY"}
    assert replies[Code.DECRYPT] == replies[Code.SIGNATURE] == replies[Code.SENDER] == "REJECT"
    assert replies[Code.ROUND] == "STALE"
