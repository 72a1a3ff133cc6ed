"""The receiver's side: checks in a fixed order, cheap first, over a state that can be saved.

    exact length > magic, version, type, suite > run, round, announcement > sender > seq, prev
    > decrypt > signature > digests > leaves finite, caps

``precheck`` and ``commit`` read and return a ``State`` and belong to one thread. ``inspect`` is
stateless and costs nearly all the time, so it may run anywhere, many at once; ``commit`` repeats
the check of the slot, so the outcome is that of opening one envelope after the other.
"""

import hashlib
from typing import Literal, NamedTuple

import numpy as np

from qoejax.wire import codec, envelope, keys, sign
from qoejax.wire.announce import Announce, Announced
from qoejax.wire.client import Chain, advance
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

    ``envelope`` is its SHA-256; the rest is as in ``envelope.Opened``.
    """

    envelope: bytes
    header_bytes: bytes
    enc: bytes
    digest: bytes
    signature: bytes


class State(NamedTuple):
    """What changes: each sender's chain, for the whole run, and the slots of the open round."""

    chains: dict[bytes, Chain]
    slots: dict[tuple[bytes, int], Slot]


Outcome = Literal["accepted", "duplicate"]


def open_round(state: State) -> State:
    """The state at the start of a round: chains go on, slots are empty."""
    return State(state.chains, {})


def precheck(rnd: Round, state: State, data: bytes, now: int) -> bytes | None:
    """Every check before decryption, in order; the sender's public key [1952] if all hold.

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
    if _slot_taken(rnd, state, header):
        held = state.slots[header.sender, header.seq].envelope
        return None if hashlib.sha256(data).digest() == held else entry.public
    return entry.public


def _frame(rnd: Round, data: bytes) -> Header:
    announce = rnd.announced.announce
    chosen = envelope.suite(announce.suite, rnd.unsafe)
    payload_len = codec.nbytes(rnd.spec)
    want = envelope.update_size(chosen, payload_len)
    if len(data) != want:
        raise EnvelopeError(Code.SIZE, f"{len(data)} bytes, expected exactly {want}")
    header = envelope.unpack(data)
    if header.type != envelope.UPDATE:
        raise EnvelopeError(Code.FORMAT, f"type {header.type}, expected UPDATE")
    if header.suite != announce.suite:
        raise EnvelopeError(
            Code.SUITE, f"suite {header.suite:#06x}, this run uses {announce.suite:#06x}"
        )
    if header.payload_len != payload_len:
        raise EnvelopeError(
            Code.SIZE, f"payload_len {header.payload_len}, expected exactly {payload_len}"
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


def _slot_taken(rnd: Round, state: State, header: Header) -> bool:
    """Whether the slot holds an update already; REPLAY or POLICY if it may not be filled."""
    if (header.sender, header.seq) in state.slots:
        return True
    who = f"client {header.sender.hex()}"
    chain = state.chains.get(header.sender, Chain())
    if header.seq != chain.seq:
        raise EnvelopeError(
            Code.REPLAY, f"{who}: message {header.seq}, expected number {chain.seq}"
        )
    if header.prev != chain.prev:
        raise EnvelopeError(Code.REPLAY, f"{who}: does not continue from its last message")
    taken = 0  # a sender's slots of one round follow each other
    while (header.sender, header.seq - 1 - taken) in state.slots:
        taken += 1
    if taken >= rnd.announced.announce.caps.updates:
        raise EnvelopeError(Code.POLICY, f"{who}: {taken} updates in this round already")
    return False


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
) -> Opened:
    """Decrypts, verifies, then checks digests and leaves: all that needs no state.

    Raises:
        EnvelopeError: DECRYPT, SIGNATURE, SPEC, NONFINITE or POLICY, in this order.
    """
    clock = Clock() if clock is None else clock
    opened = envelope.open_update(
        data, secret, sender_key, verifier=verifier, unsafe=unsafe, clock=clock
    )
    header = opened.header
    who = f"client {header.sender.hex()}"
    if header.base_model != announce.base_model or header.tree_spec != announce.tree_spec:
        raise EnvelopeError(Code.SPEC, f"{who}: computed from another model or spec")
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


def commit(rnd: Round, state: State, opened: Opened) -> tuple[State, Outcome]:
    """Fills the slot and moves the sender's chain on.

    A slot that was filled meanwhile makes the update a duplicate if the sender signed the same
    header and payload, else EQUIVOCATION, whose ``evidence`` is the pair of signed messages.
    """
    header = opened.header
    key = (header.sender, header.seq)
    claim = Slot(opened.envelope, opened.header_bytes, opened.enc, opened.digest, opened.signature)
    if _slot_taken(rnd, state, header):
        held = state.slots[key]
        if (held.header_bytes, held.digest) == (claim.header_bytes, claim.digest):
            return state, "duplicate"
        raise EnvelopeError(
            Code.EQUIVOCATION,
            f"client {header.sender.hex()}: two different messages {header.seq}",
            evidence=(held, claim),
        )
    chain = advance(state.chains.get(header.sender, Chain()), opened.transcript)
    chains = {**state.chains, header.sender: chain}
    return State(chains, {**state.slots, key: claim}), "accepted"


def open(
    rnd: Round,
    state: State,
    data: bytes,
    secret: Secret,
    now: int,
    *,
    verifier: str = "pqcrypto",
    clock: Clock | None = None,
) -> tuple[State, list[np.ndarray]]:
    """All checks for one envelope: the next state, and leaves in spec order, read-only.

    A duplicate changes nothing and gives no leaves. Whatever the bytes are, the only exception is
    EnvelopeError, and then the state stays as it was.
    """
    sender_key = precheck(rnd, state, data, now)
    if sender_key is None:
        return state, []
    opened = inspect(
        rnd.announced.announce,
        rnd.spec,
        data,
        secret,
        sender_key,
        verifier=verifier,
        unsafe=rnd.unsafe,
        clock=clock,
    )
    state, outcome = commit(rnd, state, opened)
    return state, codec.decode(rnd.spec, opened.payload) if outcome == "accepted" else []


def proves(slot: Slot, sender_key: bytes, verifier: str = "pqcrypto") -> bool:
    """Whether a slot is signed by ``sender_key``: evidence that needs neither key nor payload."""
    name = envelope.transcript(slot.header_bytes, slot.enc, slot.digest)
    verify = sign.provider(verifier).verify
    return verify(sender_key, name, slot.signature, envelope.UPDATE_CONTEXT)
