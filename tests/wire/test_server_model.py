"""A server against a plain model of it, over random sequences of honest and bad messages.

Two machines. Without sessions the plaintext suite is used: order, replay and slots do not depend on
cryptography, and this is quick. With sessions messages are really sealed, and HELLO too.
"""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from qoejax.wire import client, codec, envelope, keys, server, session
from qoejax.wire.errors import Code, EnvelopeError
from tests.wire import helpers
from tests.wire.helpers import EMPTY, LEAVES, NOW, SPEC

CLIENTS = st.integers(0, 2)
VALUES = st.integers(0, 3)


def leaves_of(value):
    return [np.full_like(leaf, value) for leaf in LEAVES]


class Common(RuleBasedStateMachine):
    """A server, three clients, rounds that follow each other, and revocation."""

    def __init__(self):
        super().__init__()
        self.number = 0
        self.state = EMPTY
        self.chains = [client.Chain() for _ in range(3)]
        self.sent = {}  # client -> (envelope, value) accepted in this round
        self.old = []  # envelopes of earlier rounds
        self.revoked = set()

    @property
    def at(self):
        at = self.scene()
        registry = at.round.registry
        for who in self.revoked:
            registry = keys.revoke(registry, at.clients[who].id)
        return at._replace(round=at.round._replace(registry=registry))

    def deliver(self, data):
        try:
            self.state, leaves = helpers.deliver(self.at, data, self.state)
        except EnvelopeError as error:
            return error.code
        return "accepted" if leaves else "nothing"

    def expect(self, who, data, outcome):
        """Delivers; someone revoked is refused as that, whatever else is wrong."""
        before = self.state
        got = self.deliver(data)
        assert got == (Code.REVOKED if who in self.revoked else outcome)
        if got != "accepted" and envelope.unpack(data).type != envelope.HELLO:
            assert self.state.chains == before.chains
        return got == "accepted"

    @rule(who=CLIENTS)
    def send_again(self, who):
        if who in self.sent:
            self.expect(who, self.sent[who][0], "nothing")

    @rule(data=st.data())
    def replay_an_old_round(self, data):
        if self.old:
            assert self.deliver(data.draw(st.sampled_from(self.old))) is Code.ROUND

    @rule(who=CLIENTS, often=st.integers(0, 5))
    def revoke(self, who, often):
        if often == 0:
            self.revoked.add(who)

    @rule()
    def close_the_round(self):
        self.next_round()

    def next_round(self):
        self.old += [data for data, _ in self.sent.values()]
        self.sent = {}
        self.number += 1
        self.state = server.open_round(self.state)

    @invariant()
    def both_ends_agree(self):
        for one, chain in zip(self.at.clients, self.chains, strict=False):
            known = self.state.chains.get(one.id, client.Chain())
            assert known.prev == chain.prev
            assert known.seq <= chain.seq


class Signed(Common):
    """Every update stands alone."""

    def scene(self):
        return helpers.scene(self.number, suite=envelope.PLAINTEXT)

    def seal(self, who, value, chain):
        return helpers.seal(self.scene(), who, leaves_of(value), chain)

    @rule(who=CLIENTS, value=VALUES)
    def send_next(self, who, value):
        sealed = self.seal(who, value, self.chains[who])
        outcome = Code.POLICY if who in self.sent else "accepted"
        if self.expect(who, sealed.envelope, outcome):
            self.sent[who] = (sealed.envelope, value)
            self.chains[who] = client.advance(self.chains[who], sealed.transcript)

    @rule(who=CLIENTS, value=VALUES)
    def fill_the_slot_again(self, who, value):
        if who in self.sent:
            data, before = self.sent[who]
            header = envelope.unpack(data)
            chain = client.Chain(header.seq, header.prev)
            outcome = "nothing" if value == before else Code.EQUIVOCATION
            self.expect(who, self.seal(who, value, chain).envelope, outcome)

    @rule(who=CLIENTS, jump=st.integers(1, 5))
    def skip_ahead(self, who, jump):
        chain = self.chains[who]._replace(seq=self.chains[who].seq + jump)
        self.expect(who, self.seal(who, 1, chain).envelope, Code.REPLAY)

    @rule(who=CLIENTS)
    def fork(self, who):
        chain = self.chains[who]._replace(prev=b"\7" * 32)
        self.expect(who, self.seal(who, 1, chain).envelope, Code.REPLAY)

    @invariant()
    def slots_are_what_was_sent(self):
        ids = {self.at.clients[who].id for who in self.sent}
        assert {sender for sender, _ in self.state.slots} == ids


class InSessions(Common):
    """One HELLO, then updates under the ratchet, some of which never arrive."""

    ROUNDS = 3

    def __init__(self):
        super().__init__()
        self.sessions = [None] * 3
        self.lost = []  # (client, envelope) sealed and never delivered in this round

    def scene(self):
        return helpers.scene(self.number, session=self.ROUNDS)

    def lasts(self, who):
        return not session.over(self.sessions[who], self.ROUNDS, self.number, NOW)

    @rule(who=CLIENTS, lose=st.booleans())
    def hello(self, who, lose):
        at, one = self.scene(), self.scene().clients[who]
        told = at.round.announced
        header = client.hello_header(told, one.id, 0, self.chains[who])
        said = session.statement(self.sessions[who])
        sealed = envelope.seal_update(header, said, told.announce.round_key, one.sign)
        if lose:
            return
        self.expect(who, sealed.envelope, "nothing")
        if who not in self.revoked:
            self.sessions[who] = session.begin(sealed.exports.session, header, NOW)
            self.chains[who] = client.Chain(header.seq + 1, sealed.transcript[:32])

    def seal(self, who, value, **changes):
        key, self.sessions[who] = session.take(self.sessions[who])
        chain = self.chains[who]
        payload = codec.encode(SPEC, leaves_of(value))
        sender = self.scene().clients[who].id
        header = client.update_header(
            self.scene().round.announced, sender, 0, chain, 5, len(payload)
        )
        self.chains[who] = chain._replace(seq=chain.seq + 1)
        return session.seal(client.in_session(header)._replace(**changes), payload, key)

    @rule(who=CLIENTS, value=VALUES, lose=st.booleans())
    def send_next(self, who, value, lose):
        if self.sessions[who] is None:
            return
        lasts = self.lasts(who)
        sealed = self.seal(who, value)
        if lose:
            self.lost.append((who, sealed.envelope))
            return
        outcome = Code.POLICY if who in self.sent else "accepted" if lasts else Code.ROUND
        if self.expect(who, sealed.envelope, outcome):
            self.sent[who] = (sealed.envelope, value)
            self.sessions[who] = session.accept(self.sessions[who], sealed.transcript)
            self.chains[who] = self.chains[who]._replace(prev=sealed.transcript[:32])

    @rule(who=CLIENTS)
    def fork(self, who):
        if self.sessions[who] is not None:
            self.expect(who, self.seal(who, 1, prev=b"\7" * 32).envelope, Code.REPLAY)

    @rule(who=CLIENTS, at=st.integers(218, 265))
    def alter(self, who, at):
        """Neither an altered message nor a lost one stops those that follow."""
        if self.sessions[who] is None or who in self.sent or not self.lasts(who):
            return
        data = self.seal(who, 2).envelope
        bad = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        self.expect(who, bad, Code.DECRYPT)

    @rule(data=st.data())
    def deliver_what_was_lost_too_late(self, data):
        late = [
            (who, held) for who, held in self.lost
            if who in self.sent and envelope.unpack(held).seq
            < envelope.unpack(self.sent[who][0]).seq
        ]  # fmt: skip
        if late:
            self.expect(*data.draw(st.sampled_from(late)), Code.REPLAY)

    def next_round(self):
        super().next_round()
        self.lost = []

    @invariant()
    def sessions_agree_on_what_was_accepted(self):
        for who, mine in enumerate(self.sessions):
            held = self.state.sessions.get(self.at.clients[who].id)
            assert (held is None) == (mine is None)
            if mine is not None:
                assert held.accepted == mine.accepted
                assert 0 <= mine.seq - held.seq <= session.MAX_SKIP


TestSigned = Signed.TestCase
TestSigned.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
TestInSessions = InSessions.TestCase
TestInSessions.settings = settings(max_examples=10, stateful_step_count=25, deadline=None)
