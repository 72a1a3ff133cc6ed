"""The sender's side: a chain of messages, and sealing into it."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from qoejax.wire import codec, envelope, session
from qoejax.wire.announce import ZERO, Announced
from qoejax.wire.clock import Clock
from qoejax.wire.envelope import Header, Sealed
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.keys import Identity


class Chain(NamedTuple):
    """Where a sender stands: number of its next message, and hash [32] of its last.

    Both ends hold one. The sender moves on when the server acknowledges; until then it may send
    the same bytes again, or another message for a later round, but never two in one slot.
    """

    seq: int = 0
    prev: bytes = ZERO


def hello_header(announced: Announced, sender: bytes, epoch: int, chain: Chain) -> Header:
    """Header of a HELLO in answer to an announcement; its payload is ``session.statement``."""
    header = update_header(announced, sender, epoch, chain, 0, session.STATEMENT_SIZE)
    return header._replace(type=envelope.HELLO)


def in_session(header: Header) -> Header:
    """The same header for a session's UPDATE."""
    return header._replace(flags=envelope.SESSION)


def is_in_session(header: Header) -> bool:
    """Whether a message was sealed under a session's key."""
    return bool(header.flags & envelope.SESSION)


def is_hello(header: Header) -> bool:
    """Whether a message is a HELLO."""
    return header.type == envelope.HELLO


def advance(chain: Chain, transcript: bytes) -> Chain:
    """The chain after a message with this transcript hash [64] was accepted."""
    return Chain(chain.seq + 1, transcript[:32])


def catch_up(chain: Chain, unacknowledged: Iterable[tuple[int, bytes]], head: Chain) -> Chain:
    """The chain after an acknowledgement was lost and the server said where it stands.

    Every message since the last acknowledgement continued from the same one, so the server took
    none of them or one. Its word needs no signature: only one's own messages are believed.

    Args:
        chain: where the sender stands.
        unacknowledged: number and transcript hash [64] of each message since.
        head: the server's chain for this sender.

    Raises:
        EnvelopeError: EQUIVOCATION, if the server took a message that this sender never sealed:
            someone else has its key, or the server is not honest.
    """
    if head.prev == chain.prev:
        return chain
    if any(head == advance(Chain(seq), transcript) for seq, transcript in unacknowledged):
        return Chain(max(chain.seq, head.seq), head.prev)
    raise EnvelopeError(
        Code.EQUIVOCATION, f"the server holds message {head.seq - 1} of this key, sealed elsewhere"
    )


def update_header(
    announced: Announced, sender: bytes, epoch: int, chain: Chain, n_samples: int, payload_len: int
) -> Header:
    """Header of an UPDATE in answer to an announcement."""
    announce = announced.announce
    return Header(
        type=envelope.UPDATE,
        suite=announce.suite,
        key_epoch=epoch,
        run=announce.run,
        round=announce.round,
        seq=chain.seq,
        sender=sender,
        recipient=announced.server,
        base_model=announce.base_model,
        tree_spec=announce.tree_spec,
        announce=announced.digest,
        prev=chain.prev,
        n_samples=n_samples,
        payload_len=payload_len,
    )


def seal(
    spec: codec.TreeSpec,
    leaves: Sequence[np.ndarray | np.generic],
    identity: Identity,
    announced: Announced,
    *,
    n_samples: int,
    chain: Chain | None = None,
    epoch: int = 0,
    unsafe: bool = False,
    clock: Clock | None = None,
    provider: str = "pqcrypto",
) -> Sealed:
    """Leaves, in spec order, as a signed envelope that only the announcing server opens.

    Raises:
        EnvelopeError: SPEC (leaves or announcement do not fit the spec), SUITE, FORMAT,
            SIGN_EXHAUSTED or RNG.
    """
    clock = Clock() if clock is None else clock
    if codec.spec_digest(spec) != announced.announce.tree_spec:
        raise EnvelopeError(Code.SPEC, "the announcement asks for leaves of another spec")
    with clock("codec"):
        payload = codec.encode(spec, leaves)
    header = update_header(announced, identity.id, epoch, chain or Chain(), n_samples, len(payload))
    return envelope.seal_update(
        header,
        payload,
        announced.announce.round_key,
        identity.sign,
        unsafe=unsafe,
        clock=clock,
        provider=provider,
    )
