"""One member's side: every step is a function from a state and what arrived to a state and a frame.

    join         a fresh KEM key, signed
    encapsulate  the graph; one KEM ciphertext for each clockwise neighbour, signed
    agree        the other half of the edges: an ``Epoch``, good for many rounds
    share        fresh secrets b and K, shared among the holders; K wraps the round's mask seeds
    mask         the input plus PRG(b) and the edges' masks, signed
    confirm      the survivor set as this member saw it, for its neighbours
    unmask       shares of b for survivors or of K for those that left, never both

A state is used up by its step: going on twice from one state would be two members with one key.
What a peer did wrong is noted in ``refused`` and costs that edge or share only; with too few
left, or a server that contradicts itself, the member stops with an ``EnvelopeError``.
"""

import hashlib
import hmac
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from qoejax.wire import kem
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.keys import Identity
from qoejax.wire.secagg import forms, graph, masks, plan, shamir
from qoejax.wire.secagg.forms import Directory
from qoejax.wire.secagg.plan import Plan
from qoejax.wire.secret import Secret

_NONCE = bytes(12)
"""Every AEAD key here seals one message."""


class Joined(NamedTuple):
    """After ``join``: the fresh KEM pair."""

    me: Identity
    plan: Plan
    public: bytes
    secret: Secret


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
    keys: dict[bytes, bytes]
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


class RoundKeys(NamedTuple):
    """What an edge's secret gives for one round: the mask's seed, and keys of boxes and tags."""

    mask: Secret
    wrap: Secret
    confirm: Secret


class Sharing(NamedTuple):
    """After ``share``: the round's keys and secrets, and this member's own shares of them."""

    epoch: Epoch
    plan: Plan
    keys: dict[bytes, RoundKeys]
    blind: Secret
    own: tuple[Secret, Secret]
    sent: bytes  # digest of the SHARES body


class Masking(NamedTuple):
    """After ``mask``: the shares held for others, and who takes part."""

    sharing: Sharing
    members: forms.Bits
    held: dict[bytes, tuple[Secret, Secret]]
    refused: dict[bytes, Code]


class Confirming(NamedTuple):
    """After ``confirm``: the one survivor set of this round."""

    masking: Masking
    survivors: forms.Bits
    told: bytes  # the body of SURVIVORS


def start(opening: bytes, server: bytes, announce: bytes, verifier: str) -> Plan:
    """The plan in an OPEN frame signed by the server's key [1952].

    Raises:
        EnvelopeError: FORMAT, SIGNATURE, ROUND (not of the announcement that this member read).
    """
    found = plan.decode(plan.unsealed(opening))
    plan.verified(found, plan.OPEN, found.server, opening, server, verifier)
    if found.announce != announce:
        raise EnvelopeError(Code.ROUND, "the plan is of another announcement")
    return found


def join(me: Identity, facts: Plan) -> tuple[Joined, bytes]:
    """A fresh X-Wing key pair, and the KEYS frame with its public half."""
    if facts.first != facts.round:
        raise EnvelopeError(Code.ROUND, f"keys of this epoch were agreed in round {facts.first}")
    public, secret = kem.keygen()
    return Joined(me, facts, public, secret), plan.signed(facts, plan.KEYS, me, public)


def encapsulate(
    state: Joined,
    directory: Directory,
    frames: Mapping[bytes, bytes],
    publics: Mapping[bytes, bytes],
    verifier: str,
) -> tuple[Agreeing, bytes, dict[bytes, bytes]]:
    """The graph that everybody's keys fix, and a ciphertext for each clockwise neighbour.

    Args:
        state: after ``join``.
        directory: all members with the digests of their KEM keys.
        frames: KEYS frames of this member's neighbours.
        publics: signature keys [1952] by id, from the registry.
        verifier: name of the ML-DSA implementation.

    Returns:
        The state, the CIPHERTEXTS frame and the ciphertexts [1120] by neighbour.

    Raises:
        EnvelopeError: POLICY for too few members or a plan without sense; SENDER if this member
            is not in the directory as it joined.
    """
    facts, me = state.plan, state.me
    plan.check(facts, len(directory.names))
    if directory.keys.get(me.id) != forms.key_digest(state.public):
        raise EnvelopeError(Code.SENDER, "the directory does not hold this member's own key")
    seed = forms.seed(plan.digest(facts), directory)
    found = graph.build(seed, directory.names, facts.degree)
    keys: dict[bytes, bytes] = {}
    refused: dict[bytes, Code] = {}
    for peer in graph.neighbours(found, me.id):
        try:
            keys[peer] = _key(facts, peer, frames, publics, directory, verifier)
        except EnvelopeError as error:
            refused[peer] = error.code
    edges, sent = {}, {}
    for peer in graph.clockwise(found, me.id):
        if peer in keys:
            enc, shared = kem.encaps(keys[peer])
            ends = ((me.id, state.public), (peer, keys[peer]))
            edges[peer] = Edge(peer, _edge_secret(seed, shared, ends, enc))
            sent[peer] = enc
    body = forms.pack_ciphertexts(seed, sent)
    after = Agreeing(state, directory, found, edges, keys, refused)
    return after, plan.signed(facts, plan.CIPHERTEXTS, me, body), sent


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
    if len(public) != kem.PUBLIC_SIZE or directory.keys[peer] != forms.key_digest(public):
        raise EnvelopeError(Code.SPEC, f"client {peer.hex()}: not the key in the directory")
    return public


def _edge_secret(
    seed: bytes,
    shared: Secret,
    ends: tuple[tuple[bytes, bytes], tuple[bytes, bytes]],
    enc: bytes,
) -> Secret:
    """HKDF-SHA256 (RFC 5869) of a KEM's secret, over seed, ids, keys and ciphertext."""
    (first, first_key), (second, second_key) = ends
    bound = b"".join((seed, first, second, forms.key_digest(first_key)))
    bound += forms.key_digest(second_key) + hashlib.sha256(enc).digest()
    return forms.extract(shared, bound)


def agree(
    state: Agreeing, received: Mapping[bytes, tuple[bytes, bytes]], publics: Mapping[bytes, bytes],
    verifier: str,
) -> Epoch:  # fmt: skip
    """The edges of those who encapsulated to this member; POLICY with too few edges in all.

    Args:
        state: after ``encapsulate``.
        received: CIPHERTEXTS frame and ciphertext by anticlockwise neighbour.
        publics: signature keys [1952] by id.
        verifier: name of the ML-DSA implementation.
    """
    facts, me = state.joined.plan, state.joined.me
    seed = forms.seed(plan.digest(facts), state.directory)
    edges, refused = dict(state.edges), dict(state.refused)
    for peer in graph.anticlockwise(state.graph, me.id):
        if peer not in received or peer not in state.keys:
            continue
        sent, enc = received[peer]
        try:
            body = plan.verified(
                facts, plan.CIPHERTEXTS, peer, sent, publics[peer], verifier
            )  # fmt: skip
            told = forms.unpack_ciphertexts(seed, body)
            if told.get(me.id) != hashlib.sha256(enc).digest():
                raise EnvelopeError(Code.SPEC, f"client {peer.hex()}: not the ciphertext it signed")
            shared = kem.decaps(state.joined.secret, enc)
        except EnvelopeError as error:
            refused[peer] = error.code
            continue
        ends = ((peer, state.keys[peer]), (me.id, state.joined.public))
        edges[peer] = Edge(peer, _edge_secret(seed, shared, ends, enc))
    _enough(facts, len(edges) + 1, "agreed on a key")
    return Epoch(
        me, facts.run, facts.first, facts.degree, facts.threshold, state.directory, state.graph,
        edges, facts.round - 1, refused,
    )  # fmt: skip


def _enough(facts: Plan, found: int, what: str) -> None:
    if found < facts.threshold:
        raise EnvelopeError(
            Code.POLICY, f"{found} of this member's holders {what}: expected {facts.threshold}"
        )


def share(epoch: Epoch, facts: Plan) -> tuple[Epoch, Sharing, bytes]:
    """Fresh secrets of a round: the epoch moves on, so none of its masks can be made again.

    Returns:
        The epoch for later rounds, the state for this one, and the SHARES frame.

    Raises:
        EnvelopeError: ROUND for a round at or before the last one, or a plan of another epoch.
    """
    if facts.round <= epoch.last:
        raise EnvelopeError(
            Code.ROUND, f"round {facts.round}: masks were used up to round {epoch.last}"
        )
    agreed = (epoch.run, epoch.first, epoch.degree, epoch.threshold)
    if (facts.run, facts.first, facts.degree, facts.threshold) != agreed:
        raise EnvelopeError(Code.ROUND, "the plan is of another epoch than the agreed keys")
    plan.check(facts, len(epoch.directory.names))
    name, me = plan.digest(facts), epoch.me.id
    blind, wrap = Secret(kem.random_bytes(32)), Secret(kem.random_bytes(32))
    holders = [h for h in graph.holders(epoch.graph, me) if h == me or h in epoch.edges]
    places = {h: x for x, h in enumerate(graph.holders(epoch.graph, me), 1)}
    xs = [places[h] for h in holders]
    pairs = {
        h: pair
        for h, *pair in zip(
            holders,
            shamir.split(blind, xs, facts.threshold),
            shamir.split(wrap, xs, facts.threshold),
            strict=True,
        )
    }
    peers = sorted(set(holders) - {me})  # the order of boxes and seeds in the frame
    keys = {h: round_keys(epoch.edges[h], name) for h in peers}
    boxes = {h: _box(keys[h], me, h, pairs[h]) for h in peers}
    commits = {h: tuple(forms.commit(name, me, h, one) for one in pairs[h]) for h in holders}
    seeds = b"".join(keys[h].mask.expose() for h in peers)
    body = forms.pack_shares(
        forms.Shares(
            (forms.commit(name, me, me, blind), forms.commit(name, me, me, wrap)),
            commits[me],
            {h: forms.Box(boxes[h], commits[h]) for h in peers},
            AESGCM(wrap.expose()).encrypt(_NONCE, seeds, name + me),
        )
    )
    after = epoch._replace(last=facts.round)
    own = (pairs[me][0], pairs[me][1])
    state = Sharing(after, facts, keys, blind, own, hashlib.sha512(body).digest())
    return after, state, plan.frame(facts, plan.SHARES, me, body)


def round_keys(edge: Edge, name: bytes) -> RoundKeys:
    """Keys of an edge for the round whose plan has that digest; both ends find the same."""
    made = (forms.derive(edge.secret, use, name) for use in (b"mask", b"wrap", b"confirm"))
    return RoundKeys(*made)


def _nonce(owner: bytes, holder: bytes) -> bytes:
    """A wrap key seals two messages, one each way."""
    return _NONCE[:-1] + (b"\0" if owner < holder else b"\1")


def _box(keys: RoundKeys, owner: bytes, holder: bytes, pair: list[Secret]) -> bytes:
    text = b"".join(one.expose() for one in pair)
    return AESGCM(keys.wrap.expose()).encrypt(_nonce(owner, holder), text, None)


def mask(
    state: Sharing, members: forms.Bits, boxes: Mapping[bytes, forms.Box], words: np.ndarray
) -> tuple[Masking, bytes]:
    """The masked input, and what this member now holds of its neighbours' secrets.

    A box that does not open, or not to what its sender committed to, costs its owner that share:
    the edge's mask is used all the same, since the owner cannot know.

    Args:
        state: after ``share``.
        members: who shared secrets in this round, of the directory.
        boxes: those of this member's neighbours that were meant for it.
        words: the input [N] uint32.

    Raises:
        EnvelopeError: POLICY with too few neighbours; SENDER for boxes of nobody's.
    """
    facts, epoch = state.plan, state.epoch
    if words.dtype != masks.WORD or words.shape != (facts.length,):
        raise ValueError(f"an input has {facts.length} words of uint32, got {words.shape}")
    name, me = plan.digest(facts), epoch.me.id
    present = forms.chosen(members, epoch.directory)
    if me not in present or not set(boxes) <= present & set(epoch.edges):
        raise EnvelopeError(Code.SENDER, "boxes and members of the round contradict each other")
    _enough(facts, len(boxes) + 1, "shared secrets")
    held, refused = {me: state.own}, {}
    for peer, box in boxes.items():
        try:
            held[peer] = _open_box(state.keys[peer], name, peer, me, box)
        except EnvelopeError as error:
            refused[peer] = error.code
    masked = words.copy()
    pairwise = [(state.keys[peer].mask, forms.sign(me, peer)) for peer in boxes]
    masks.add(masked, [(state.blind, 1), *pairwise])
    body = state.sent + masked.tobytes()
    after = Masking(state, members, held, refused)
    return after, plan.signed(facts, plan.INPUT, epoch.me, body)


def _open_box(
    keys: RoundKeys, name: bytes, owner: bytes, me: bytes, box: forms.Box
) -> tuple[Secret, Secret]:
    try:
        text = AESGCM(keys.wrap.expose()).decrypt(_nonce(owner, me), box.sealed, None)
    except InvalidTag:
        raise EnvelopeError(Code.DECRYPT, f"client {owner.hex()}: box does not open") from None
    half = shamir.SHARE_SIZE
    pair = (Secret(text[:half]), Secret(text[half:]))
    if tuple(forms.commit(name, owner, me, one) for one in pair) != tuple(box.commits):
        raise EnvelopeError(Code.SPEC, f"client {owner.hex()}: not the share it committed to")
    return pair


def confirm(
    state: Masking, survivors: bytes, server: bytes, verifier: str
) -> tuple[Confirming, bytes]:
    """Checks the server's signed survivor set, and says to the neighbours which one it was.

    Raises:
        EnvelopeError: SIGNATURE; EQUIVOCATION if the members are not those that ``mask`` was told,
            or this member is not among the survivors; POLICY with too few of them.
    """
    facts, epoch = state.sharing.plan, state.sharing.epoch
    told = plan.verified(facts, plan.SURVIVORS, facts.server, survivors, server, verifier)
    members, alive = forms.unpack_sets(told, epoch.directory)
    present = forms.chosen(alive, epoch.directory)
    if members != state.members or not present <= forms.chosen(members, epoch.directory):
        raise EnvelopeError(
            Code.EQUIVOCATION, "survivors are not among the members that were announced before"
        )
    if epoch.me.id not in present:
        raise EnvelopeError(Code.EQUIVOCATION, "this member sent its input and is called dropped")
    if len(present) < facts.least:
        raise EnvelopeError(
            Code.POLICY, f"{len(present)} survivors: expected {facts.least} or more"
        )
    _enough(facts, len(present & (set(state.held) | set(state.refused))), "survive")
    keys = state.sharing.keys
    tags = {peer: _tag(keys[peer], epoch.me.id, told) for peer in keys if peer in present}
    body = forms.pack_tags(hashlib.sha256(told).digest(), tags)
    make = plan.signed if facts.evidence else _unsigned
    return Confirming(state, alive, told), make(facts, plan.CONFIRM, epoch.me, body)


def _unsigned(facts: Plan, step: plan.Step, me: Identity, body: bytes) -> bytes:
    return plan.frame(facts, step, me.id, body)


def _tag(keys: RoundKeys, sender: bytes, told: bytes) -> bytes:
    """HMAC [16] of the survivor set under the edge's key, by one of its two ends."""
    return hmac.digest(keys.confirm.expose(), sender + told, "sha256")[: forms.TAG_SIZE]


def unmask(state: Confirming, tags: Mapping[bytes, bytes]) -> bytes:
    """The UNMASK frame, once enough neighbours confirmed the same survivor set.

    Args:
        state: after ``confirm``; there is no other way in, so one set decides what is released.
        tags: those that neighbours meant for this member.

    Raises:
        EnvelopeError: EQUIVOCATION if neighbours confirmed another set and too few this one;
            POLICY if too few confirmed at all.
    """
    masking = state.masking
    facts, epoch = masking.sharing.plan, masking.sharing.epoch
    keys, me = masking.sharing.keys, epoch.me.id
    alive = forms.chosen(state.survivors, epoch.directory)
    same = [
        peer
        for peer, tag in tags.items()
        if peer in alive
        and peer in keys
        and hmac.compare_digest(tag, _tag(keys[peer], peer, state.told))
    ]
    if len(same) + 1 < facts.threshold:
        if len(tags) > len(same):
            raise EnvelopeError(
                Code.EQUIVOCATION,
                f"{len(tags) - len(same)} neighbours confirmed another survivor set",
            )
        _enough(facts, len(same) + 1, "confirmed the survivor set")
    released = {
        owner: (forms.BLIND, pair[0]) if owner in alive else (forms.WRAP, pair[1])
        for owner, pair in masking.held.items()
    }
    return plan.frame(facts, plan.UNMASK, me, forms.pack_released(released))
