"""One member's side of an epoch's beginning: fresh keys, the graph, and a secret for each edge.

    start        the plan, as the server signed it
    join         a fresh KEM key, signed
    encapsulate  the graph; one KEM ciphertext for each clockwise neighbour, signed
    agree        the other half of the edges: an ``Epoch``, good for many rounds

On an edge one side verifies the other's signature once: who encapsulates, that of the KEM key; who
decapsulates, that of the ciphertexts, which covers the directory and so the sender's own key, since
nobody honest signs a directory without it.

What a peer did wrong is noted in ``refused`` and costs that edge only; with too few left, the
member stops with an ``EnvelopeError``.
"""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from qoejax.wire import kem, suites
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.keys import Identity
from qoejax.wire.secagg import bound, forms, graph, plan
from qoejax.wire.secagg.forms import Directory
from qoejax.wire.secagg.plan import Plan
from qoejax.wire.secret import Secret


class Trust(NamedTuple):
    """What a member takes for granted, whatever the server says.

    ``colluding`` is the share of members that may work with the server; ``active``, whether it may
    choose who leaves (``bound``).
    """

    colluding: float
    active: bool


class Joined(NamedTuple):
    """After ``join``: the fresh KEM pair, and the library that it is of."""

    me: Identity
    plan: Plan
    public: bytes
    secret: Secret
    provider: str


class Edge(NamedTuple):
    """A neighbour and what both ends know: 32 bytes that live for an epoch."""

    peer: bytes
    secret: Secret


class Agreeing(NamedTuple):
    """After ``encapsulate``: the graph, and the edges of this member's own ciphertexts."""

    joined: Joined
    directory: Directory
    graph: graph.Graph
    edges: dict[bytes, Edge]
    refused: dict[bytes, Code]


class Epoch(NamedTuple):
    """Agreed edges. ``last`` is the last round they were used in: rounds only go up."""

    me: Identity
    run: bytes
    first: int
    degree: int
    threshold: int
    directory: Directory
    graph: graph.Graph
    edges: dict[bytes, Edge]
    last: int
    refused: dict[bytes, Code]


def start(opening: bytes, server: bytes, announce: bytes, suite: int, verifier: str) -> Plan:
    """The plan in an OPEN frame signed by the server's key, for a run of ``suite``.

    Raises:
        EnvelopeError: FORMAT, SUITE (not the run's), SIGNATURE, ROUND (not of the announcement
            that this member read).
    """
    found = plan.decode(plan.unsealed(opening, suite))
    if found.suite != suite:
        raise EnvelopeError(
            Code.SUITE, f"suite {found.suite:#06x}, this run uses {suite:#06x} and no other"
        )
    plan.verified(found, plan.OPEN, found.server, opening, server, verifier)
    if found.announce != announce:
        raise EnvelopeError(Code.ROUND, "the plan is of another announcement")
    return found


def _hybrid(facts: Plan, provider: str) -> tuple[str, str]:
    """The KEM of the run's suite, and who computes it."""
    chosen = plan.suite_of(facts.suite)
    return chosen.kem, suites.kem_provider(chosen, provider)


def join(me: Identity, facts: Plan, provider: str = "pqcrypto") -> tuple[Joined, bytes]:
    """A fresh KEM key pair of the suite, and the KEYS frame with its public half."""
    if facts.first != facts.round:
        raise EnvelopeError(Code.ROUND, f"keys of this epoch were agreed in round {facts.first}")
    public, secret = kem.keygen(*_hybrid(facts, provider))
    return Joined(me, facts, public, secret, provider), plan.signed(facts, plan.KEYS, me, public)


def encapsulate(
    state: Joined,
    directory: Directory,
    frames: Mapping[bytes, bytes],
    publics: Mapping[bytes, bytes],
    verifier: str,
    trust: Trust | None = None,
) -> tuple[Agreeing, bytes, dict[bytes, bytes]]:
    """The graph that everybody's keys fix, and a ciphertext for each clockwise neighbour.

    Args:
        state: after ``join``.
        directory: all members with the digests of their KEM keys.
        frames: KEYS frames of this member's clockwise neighbours.
        publics: signature keys by id, from the registry.
        verifier: name of the ML-DSA implementation.
        trust: under which degree and threshold must keep the sum together but for a chance of
            2**-40; None takes the server's word for them.

    Returns:
        The state, the CIPHERTEXTS frame and the ciphertexts by neighbour.

    Raises:
        EnvelopeError: POLICY for too few members or a plan without sense; SENDER if this member
            is not in the directory as it joined.
    """
    facts, me = state.plan, state.me
    plan.check(facts, len(directory.names))
    if trust is not None:
        _check_risk(facts, len(directory.names), trust)
    if directory.keys.get(me.id) != forms.key_digest(state.public):
        raise EnvelopeError(Code.SENDER, "the directory does not hold this member's own key")
    seed = forms.seed(plan.digest(facts), directory)
    found = graph.build(seed, directory.names, facts.degree)
    edges, sent = {}, {}
    refused: dict[bytes, Code] = {}
    for peer in graph.clockwise(found, me.id):
        try:
            public = _key(facts, peer, frames, publics, directory, verifier)
        except EnvelopeError as error:
            refused[peer] = error.code
            continue
        enc, shared = kem.encaps(public, *_hybrid(facts, state.provider))
        edges[peer] = Edge(peer, _edge_secret(seed, shared, directory, (me.id, peer), enc))
        sent[peer] = enc
    body = forms.pack_ciphertexts(seed, sent)
    after = Agreeing(state, directory, found, edges, refused)
    return after, plan.signed(facts, plan.CIPHERTEXTS, me, body), sent


def _check_risk(facts: Plan, members: int, trust: Trust) -> None:
    corrupt, left = int(trust.colluding * members), members - facts.least
    degree = min(facts.degree, members - 1)
    risk = bound.privacy(members, degree, facts.threshold, corrupt, left, trust.active)
    if risk > bound.PRIVATE:
        raise EnvelopeError(
            Code.POLICY,
            f"degree {facts.degree} and threshold {facts.threshold} for {members} members, "
            f"{corrupt} of them corrupt: more than their sum is open with chance {risk:.1e}",
        )


def _key(
    facts: Plan,
    peer: bytes,
    frames: Mapping[bytes, bytes],
    publics: Mapping[bytes, bytes],
    directory: Directory,
    verifier: str,
) -> bytes:
    """A neighbour's KEM key, if it signed it and it is the one in the directory."""
    if peer not in publics or peer not in frames:
        raise EnvelopeError(Code.SENDER, f"client {peer.hex()} is unknown or sent no key")
    public = plan.verified(facts, plan.KEYS, peer, frames[peer], publics[peer], verifier)
    size = kem.public_size(plan.suite_of(facts.suite).kem)
    if len(public) != size or directory.keys[peer] != forms.key_digest(public):
        raise EnvelopeError(Code.SPEC, f"client {peer.hex()}: not the key in the directory")
    return public


def _edge_secret(
    seed: bytes, shared: Secret, directory: Directory, ends: tuple[bytes, bytes], enc: bytes
) -> Secret:
    """HKDF-SHA256 (RFC 5869) of a KEM's secret, over seed, ids, key digests and ciphertext."""
    digests = [directory.keys[end] for end in ends]
    bound = b"".join((seed, *ends, *digests, hashlib.sha256(enc).digest()))
    return forms.extract(shared, bound)


def agree(
    state: Agreeing, received: Mapping[bytes, tuple[bytes, bytes]], publics: Mapping[bytes, bytes],
    verifier: str,
) -> Epoch:  # fmt: skip
    """The edges of those who encapsulated to this member; POLICY with too few edges in all.

    Args:
        state: after ``encapsulate``.
        received: CIPHERTEXTS frame and ciphertext by anticlockwise neighbour.
        publics: signature keys by id.
        verifier: name of the ML-DSA implementation.
    """
    facts, me = state.joined.plan, state.joined.me
    seed = forms.seed(plan.digest(facts), state.directory)
    edges, refused = dict(state.edges), dict(state.refused)
    opened = kem.opener(state.joined.secret, *_hybrid(facts, state.joined.provider))
    for peer in graph.anticlockwise(state.graph, me.id):
        if peer not in received or peer not in publics:
            continue
        sent, enc = received[peer]
        try:
            body = plan.verified(
                facts, plan.CIPHERTEXTS, peer, sent, publics[peer], verifier
            )  # fmt: skip
            told = forms.unpack_ciphertexts(seed, body)
            if told.get(me.id) != hashlib.sha256(enc).digest():
                raise EnvelopeError(Code.SPEC, f"client {peer.hex()}: not the ciphertext it signed")
            shared = opened(enc)
        except EnvelopeError as error:
            refused[peer] = error.code
            continue
        edges[peer] = Edge(peer, _edge_secret(seed, shared, state.directory, (peer, me.id), enc))
    enough(facts, len(edges) + 1, "agreed on a key")
    return Epoch(
        me, facts.run, facts.first, facts.degree, facts.threshold, state.directory, state.graph,
        edges, facts.round - 1, refused,
    )  # fmt: skip


def enough(facts: Plan, found: int, what: str) -> None:
    """POLICY with fewer than the threshold of a member's holders, itself among them."""
    if found < facts.threshold:
        raise EnvelopeError(
            Code.POLICY, f"{found} of this member's holders {what}: expected {facts.threshold}"
        )
