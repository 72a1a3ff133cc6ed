"""The receiver's side: checks in a fixed order, cheap first, over a state that can be saved.

    exact length > magic, version, type, suite > run, round, announcement > sender > seq, prev
    > session > decrypt > signature > digests > leaves finite, caps

``precheck``, ``opening_key`` and ``commit`` read a ``State``, the last returns the next, and all
belong to one thread. ``inspect`` is stateless and costs nearly all the time, so it may run anywhere
and many at once; ``commit`` repeats the check of the slot, so the outcome is that of opening one
envelope after the other.
"""

import hashlib
from typing import Literal, NamedTuple

import numpy as np

from qoejax.wire import codec, envelope, keys, session, sign
from qoejax.wire.announce import Announce, Announced
from qoejax.wire.client import Chain
from qoejax.wire.clock import Clock
from qoejax.wire.envelope import Header, Opened
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.secret import Secret


class Round(NamedTuple):
    """What is fixed while a round is open.

    Attributes:
        announced: the announcement, as published.
        spec: layout of an update.
        registry: those enrolled; revoking one replaces it.
        invited: ids that may answer.
        unsafe: whether the plaintext suite is allowed.
    """

    announced: Announced
    spec: codec.TreeSpec
    registry: keys.Registry
    invited: frozenset[bytes]
    unsafe: bool = False


class Slot(NamedTuple):
    """What was accepted for one (run, round, sender, seq): enough to convict a second claim.

    ``envelope`` is its SHA-256; the rest is as in ``envelope.Opened``. ``statement`` is what a
    HELLO says of the session before it, else empty.
    """

    envelope: bytes
    header_bytes: bytes
    enc: bytes
    digest: bytes
    signature: bytes
    statement: bytes = b""


class State(NamedTuple):
    """What changes.

    Attributes:
        chains: each sender's chain, for the whole run.
        slots: what was accepted in the open round.
        sessions: each sender's open session.
        replies: each sender's reply key, from the last signed message that was accepted.
    """

    chains: dict[bytes, Chain]
    slots: dict[tuple[bytes, int], Slot]
    sessions: dict[bytes, session.Session] = {}  # noqa: RUF012 - never changed in place
    replies: dict[bytes, Secret] = {}  # noqa: RUF012


Outcome = Literal["accepted", "duplicate"]


def open_round(state: State) -> State:
    """The state at the start of a round: chains and sessions go on, slots are empty."""
    return state._replace(slots={})


def precheck(rnd: Round, state: State, data: bytes, now: int) -> bytes | None:
    """Every check before decryption, in order; the sender's public key if all hold.

    None stands for a byte-for-byte duplicate of what was accepted.

    Args:
        rnd: the open round.
        state: chains and slots.
        data: the envelope as it arrived.
        now: Unix seconds, for validity of enrolments and the deadline.

    Raises:
        EnvelopeError: SIZE, FORMAT, VERSION, SUITE, ROUND, SENDER, REVOKED, REPLAY or POLICY.
    """
    header = _frame(rnd, data)
    _belongs(rnd, header, now)
    entry = keys.lookup(rnd.registry, header.sender, header.key_epoch, header.suite, now)
    if header.sender not in rnd.invited:
        raise EnvelopeError(Code.SENDER, f"client {header.sender.hex()} is not in this round")
    # Other bytes for a taken slot are opened all the same: a second sealing of the same message is
    # harmless, and only a valid signature convicts anyone of equivocation.
    taken = _slot_taken(rnd, state, header)
    if taken and hashlib.sha256(data).digest() == taken.envelope:
        return None
    if header.flags & envelope.SESSION:
        _in_session(rnd, state, header, taken, now)
    return entry.public


def _in_session(rnd: Round, state: State, header: Header, taken: Slot | None, now: int) -> None:
    """ROUND without a session that lasts, REPLAY where the message's key is gone."""
    who = f"client {header.sender.hex()}"
    if taken:
        raise EnvelopeError(Code.REPLAY, f"{who}: message {header.seq} again, with other bytes")
    announce = rnd.announced.announce
    held = state.sessions.get(header.sender)
    if session.over(held, announce.caps.session, announce.round, now):
        raise EnvelopeError(Code.ROUND, f"{who}: no session, or it is over: HELLO expected")


def opening_key(state: State, data: bytes, round_secret: Secret) -> Secret:
    """What opens an envelope that passed ``precheck``: the round's secret, or its message key.

    REPLAY for a message of a session whose key was stepped over.
    """
    header = envelope.unpack(data)
    if not header.flags & envelope.SESSION:
        return round_secret
    return session.key_at(state.sessions[header.sender], header.seq)[0]


def _sizes(rnd: Round) -> dict[tuple[int, int], int]:
    """Exact length of each (type, flags) that the round takes."""
    announced = rnd.announced
    chosen = envelope.suite(announced.announce.suite, rnd.unsafe)
    payload_len = codec.nbytes(rnd.spec)
    rounds = announced.announce.caps.session
    out = {}
    if not rounds:
        out[envelope.UPDATE, 0] = envelope.update_size(chosen, payload_len)
    if rounds:
        out[envelope.UPDATE, envelope.SESSION] = session.size(chosen, payload_len)
    if rounds or announced.sealed:
        out[envelope.HELLO, 0] = envelope.update_size(chosen, session.STATEMENT_SIZE)
    return out


def _frame(rnd: Round, data: bytes) -> Header:
    announce = rnd.announced.announce
    sizes = _sizes(rnd)
    if len(data) not in sizes.values():
        want = " or ".join(map(str, sizes.values()))
        raise EnvelopeError(Code.SIZE, f"{len(data)} bytes, expected exactly {want}")
    header = envelope.unpack(data)
    kind = (header.type, header.flags)
    if kind not in sizes:
        raise EnvelopeError(
            Code.FORMAT,
            f"type {header.type} with flags {header.flags} is not expected in this round",
        )
    if header.suite != announce.suite:
        raise EnvelopeError(
            Code.SUITE, f"suite {header.suite:#06x}, this run uses {announce.suite:#06x}"
        )
    hello = header.type == envelope.HELLO
    payload_len = session.STATEMENT_SIZE if hello else codec.nbytes(rnd.spec)
    if header.payload_len != payload_len or len(data) != sizes[kind]:
        raise EnvelopeError(
            Code.SIZE,
            f"{len(data)} bytes and payload_len {header.payload_len}, expected exactly "
            f"{sizes[kind]} and {payload_len}",
        )
    return header


def _belongs(rnd: Round, header: Header, now: int) -> None:
    announced = rnd.announced
    announce = announced.announce
    if header.run != announce.run:
        raise EnvelopeError(Code.ROUND, "sealed for another run")
    if header.round != announce.round:
        raise EnvelopeError(Code.ROUND, f"sealed for round {header.round}, not {announce.round}")
    if header.announce != announced.digest:
        raise EnvelopeError(Code.ROUND, "sealed in answer to another announcement")
    if header.recipient != announced.server:
        raise EnvelopeError(Code.ROUND, "sealed for another server")
    if announce.deadline and now > announce.deadline:
        raise EnvelopeError(Code.ROUND, f"arrived {now - announce.deadline} s after the deadline")


def _slot_taken(rnd: Round, state: State, header: Header) -> Slot | None:
    """What the slot holds already; REPLAY or POLICY if it may not be filled."""
    if (header.sender, header.seq) in state.slots:
        return state.slots[header.sender, header.seq]
    who = f"client {header.sender.hex()}"
    chain = state.chains.get(header.sender, Chain())
    caps = rnd.announced.announce.caps
    # In a session every sealing has a number of its own, also those that never arrived.
    if not 0 <= header.seq - chain.seq <= (session.MAX_SKIP if caps.session else 0):
        raise EnvelopeError(
            Code.REPLAY, f"{who}: message {header.seq}, expected number {chain.seq}"
        )
    if header.prev != chain.prev:
        raise EnvelopeError(Code.REPLAY, f"{who}: does not continue from its last message")
    if header.type == envelope.UPDATE:
        taken = _updates(state, header.sender)
        if taken >= caps.updates:
            raise EnvelopeError(Code.POLICY, f"{who}: {taken} updates in this round already")
    return None


def _updates(state: State, sender: bytes) -> int:
    """Updates that a sender has had accepted in this round; a HELLO is none."""
    own = [slot for (who, _), slot in state.slots.items() if who == sender]
    return sum(envelope.unpack(slot.header_bytes).type == envelope.UPDATE for slot in own)


def inspect(
    announce: Announce,
    spec: codec.TreeSpec,
    data: bytes,
    secret: Secret,
    sender_key: bytes,
    *,
    verifier: str = "pqcrypto",
    unsafe: bool = False,
    clock: Clock | None = None,
    provider: str = "pqcrypto",
) -> Opened:
    """Decrypts, verifies, then checks digests and leaves: all that needs no state.

    ``secret`` is what ``opening_key`` gives.

    Raises:
        EnvelopeError: DECRYPT, SIGNATURE, SPEC, NONFINITE or POLICY, in this order.
    """
    clock = Clock() if clock is None else clock
    if envelope.unpack(data).flags & envelope.SESSION:
        opened = session.open(data, secret, clock=clock)
    else:
        opened = envelope.open_update(
            data,
            secret,
            sender_key,
            verifier=verifier,
            unsafe=unsafe,
            clock=clock,
            provider=provider,
        )
    header = opened.header
    who = f"client {header.sender.hex()}"
    if header.base_model != announce.base_model or header.tree_spec != announce.tree_spec:
        raise EnvelopeError(Code.SPEC, f"{who}: computed from another model or spec")
    if header.type == envelope.HELLO:
        return opened
    with clock("codec"):
        try:
            norm = codec.norm(spec, opened.payload)
        except EnvelopeError as error:
            raise EnvelopeError(error.code, f"{who}: {error.args[0]}") from None
    if norm > announce.caps.norm:
        raise EnvelopeError(Code.POLICY, f"{who}: norm {norm:.4g} over {announce.caps.norm:.4g}")
    if not 1 <= header.n_samples <= announce.caps.samples:
        raise EnvelopeError(
            Code.POLICY, f"{who}: n_samples {header.n_samples}, not 1 to {announce.caps.samples}"
        )
    return opened


def commit(rnd: Round, state: State, opened: Opened, now: int) -> tuple[State, Outcome]:
    """Fills the slot and moves the sender's chain, session and reply key on.

    A slot that was filled meanwhile makes the update a duplicate if the sender signed the same
    header and payload, else EQUIVOCATION, whose ``evidence`` is the pair of signed messages (none
    in a session, where tags prove nothing to others). REPLAY for a HELLO that closes another
    session than the one held.
    """
    header = opened.header
    greeting = header.type == envelope.HELLO
    claim = Slot(
        opened.envelope,
        opened.header_bytes,
        opened.enc,
        opened.digest,
        opened.signature,
        opened.payload if greeting else b"",
    )
    held = _slot_taken(rnd, state, header)
    if held is not None:
        if (held.header_bytes, held.digest) == (claim.header_bytes, claim.digest):
            return state, "duplicate"
        raise EnvelopeError(
            Code.EQUIVOCATION,
            f"client {header.sender.hex()}: two different messages {header.seq}",
            evidence=(held, claim) if held.signature and claim.signature else None,
        )
    sessions, replies = state.sessions, state.replies
    if header.flags & envelope.SESSION:
        after = session.key_at(sessions[header.sender], header.seq)[1]
        sessions = sessions | {header.sender: session.accept(after, opened.transcript)}
    if opened.exports is not None:
        replies = replies | {header.sender: opened.exports.reply}
    if greeting and rnd.announced.announce.caps.session and opened.exports is not None:
        _check_statement(sessions.get(header.sender), opened)
        fresh = session.begin(opened.exports.session, header, now)
        sessions = sessions | {header.sender: fresh}
    chain = Chain(header.seq + 1, opened.transcript[:32])
    chains = state.chains | {header.sender: chain}
    slots = state.slots | {(header.sender, header.seq): claim}
    return State(chains, slots, sessions, replies), "accepted"


def _check_statement(held: session.Session | None, opened: Opened) -> None:
    """A HELLO signs what the session before held, or that its sender lost that session."""
    if held is None or opened.payload in (session.statement(held), session.statement(None)):
        return
    raise EnvelopeError(
        Code.REPLAY, f"client {opened.header.sender.hex()}: closes another session than this one"
    )


def open(
    rnd: Round,
    state: State,
    data: bytes,
    secret: Secret,
    now: int,
    *,
    verifier: str = "pqcrypto",
    clock: Clock | None = None,
    provider: str = "pqcrypto",
) -> tuple[State, list[np.ndarray]]:
    """All checks for one envelope: the next state, and leaves in spec order, read-only.

    A duplicate changes nothing and gives no leaves; a HELLO gives none either. Whatever the
    bytes are, the only exception is EnvelopeError, and then the state stays as it was.
    """
    sender_key = precheck(rnd, state, data, now)
    if sender_key is None:
        return state, []
    opened = inspect(
        rnd.announced.announce,
        rnd.spec,
        data,
        opening_key(state, data, secret),
        sender_key,
        verifier=verifier,
        unsafe=rnd.unsafe,
        clock=clock,
        provider=provider,
    )
    state, outcome = commit(rnd, state, opened, now)
    update = outcome == "accepted" and opened.header.type == envelope.UPDATE
    return state, codec.decode(rnd.spec, opened.payload) if update else []


def proves(slot: Slot, sender_key: bytes, verifier: str = "pqcrypto") -> bool:
    """Whether a slot is signed by ``sender_key``: evidence that needs neither key nor payload.

    False for an update in a session: the HELLO that closes the session signs for it.
    """
    header = envelope.unpack(slot.header_bytes)
    if header.flags & envelope.SESSION:
        return False
    name = envelope.transcript(slot.header_bytes, slot.enc, slot.digest)
    scheme = envelope.suite(header.suite, unsafe=True).scheme
    verify = sign.verifier(verifier, scheme)
    return verify(sender_key, name, slot.signature, envelope.CONTEXTS[header.type])
