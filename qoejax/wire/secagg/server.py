"""The server's side: it relays what members say to each other, and opens one sum.

    open_round   the signed plan
    directory    all KEM keys that came, signed by their members
    collected    SHARES of a round, and what each member is given of them
    inputs       masked inputs, of which the accepted ones make the survivors
    survivors    the signed survivor set
    total        the sum of the survivors' inputs

Everything is checked before it is relayed or counted; a frame that fails raises an
``EnvelopeError`` and its sender counts as one that left.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from cryptography.exceptions import InvalidTag

from qoejax.wire import kem
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.keys import Identity
from qoejax.wire.secagg import forms, graph, masks, plan, shamir
from qoejax.wire.secagg.forms import Directory, Shares
from qoejax.wire.secagg.plan import Plan
from qoejax.wire.secret import Secret

_NONCE = bytes(12)


class Members(NamedTuple):
    """Who agreed on keys in an epoch, and the graph that they stand in."""

    directory: Directory
    graph: graph.Graph


def open_round(me: Identity, facts: Plan) -> bytes:
    """The OPEN frame: the plan, signed."""
    return plan.signed(facts, plan.OPEN, me, plan.encode(facts))


def key(facts: Plan, sender: bytes, data: bytes, public: bytes, verifier: str) -> bytes:
    """The KEM key in a KEYS frame; SIZE, ROUND or SIGNATURE says why there is none."""
    found = plan.verified(facts, plan.KEYS, sender, data, public, verifier)
    if len(found) != kem.public_size(plan.suite_of(facts.suite).kem):
        raise EnvelopeError(Code.SIZE, f"client {sender.hex()}: a KEM key of {len(found)} bytes")
    return found


def members(facts: Plan, keys: Mapping[bytes, bytes]) -> Members:
    """Directory and graph of all whose keys came; POLICY if they are too few for the plan."""
    plan.check(facts, len(keys))
    found = forms.directory(keys)
    seed = forms.seed(plan.digest(facts), found)
    return Members(found, graph.build(seed, found.names, facts.degree))


def ciphertexts(
    facts: Plan,
    group: Members,
    sender: bytes,
    data: bytes,
    sent: Mapping[bytes, bytes],
    public: bytes,
    verifier: str,
) -> None:
    """Checks a member's ciphertexts against its signed list; SPEC for one that is not on it."""
    body = plan.verified(facts, plan.CIPHERTEXTS, sender, data, public, verifier)
    told = forms.unpack_ciphertexts(forms.seed(plan.digest(facts), group.directory), body)
    digests = {peer: hashlib.sha256(enc).digest() for peer, enc in sent.items()}
    if told != digests or not set(told) <= set(graph.clockwise(group.graph, sender)):
        raise EnvelopeError(Code.SPEC, f"client {sender.hex()}: not the ciphertexts it signed")


def shares(facts: Plan, group: Members, sender: bytes, data: bytes) -> Shares:
    """A member's SHARES; SPEC for boxes to members that are not its neighbours.

    Not signed: the signature of its input covers them, and what they hold is checked by its
    holders. Changed on the way, they cost the round that member, as losing them would.
    """
    if sender not in group.graph.position:
        raise EnvelopeError(Code.SENDER, f"client {sender.hex()} is no member of this epoch")
    found = forms.unpack_shares(plan.read(facts, plan.SHARES, sender, data))
    if not set(found.boxes) <= set(graph.neighbours(group.graph, sender)):
        raise EnvelopeError(Code.SPEC, f"client {sender.hex()}: boxes for other than neighbours")
    return found


class Collected(NamedTuple):
    """The SHARES of a round by sender, their digests, and who sent any."""

    group: Members
    shares: dict[bytes, Shares]
    digests: dict[bytes, bytes]
    bits: forms.Bits


def collected(facts: Plan, group: Members, frames: Mapping[bytes, bytes]) -> Collected:
    """Closes the step; POLICY with fewer members than the plan's least."""
    found = {sender: shares(facts, group, sender, data) for sender, data in frames.items()}
    if len(found) < facts.least:
        raise EnvelopeError(Code.POLICY, f"{len(found)} members: expected {facts.least} or more")
    digests = {
        sender: hashlib.sha512(plan.read(facts, plan.SHARES, sender, data)).digest()
        for sender, data in frames.items()
    }
    return Collected(group, found, digests, forms.bits(found, group.directory))


def boxes(state: Collected, member: bytes) -> dict[bytes, forms.Box]:
    """What a member is given: the boxes for it, of those that it made a box for too."""
    own = state.shares[member].boxes
    return {
        peer: state.shares[peer].boxes[member]
        for peer in own
        if peer in state.shares and member in state.shares[peer].boxes
    }


def masked(
    facts: Plan, state: Collected, sender: bytes, data: bytes, public: bytes, verifier: str
) -> np.ndarray:
    """A member's masked input [N]; ROUND, SIGNATURE, SIZE or SPEC says why it does not count."""
    if sender not in state.shares:
        raise EnvelopeError(Code.SENDER, f"client {sender.hex()} shared no secrets in this round")
    body = plan.verified(facts, plan.INPUT, sender, data, public, verifier)
    size = hashlib.sha512().digest_size
    if len(body) != size + 4 * facts.length:
        raise EnvelopeError(Code.SIZE, f"client {sender.hex()}: an input of another length")
    if body[:size] != state.digests[sender]:
        raise EnvelopeError(Code.SPEC, f"client {sender.hex()}: signed other shares than it sent")
    return np.frombuffer(body, masks.WORD, offset=size)


def survivors(
    me: Identity, facts: Plan, state: Collected, alive: Iterable[bytes]
) -> tuple[bytes, bytes]:
    """The signed SURVIVORS frame and its body; POLICY with too few of them."""
    alive = set(alive)
    if len(alive) < facts.least:
        raise EnvelopeError(Code.POLICY, f"{len(alive)} survivors: expected {facts.least} or more")
    body = forms.pack_sets(state.bits, forms.bits(alive, state.group.directory))
    return plan.signed(facts, plan.SURVIVORS, me, body), body


def confirmation(
    facts: Plan, told: bytes, sender: bytes, data: bytes, public: bytes, verifier: str
) -> dict[bytes, bytes]:
    """Tags of a CONFIRM frame by recipient; EQUIVOCATION if it confirms another set."""
    if facts.evidence:
        body = plan.verified(facts, plan.CONFIRM, sender, data, public, verifier)
    else:
        body = plan.read(facts, plan.CONFIRM, sender, data)
    digest, tags = forms.unpack_tags(body)
    if digest != hashlib.sha256(told).digest():
        raise EnvelopeError(
            Code.EQUIVOCATION, f"client {sender.hex()}: confirms another survivor set"
        )
    return tags


def released(
    facts: Plan, state: Collected, alive: set[bytes], sender: bytes, data: bytes
) -> dict[bytes, Secret]:
    """Shares by owner that a member released.

    Raises:
        EnvelopeError: POLICY for a share of the wrong secret: one member's b and K are never both
            taken; SPEC for one that is not what its owner committed to, or of nobody's.
    """
    body = plan.read(facts, plan.UNMASK, sender, data)
    name, found = plan.digest(facts), {}
    for owner, (kind, value) in forms.unpack_released(body).items():
        if owner not in state.shares:
            raise EnvelopeError(Code.SPEC, f"client {sender.hex()}: a share of nobody's secret")
        wanted = forms.BLIND if owner in alive else forms.WRAP
        if kind != wanted:
            raise EnvelopeError(
                Code.POLICY, f"client {sender.hex()}: the wrong secret of {owner.hex()}"
            )
        sent = state.shares[owner]
        box = sent.boxes.get(sender)
        pair = sent.own if owner == sender else None if box is None else box.commits
        one = Secret(value)
        if pair is None or forms.commit(name, owner, sender, one) != pair[kind]:
            raise EnvelopeError(
                Code.SPEC, f"client {sender.hex()}: not the share that {owner.hex()} committed to"
            )
        found[owner] = one
    return found


def total(
    facts: Plan,
    state: Collected,
    inputs: Mapping[bytes, np.ndarray],
    given: Mapping[bytes, Mapping[bytes, Secret]],
) -> np.ndarray:
    """The sum [N] of the survivors' inputs modulo 2**32, exactly.

    Args:
        facts: the plan.
        state: all that shared secrets.
        inputs: the survivors' masked inputs.
        given: what ``released`` found, by sender.

    Raises:
        EnvelopeError: POLICY if some secret has too few shares; FORMAT or SPEC, naming the owner,
            if its own shares were not of the secret it committed to.
    """
    out = np.zeros(facts.length, np.uint32)
    for vector in inputs.values():
        np.add(out, vector, out=out)
    for owner in state.shares:
        secret = _opened(facts, state, owner, owner in inputs, given)
        if owner in inputs:
            masks.add(out, [(secret, -1)])
        else:
            masks.add(out, _left(facts, state, owner, secret, inputs))
    return out


def _opened(
    facts: Plan,
    state: Collected,
    owner: bytes,
    survived: bool,
    given: Mapping[bytes, Mapping[bytes, Secret]],
) -> Secret:
    """The opened b or K of a member, from its holders."""
    places = graph.holders(state.group.graph, owner)
    found = {
        x: given[holder][owner].expose()
        for x, holder in enumerate(places, 1)
        if holder in given and owner in given[holder]
    }
    try:
        secret = shamir.combine(found, facts.threshold)
    except EnvelopeError as error:
        raise EnvelopeError(error.code, f"client {owner.hex()}: {error.args[0]}") from None
    wanted = state.shares[owner].secrets[forms.BLIND if survived else forms.WRAP]
    if forms.commit(plan.digest(facts), owner, owner, secret) != wanted:
        raise EnvelopeError(Code.SPEC, f"client {owner.hex()} shared another secret than it said")
    return secret


def _left(
    facts: Plan,
    state: Collected,
    owner: bytes,
    wrap: Secret,
    inputs: Mapping[bytes, np.ndarray],
) -> list[tuple[Secret, int]]:
    """What takes away the masks that survivors share with a member that left."""
    sent = state.shares[owner]
    name = plan.digest(facts)
    try:
        seeds = plan.aead(facts, wrap).decrypt(_NONCE, sent.seeds, name + owner)
    except InvalidTag:
        raise EnvelopeError(Code.DECRYPT, f"client {owner.hex()}: its seeds do not open") from None
    size = forms.SEED_SIZE
    terms = []
    for at, peer in enumerate(sorted(sent.boxes)):
        if peer in inputs and owner in state.shares[peer].boxes:
            terms.append((Secret(seeds[at * size : (at + 1) * size]), forms.sign(owner, peer)))
    return terms
