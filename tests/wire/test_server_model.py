"""A server against a plain model of it, over random sequences of honest and bad messages."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from qoejax.wire import client, envelope, server
from qoejax.wire.errors import Code, EnvelopeError
from tests.wire import helpers
from tests.wire.helpers import EMPTY, LEAVES

CLIENTS = st.integers(0, 2)


class Server(RuleBasedStateMachine):
    """Plaintext suite: order, replay and slots do not depend on cryptography, and this is quick."""

    def __init__(self):
        super().__init__()
        self.number = 0
        self.state = EMPTY
        self.chains = [client.Chain() for _ in range(3)]
        self.sent = {}  # client -> (envelope, value) accepted in this round
        self.old = []  # envelopes of earlier rounds

    @property
    def at(self):
        return helpers.scene(self.number, suite=envelope.PLAINTEXT)

    def seal(self, who, value, chain):
        leaves = [np.full_like(leaf, value) for leaf in LEAVES]
        return helpers.seal(self.at, who, leaves, chain)

    def deliver(self, data):
        try:
            self.state, leaves = helpers.deliver(self.at, data, self.state)
        except EnvelopeError as error:
            return error.code
        return "accepted" if leaves else "duplicate"

    @rule(who=CLIENTS, value=st.integers(0, 3))
    def send_next(self, who, value):
        sealed = self.seal(who, value, self.chains[who])
        outcome = self.deliver(sealed.envelope)
        if who in self.sent:
            assert outcome is Code.POLICY
            return
        assert outcome == "accepted"
        self.sent[who] = (sealed.envelope, value)
        self.chains[who] = client.advance(self.chains[who], sealed.transcript)

    @rule(who=CLIENTS)
    def send_again(self, who):
        if who in self.sent:
            assert self.deliver(self.sent[who][0]) == "duplicate"

    @rule(who=CLIENTS, value=st.integers(0, 3))
    def fill_the_slot_again(self, who, value):
        if who in self.sent:
            data, before = self.sent[who]
            header = envelope.unpack(data)
            chain = client.Chain(header.seq, header.prev)
            outcome = self.deliver(self.seal(who, value, chain).envelope)
            assert outcome == ("duplicate" if value == before else Code.EQUIVOCATION)

    @rule(who=CLIENTS, jump=st.integers(1, 5))
    def skip_ahead(self, who, jump):
        chain = self.chains[who]._replace(seq=self.chains[who].seq + jump)
        assert self.deliver(self.seal(who, 1, chain).envelope) is Code.REPLAY

    @rule(who=CLIENTS)
    def fork(self, who):
        chain = self.chains[who]._replace(prev=b"\7" * 32)
        assert self.deliver(self.seal(who, 1, chain).envelope) is Code.REPLAY

    @rule(data=st.data())
    def replay_an_old_round(self, data):
        if self.old:
            assert self.deliver(data.draw(st.sampled_from(self.old))) is Code.ROUND

    @rule()
    def next_round(self):
        self.old += [data for data, _ in self.sent.values()]
        self.sent = {}
        self.number += 1
        self.state = server.open_round(self.state)

    @invariant()
    def both_ends_agree(self):
        for one, chain in zip(self.at.clients, self.chains, strict=False):
            assert self.state.chains.get(one.id, client.Chain()) == chain
        assert {sender for sender, _ in self.state.slots} == {
            self.at.clients[who].id for who in self.sent
        }


TestServer = Server.TestCase
TestServer.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
