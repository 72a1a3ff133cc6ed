"""One member's side of a round, on edges that ``agreement`` made.

    share    fresh secrets b and K, shared among the holders; K wraps the round's mask seeds
    ready    PRG(b) and the edges' masks in sum, which need no input: it may still be computed
    mask     the input plus that, signed
    confirm  the survivor set as this member saw it, for its neighbours
    unmask   shares of b for survivors or of K for those that left, never both

Every step is a function from a state and what arrived to a state and a frame. A state is used up by
its step: going on twice from one state would be two members with one key. What a peer did wrong is
noted in ``refused`` and costs that share only; with too few left, or a server that contradicts
itself, the member stops with an ``EnvelopeError``.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from cryptography.exceptions import InvalidTag

from qoejax.wire import kem
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.secagg import forms, graph, masks, plan, shamir
from qoejax.wire.secagg.agreement import Edge, Epoch, enough
from qoejax.wire.secagg.plan import Plan
from qoejax.wire.secret import Secret

_NONCE = bytes(12)
"""Every AEAD key here seals one message, or one each way."""


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
    """After ``ready`` and ``mask``: the shares held for others, and who takes part."""

    sharing: Sharing
    members: forms.Bits
    held: dict[bytes, tuple[Secret, Secret]]
    refused: dict[bytes, Code]


class Confirming(NamedTuple):
    """After ``confirm``: the one survivor set of this round."""

    masking: Masking
    survivors: forms.Bits
    told: bytes  # the body of SURVIVORS


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
    halves = (shamir.split(secret, xs, facts.threshold) for secret in (blind, wrap))
    pairs = dict(zip(holders, zip(*halves, strict=True), strict=True))
    peers = sorted(set(holders) - {me})  # the order of boxes and seeds in the frame
    keys = {h: round_keys(epoch.edges[h], name) for h in peers}
    boxes = {h: _box(facts, keys[h], (me, h), pairs[h]) for h in peers}
    commits = {h: forms.commit_pair(name, me, h, pairs[h]) for h in holders}
    seeds = b"".join(keys[h].mask.expose() for h in peers)
    body = forms.pack_shares(
        forms.Shares(
            (forms.commit(name, me, me, blind), forms.commit(name, me, me, wrap)),
            commits[me],
            {h: forms.Box(boxes[h], commits[h]) for h in peers},
            plan.aead(facts, wrap).encrypt(_NONCE, seeds, name + me),
        )
    )
    after = epoch._replace(last=facts.round)
    state = Sharing(after, facts, keys, blind, pairs[me], hashlib.sha512(body).digest())
    return after, state, plan.frame(facts, plan.SHARES, me, body)


def round_keys(edge: Edge, name: bytes) -> RoundKeys:
    """Keys of an edge for the round whose plan has that digest; both ends find the same."""
    made = (forms.derive(edge.secret, use, name) for use in (b"mask", b"wrap", b"confirm"))
    return RoundKeys(*made)


def _nonce(owner: bytes, holder: bytes) -> bytes:
    """A wrap key seals two messages, one each way."""
    return _NONCE[:-1] + (b"\0" if owner < holder else b"\1")


def _box(
    facts: Plan, keys: RoundKeys, ends: tuple[bytes, bytes], pair: tuple[Secret, Secret]
) -> bytes:
    text = b"".join(one.expose() for one in pair)
    return plan.aead(facts, keys.wrap).encrypt(_nonce(*ends), text, None)


def ready(
    state: Sharing, members: forms.Bits, boxes: Mapping[bytes, forms.Box]
) -> tuple[Masking, np.ndarray]:
    """What this member now holds of its neighbours' secrets, and the sum [N] of its masks.

    A box that does not open, or not to what its sender committed to, costs its owner that share:
    the edge's mask is used all the same, since the owner cannot know.

    Args:
        state: after ``share``.
        members: who shared secrets in this round, of the directory.
        boxes: those of this member's neighbours that were meant for it.

    Raises:
        EnvelopeError: POLICY with too few neighbours; SENDER for boxes of nobody's.
    """
    facts, epoch = state.plan, state.epoch
    me = epoch.me.id
    present = forms.chosen(members, epoch.directory)
    if me not in present or not set(boxes) <= present & set(epoch.edges):
        raise EnvelopeError(Code.SENDER, "boxes and members of the round contradict each other")
    enough(facts, len(boxes) + 1, "shared secrets")
    held, refused = {me: state.own}, {}
    for peer, box in boxes.items():
        try:
            held[peer] = _open_box(facts, state.keys[peer], (peer, me), box)
        except EnvelopeError as error:
            refused[peer] = error.code
    total = np.zeros(facts.length, masks.WORD)
    pairwise = [(state.keys[peer].mask, forms.sign(me, peer)) for peer in boxes]
    masks.add(total, [(state.blind, 1), *pairwise])
    return Masking(state, members, held, refused), total


def mask(
    state: Masking, total: np.ndarray, words: np.ndarray, make: Callable[..., Any] = plan.signed
) -> Any:
    """The INPUT frame: the input [N] uint32 behind the masks of ``ready``, of which it is made.

    Args:
        state: after ``ready``.
        total: the masks; changed.
        words: the input.
        make: ``make(plan, step, identity, body)`` signs; what it gives is returned.
    """
    facts = state.sharing.plan
    if words.dtype != masks.WORD or words.shape != (facts.length,):
        raise ValueError(f"an input has {facts.length} words of uint32, got {words.shape}")
    np.add(total, words, out=total)
    body = b"".join((state.sharing.sent, total.data))
    return make(facts, plan.INPUT, state.sharing.epoch.me, body)


def _open_box(
    facts: Plan, keys: RoundKeys, ends: tuple[bytes, bytes], box: forms.Box
) -> tuple[Secret, Secret]:
    owner, me = ends
    try:
        text = plan.aead(facts, keys.wrap).decrypt(_nonce(owner, me), box.sealed, None)
    except InvalidTag:
        raise EnvelopeError(Code.DECRYPT, f"client {owner.hex()}: box does not open") from None
    half = shamir.SHARE_SIZE
    pair = (Secret(text[:half]), Secret(text[half:]))
    if forms.commit_pair(plan.digest(facts), owner, me, pair) != box.commits:
        raise EnvelopeError(Code.SPEC, f"client {owner.hex()}: not the share it committed to")
    return pair


def confirm(
    state: Masking,
    survivors: bytes,
    server: bytes,
    verifier: str,
    make: Callable[..., Any] = plan.signed,
) -> tuple[Confirming, Any]:
    """Checks the server's signed survivor set, and says to the neighbours which one it was.

    ``make(plan, step, identity, body)`` signs where the plan asks for evidence; the frame is what
    it gives.

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
    enough(facts, len(present & (set(state.held) | set(state.refused))), "survive")
    keys = state.sharing.keys
    tags = {peer: _tag(keys[peer], epoch.me.id, told) for peer in keys if peer in present}
    body = forms.pack_tags(hashlib.sha256(told).digest(), tags)
    sender = epoch.me
    if not facts.evidence:
        return Confirming(state, alive, told), plan.frame(facts, plan.CONFIRM, sender.id, body)
    return Confirming(state, alive, told), make(facts, plan.CONFIRM, sender, body)


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
        enough(facts, len(same) + 1, "confirmed the survivor set")
    released = {
        owner: (forms.BLIND, pair[0]) if owner in alive else (forms.WRAP, pair[1])
        for owner, pair in masking.held.items()
    }
    return plan.frame(facts, plan.UNMASK, me, forms.pack_released(released))
