"""All members and the server of a round in one process, with members that leave at any step.

Every message is made, checked and counted as between machines; only the network is missing. This is
what simulated runs, tests and measurements drive; a deployment calls ``agreement``, ``client`` and
``server``.

``begin`` does all that needs no input, masks included, so it can go on beside whatever computes the
inputs; ``finish`` adds, sends and opens. Between them are held 4 N bytes for each member, and a few
hundred for each of its neighbours; in ``finish`` a masked input takes the place of the masks.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from qoejax.wire import envelope, kem, sign
from qoejax.wire.errors import EnvelopeError
from qoejax.wire.keys import ID_SIZE, Identity
from qoejax.wire.secagg import agreement, client, forms, graph, server, shamir
from qoejax.wire.secagg.attendance import Round, Tamper
from qoejax.wire.secagg.plan import Plan, Signing, suite_of


class Epoch(NamedTuple):
    """The members' agreed edges, and the server's view of them."""

    members: dict[bytes, agreement.Epoch]
    group: server.Members


class Outcome(NamedTuple):
    """What came of a round.

    Attributes:
        total: the sum [N] of the survivors' inputs modulo 2**32.
        survivors: ids of those whose inputs are in it.
        refused: by id, why a member's frame was refused or the member itself stopped.
        up: bytes from each member.
        down: bytes to each member.
        seconds: CPU seconds by member; the server's own under ``b""``.
        steps: CPU seconds of all members by step: start, join, encapsulate, agree (of an epoch's
            first round), share, ready, mask, confirm, unmask.
        told: the signed SURVIVORS frame, for a log.
        confirmed: accepted CONFIRM frames by member: where signed, evidence of what it was told.
        epoch: for later rounds of the epoch.
    """

    total: np.ndarray
    survivors: tuple[bytes, ...]
    refused: dict[bytes, EnvelopeError]
    up: dict[bytes, int]
    down: dict[bytes, int]
    seconds: dict[bytes, float]
    steps: dict[str, float]
    told: bytes
    confirmed: dict[bytes, bytes]
    epoch: Epoch


def upload(
    degree: int,
    length: int,
    *,
    fresh: bool = True,
    evidence: bool = True,
    suite: int = envelope.DEFAULT,
) -> int:
    """Bytes that a member sends in a round with all its neighbours there, input included.

    In a first round (``fresh``) of an even degree; later rounds of an epoch agree on nothing.
    """
    chosen = suite_of(suite)
    front, signature = envelope.HEADER_SIZE, sign.SIZES[chosen.scheme][1]
    shares = front + 4 * forms.COMMIT_SIZE + 2 + 16 + degree * (forms.RECORD_SIZE + forms.SEED_SIZE)
    masked = front + 64 + 4 * length + signature
    confirm = front + forms.DIGEST_SIZE + degree * (ID_SIZE + forms.TAG_SIZE)
    confirm += signature if evidence else 0
    unmask = front + (degree + 1) * (ID_SIZE + 1 + shamir.SHARE_SIZE)
    total = shares + masked + confirm + unmask
    if fresh:
        keys = front + kem.public_size(chosen.kem) + signature
        listed = ID_SIZE + forms.DIGEST_SIZE + chosen.enc_size
        total += keys + front + forms.DIGEST_SIZE + degree // 2 * listed + signature
    return total


def _agree(rnd: Round) -> Epoch:
    """Keys and ciphertexts: the first two steps of an epoch's first round."""
    facts, verifier = rnd.facts, rnd.verifier
    joined, frames, keys = {}, {}, {}
    for name, one in rnd.members.items():
        if rnd.there(name, "keys") and (
            made := rnd.member(name, agreement.join, one, facts, rnd.provider)
        ):
            joined[name], frame = made
            frames[name] = rnd.sent("keys", name, frame)
            found = rnd.server(
                name, server.key, facts, name, frames[name], rnd.publics[name], verifier
            )
            if found is not None:
                keys[name] = found
    with rnd.clock(""):
        group = server.members(facts, keys)
    agreeing, sent = _ciphertexts(rnd, group, joined, frames)
    epochs = {}
    for name in agreeing:
        received = {
            peer: (sent[peer][0], sent[peer][1][name])
            for peer in graph.anticlockwise(group.graph, name)
            if peer in sent and name in sent[peer][1]
        }
        rnd.down[name] += sum(len(a) + len(b) for a, b in received.values())
        made = rnd.member(name, agreement.agree, agreeing[name], received, rnd.publics, verifier)
        if made is not None:
            epochs[name] = made
    return Epoch(epochs, group)


def _ciphertexts(
    rnd: Round,
    group: server.Members,
    joined: Mapping[bytes, agreement.Joined],
    frames: Mapping[bytes, bytes],
) -> tuple[dict[bytes, agreement.Agreeing], dict[bytes, tuple[bytes, dict[bytes, bytes]]]]:
    """Every member encapsulates; the frames and ciphertexts that the server accepts."""
    agreeing, sent = {}, {}
    for name in group.directory.names:
        if not rnd.there(name, "ciphertexts"):
            continue
        near = {peer: frames[peer] for peer in graph.clockwise(group.graph, name)}
        rnd.down[name] += sum(map(len, near.values()))
        rnd.down[name] += len(group.directory.names) * (len(name) + forms.DIGEST_SIZE)
        made = rnd.member(
            name, agreement.encapsulate, joined[name], group.directory, near, rnd.publics,
            rnd.verifier, rnd.trust,
        )  # fmt: skip
        if made is None:
            continue
        agreeing[name], frame, encs = made
        frame = rnd.sent("ciphertexts", name, frame, sum(map(len, encs.values())))
        rnd.server(
            name, server.ciphertexts, rnd.facts, group, name, frame, encs, rnd.publics[name],
            rnd.verifier,
        )  # fmt: skip
        if name not in rnd.refused:
            sent[name] = (frame, encs)
    return agreeing, sent


class Begun(NamedTuple):
    """A round whose members have their masks and wait for their inputs; used up once."""

    round: Round
    group: server.Members
    epochs: dict[bytes, agreement.Epoch]
    collected: server.Collected
    ready: dict[bytes, tuple[client.Masking, np.ndarray]]


def run(
    me: Identity,
    facts: Plan,
    members: Mapping[bytes, Identity],
    inputs: Mapping[bytes, np.ndarray],
    **options: Any,
) -> Outcome:
    """One round from the plan to the sum: ``begin`` with its ``options``, and ``finish``."""
    return finish(begin(me, facts, members, **options), inputs)


def begin(
    me: Identity,
    facts: Plan,
    members: Mapping[bytes, Identity],
    *,
    epoch: Epoch | None = None,
    verifier: str = "openssl",
    leaves: Mapping[bytes, str] | None = None,
    tamper: Tamper | None = None,
    trust: agreement.Trust | None = None,
    provider: str = "pqcrypto",
) -> Begun:
    """A round from the plan to the members' masks, none of which depends on an input.

    Args:
        me: the server.
        facts: the plan.
        members: identities of those asked, by id.
        epoch: agreed edges, if this is not the epoch's first round.
        verifier: name of the ML-DSA implementation.
        leaves: step of ``STEPS`` at which a member leaves.
        tamper: stands for the network.
        trust: what members assume, see ``agreement.encapsulate``.
        provider: library of the KEM, where it has it.

    Raises:
        EnvelopeError: POLICY if too few are left to go on.
    """
    rnd = Round(me, facts, members, verifier, leaves or {}, tamper, trust, provider)
    with rnd.clock(""):
        opening = server.open_round(me, facts)
    for name in members:
        rnd.down[name] += len(opening)
        expected = (me.public, facts.announce, facts.suite)
        rnd.member(name, agreement.start, opening, *expected, verifier)
    epoch = _agree(rnd) if epoch is None else epoch
    epochs = dict(epoch.members)
    state, sharing = _shares(rnd, epoch.group, epochs)
    return Begun(rnd, epoch.group, epochs, state, _ready(rnd, state, sharing))


def finish(
    begun: Begun,
    inputs: Mapping[bytes, np.ndarray],
    leaves: Mapping[bytes, str] | None = None,
    signing: Signing | None = None,
) -> Outcome:
    """The rest of a round: masked inputs, the survivor set, and their sum.

    Args:
        begun: what ``begin`` made of this round.
        inputs: what each would send, [N] uint32.
        leaves: members of whom it turned out since that they leave, and at which step.
        signing: who signs for the members from here on, beside this thread; they do, without.

    Raises:
        EnvelopeError: POLICY if too few are left to go on; SPEC or FORMAT naming a member whose
            secret does not open. Nobody's input is then known to anybody.
    """
    rnd, group, epochs, state, ready = begun
    facts = rnd.facts
    rnd.leaves = {**rnd.leaves, **(leaves or {})}
    rnd.signing = signing
    masking, arrived = _inputs(rnd, state, ready, inputs)
    with rnd.clock(""):
        told, body = server.survivors(rnd.me, facts, state, arrived)
    given, confirmed = _unmask(rnd, state, masking, set(arrived), told, body)
    with rnd.clock(""):
        total = server.total(facts, state, arrived, given)
    seconds = {bytes.fromhex(k): v for k, v in rnd.clock.seconds.items()}
    return Outcome(
        total, tuple(sorted(arrived)), rnd.refused, rnd.up, rnd.down, seconds, rnd.steps.seconds,
        told, confirmed, Epoch(epochs, group),
    )  # fmt: skip


def _shares(
    rnd: Round, group: server.Members, epochs: dict[bytes, agreement.Epoch]
) -> tuple[server.Collected, dict[bytes, client.Sharing]]:
    sharing, frames = {}, {}
    for name in list(epochs):
        if name not in rnd.members or not rnd.there(name, "shares"):
            continue
        made = rnd.member(name, client.share, epochs[name], rnd.facts)
        if made is None:
            continue
        epochs[name], state, frame = made
        frame = rnd.sent("shares", name, frame)
        if rnd.server(name, server.shares, rnd.facts, group, name, frame) is not None:
            sharing[name], frames[name] = state, frame
    with rnd.clock(""):
        return server.collected(rnd.facts, group, frames), sharing


def _ready(
    rnd: Round, state: server.Collected, sharing: Mapping[bytes, client.Sharing]
) -> dict[bytes, tuple[client.Masking, np.ndarray]]:
    ready = {}
    for name in sharing:
        if not rnd.there(name, "input"):
            continue
        boxes = server.boxes(state, name)
        size = forms.BOX_SIZE + 2 * forms.COMMIT_SIZE + len(name)
        rnd.down[name] += len(boxes) * size + len(state.bits)
        made = rnd.member(name, client.ready, sharing[name], state.bits, boxes)
        if made is not None:
            ready[name] = made
    return ready


def _inputs(
    rnd: Round,
    state: server.Collected,
    ready: dict[bytes, tuple[client.Masking, np.ndarray]],
    inputs: Mapping[bytes, np.ndarray],
) -> tuple[dict[bytes, client.Masking], dict[bytes, np.ndarray]]:
    masking, frames, arrived = {}, {}, {}
    for name in list(ready):
        after, total = ready.pop(name)  # its masks are used up
        if not rnd.there(name, "input"):
            continue
        frame = rnd.member(name, client.mask, after, total, inputs[name], rnd.make)
        if frame is not None:
            masking[name], frames[name] = after, frame
    for name in list(frames):
        frame = rnd.made(name, client.mask, frames.pop(name))
        if frame is None:
            continue
        frame = rnd.sent("input", name, frame)
        vector = rnd.server(
            name, server.masked, rnd.facts, state, name, frame, rnd.publics[name], rnd.verifier
        )
        if vector is not None:
            arrived[name] = vector
    return {name: masking[name] for name in arrived}, arrived


def _unmask(
    rnd: Round,
    state: server.Collected,
    masking: Mapping[bytes, client.Masking],
    alive: set[bytes],
    told: bytes,
    body: bytes,
) -> tuple[dict[bytes, dict], dict[bytes, bytes]]:
    """Confirmations, then shares; by sender."""
    confirming, frames, tags, confirmed = {}, {}, {}, {}
    for name in masking:
        rnd.down[name] += len(told)
        if not rnd.there(name, "confirm"):
            continue
        made = rnd.member(
            name, client.confirm, masking[name], told, rnd.me.public, rnd.verifier, rnd.make
        )
        if made is not None:
            confirming[name], frames[name] = made
    for name, waiting in frames.items():
        frame = rnd.made(name, client.confirm, waiting)
        if frame is None:
            continue
        frame = rnd.sent("confirm", name, frame)
        found = rnd.server(
            name, server.confirmation, rnd.facts, body, name, frame, rnd.publics[name], rnd.verifier
        )
        if found is not None:
            tags[name], confirmed[name] = found, frame
    given = {}
    for name in confirming:
        if not rnd.there(name, "unmask"):
            continue
        mine = {peer: told[name] for peer, told in tags.items() if name in told}
        rnd.down[name] += len(mine) * (len(name) + forms.TAG_SIZE)
        frame = rnd.member(name, client.unmask, confirming[name], mine)
        if frame is None:
            continue
        frame = rnd.sent("unmask", name, frame)
        found = rnd.server(name, server.released, rnd.facts, state, alive, name, frame)
        if found is not None:
            given[name] = found
    return given, confirmed
