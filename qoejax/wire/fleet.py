"""The simulated clients of a run: who they are, and where each stands with the server."""

import numpy as np

from qoejax.wire import broadcast, client, closing, keys, session
from qoejax.wire.announce import Announced
from qoejax.wire.envelope import Exports, Header, Opened, Sealed
from qoejax.wire.secret import Secret


class Fleet:
    """Chains, sessions and reply keys of clients 0 to N-1, each as that client alone holds them.

    Attributes:
        ids: the clients' identities.
        in_sessions: whether a HELLO begins a session, or only gives a reply key.
        index: number of a client by its id.
        chains: where each client's messages stand.
        entries: what the registry says of each client.
        sessions: open session of each client that has one.
        replies: reply key of each client that has one.
    """

    def __init__(
        self,
        identities: tuple[keys.Identity, ...],
        registry: keys.Registry,
        in_sessions: bool = False,
    ):
        self.ids = identities
        self.entries = [registry.entries[one.id] for one in identities]
        self.in_sessions = in_sessions
        self.index = {identity.id: i for i, identity in enumerate(identities)}
        self.chains = [client.Chain() for _ in identities]
        self.sessions: dict[int, session.Session] = {}
        self.replies: dict[int, Secret] = {}

    def must_greet(self, index: int, told: Announced, now: int) -> bool:
        """Whether a client says HELLO before it can take part."""
        rounds, number = told.announce.caps.session, told.announce.round
        over = rounds > 0 and session.over(self.sessions.get(index), rounds, number, now)
        return over or (told.sealed and index not in self.replies)

    def hello(self, index: int, told: Announced) -> tuple[Header, bytes]:
        """Header and payload of a HELLO."""
        one = self.entries[index]
        header = client.hello_header(told, one.id, one.epoch, self.chains[index])
        return header, session.statement(self.sessions.get(index))

    def update(
        self, index: int, told: Announced, n_samples: int, payload_len: int
    ) -> tuple[Header, Secret | None]:
        """Header of an UPDATE, and its message key if the client is in a session.

        The key is taken: the client cannot seal a second message with it.
        """
        chain, one = self.chains[index], self.entries[index]
        header = client.update_header(told, one.id, one.epoch, chain, n_samples, payload_len)
        if index not in self.sessions:
            return header, None
        key, self.sessions[index] = session.take(self.sessions[index])
        self.chains[index] = chain._replace(seq=chain.seq + 1)
        return client.in_session(header), key

    def close(self, index: int, run: bytes, suite: int, server: bytes) -> tuple[Header, bytes]:
        """Header and payload of the CLOSE of a client's session, which ends with it."""
        header = closing.header(run, suite, server, self.entries[index], self.chains[index])
        return header, session.statement(self.sessions.pop(index))

    def accepted(self, sealed: Sealed, opened: Opened, own: Exports | None, now: int) -> None:
        """The server's acknowledgement reaches its sender.

        It names a transcript: a client whose clone was quicker stays behind, and its next message
        is refused.
        """
        if sealed.transcript != opened.transcript:
            return
        header = opened.header
        who = self.index[header.sender]
        self.chains[who] = client.Chain(header.seq + 1, sealed.transcript[:32])
        if client.is_in_session(header):
            self.sessions[who] = session.accept(self.sessions[who], sealed.transcript)
        if own is not None:
            self.replies[who] = own.reply
            if self.in_sessions and client.is_hello(header):
                self.sessions[who] = session.begin(own.session, header, now)

    def granted(self, index: int, told: Announced, grant: bytes) -> Secret:
        """The model's key, as a client unwraps it."""
        return broadcast.accept(self.replies[index], told.digest, grant)

    def state(self) -> dict[str, np.ndarray]:
        """Chains as arrays; sessions and reply keys are not kept, so that they are forgotten."""
        prev = [np.frombuffer(chain.prev, np.uint8) for chain in self.chains]
        return {
            "seq": np.array([chain.seq for chain in self.chains], np.uint32),
            "prev": np.stack(prev),
        }

    def restore(self, state: dict[str, np.ndarray]) -> dict[bytes, client.Chain]:
        """Takes up saved chains; they are also what the server knows, by id."""
        self.chains = [
            client.Chain(int(seq), prev.tobytes())
            for seq, prev in zip(state["seq"], state["prev"], strict=True)
        ]
        return {one.id: chain for one, chain in zip(self.ids, self.chains, strict=True)}
