"""A client's end of an exchange over a network: one key, and where it stands in each run.

``answer`` turns one question into one reply, as a pure function of what the client knows; the
caller keeps the state, on disk before the reply leaves, so that a client that was killed goes on
where it was. Nothing that arrives is believed unless the pinned server signed it, and the server's
word about the client's own chain only where it names a message that this client sealed.

After a kill, sessions and reply keys are gone (they are never written), and a HELLO replaces them.
No JAX.
"""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

from qoejax.wire import (
    announce,
    broadcast,
    cbor,
    client,
    envelope,
    frames,
    keys,
    manifest,
    session,
)
from qoejax.wire.announce import Announced
from qoejax.wire.client import Chain
from qoejax.wire.envelope import Exports, Header, Sealed
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.secret import Secret


class Setup(NamedTuple):
    """What does not change.

    Attributes:
        identity: the client's key.
        server: id [16] of the one server, pinned.
        suite: number of the one suite that this client takes part with.
        unsafe: allow the plaintext and classical suites.
        verifier: provider that verifies.
        provider: provider of the KEM.
    """

    identity: keys.Identity
    server: bytes
    suite: int
    unsafe: bool = False
    verifier: str = "pqcrypto"
    provider: str = "pqcrypto"


class Sent(NamedTuple):
    """A sealed message that may or may not have been accepted; exports do not outlive a process."""

    header: Header
    transcript: bytes
    exports: Exports | None = None


class Standing(NamedTuple):
    """Where a client stands in one run.

    Attributes:
        before: number and digest of the announcement before the last.
        last: number and digest of the last announcement that was read.
        heard: SHA-256 [32] of its bytes: shown again, it may be answered again.
        head: this client's chain, as the server confirmed it last.
        seq: number that the next message gets.
        sent: every message since.
        held: the open session.
        reply: key that this client shares with the server for confidential models.
    """

    before: tuple[int, bytes] = (-1, announce.ZERO)
    last: tuple[int, bytes] = (-1, announce.ZERO)
    heard: bytes = b""
    head: Chain = Chain()
    seq: int = 0
    sent: tuple[Sent, ...] = ()
    held: session.Session | None = None
    reply: Secret | None = None


class State(NamedTuple):
    """All that a client remembers: the server's public key, and every run that it heard of by id.

    An old run that is shown again is known to be old.
    """

    server: bytes = b""
    runs: dict[bytes, Standing] = {}  # noqa: RUF012 - never changed in place


Work = Callable[[int, bytes], tuple[bytes, int]]
"""``work(round, model) -> (payload, n_samples)``: trains on the model that was announced."""


def meet(setup: Setup, state: State, asked: frames.Who) -> State:
    """The state with the server's key in it; SENDER unless it is the pinned server's."""
    if keys.key_id(asked.server) != setup.server:
        found = keys.key_id(asked.server).hex()
        raise EnvelopeError(Code.SENDER, f"server {found}, expected {setup.server.hex()}")
    return state._replace(server=asked.server)


def hear(
    setup: Setup, state: State, turn: frames.Turn, now: int
) -> tuple[bytes, Standing, Announced]:
    """Run id, standing and announcement after a turn was verified.

    Raises:
        EnvelopeError: whatever manifest, announcement or turn are refused for; EQUIVOCATION where
            the server holds a message of this key that was sealed elsewhere.
    """
    if not state.server:
        raise EnvelopeError(Code.SENDER, "an announcement before the server said who it is")
    options: Any = {"verifier": setup.verifier, "unsafe": setup.unsafe}
    agreed = manifest.read(turn.manifest, state.server, **options)
    if agreed.suite != setup.suite:
        raise EnvelopeError(
            Code.SUITE, f"a run of suite {agreed.suite:#06x}, expected {setup.suite:#06x}"
        )
    old = state.runs.get(agreed.run, Standing())
    heard = hashlib.sha256(turn.announcement).digest()
    last = old.before if heard == old.heard else old.last
    told = announce.read(
        turn.announcement, state.server, agreed.run, last, agreed=agreed, **options
    )
    scheme, name = envelope.suite(setup.suite, setup.unsafe).scheme, setup.identity.id
    frames.check_turn(turn, told.digest, name, state.server, scheme, setup.verifier)
    new = old._replace(before=last, last=(told.announce.round, told.digest), heard=heard)
    return agreed.run, _caught_up(new, turn.head, agreed.session > 0, now), told


def _caught_up(standing: Standing, head: Chain, in_sessions: bool, now: int) -> Standing:
    """The standing once the server said which message it took last."""
    if head == standing.head:
        return standing
    if head.seq < standing.head.seq:
        raise EnvelopeError(
            Code.REPLAY, f"the server is at message {head.seq}, it was at {standing.head.seq}"
        )
    known = [(one.header.seq, one.transcript) for one in standing.sent]
    moved = client.catch_up(standing.head, known, head)
    taken = next(one for one in standing.sent if one.transcript[:32] == head.prev)
    new = standing._replace(head=moved, seq=max(standing.seq, moved.seq), sent=())
    if client.is_in_session(taken.header) and new.held is not None:
        return new._replace(held=session.accept(new.held, taken.transcript))
    if taken.exports is None:
        return new
    new = new._replace(reply=taken.exports.reply)
    if in_sessions and client.is_hello(taken.header):
        begun = session.begin(taken.exports.session, taken.header, now)
        return new._replace(held=begun)
    return new


def answer(
    setup: Setup, state: State, turn: frames.Turn, work: Work, now: int
) -> tuple[State, bytes]:
    """The state and the envelope after a turn: a HELLO where one is due, else an UPDATE.

    Raises:
        EnvelopeError: as ``hear``; DECRYPT or SIZE for a grant that does not fit; SIGN_EXHAUSTED
            or RNG. The state then stays as it was.
    """
    run, standing, told = hear(setup, state, turn, now)
    rounds = told.announce.caps.session
    greet = rounds > 0 and session.over(standing.held, rounds, told.announce.round, now)
    if greet or (told.sealed and not (turn.grant and standing.reply is not None)):
        standing, sealed = _hello(setup, standing, told)
    else:
        if told.sealed and standing.reply is not None:
            told = announce.reveal(told, broadcast.accept(standing.reply, told.digest, turn.grant))
        payload, n_samples = work(told.announce.round, told.model)
        standing, sealed = _update(setup, standing, told, payload, n_samples)
    return state._replace(runs={**state.runs, run: standing}), sealed.envelope


def _hello(setup: Setup, standing: Standing, told: Announced) -> tuple[Standing, Sealed]:
    """A HELLO, which says what the session before held: nothing, if that was forgotten."""
    header = client.hello_header(told, setup.identity.id, 0, _next(standing))
    return _signed(setup, standing, told, header, session.statement(standing.held))


def _update(
    setup: Setup, standing: Standing, told: Announced, payload: bytes, n_samples: int
) -> tuple[Standing, Sealed]:
    chain, size = _next(standing), len(payload)
    header = client.update_header(told, setup.identity.id, 0, chain, n_samples, size)
    if standing.held is None or not told.announce.caps.session:
        return _signed(setup, standing, told, header, payload)
    # The key is that of the session's own count: numbers and keys go together, accepted or not.
    header = client.in_session(header._replace(seq=standing.held.seq))
    key, after = session.take(standing.held)
    sealed = session.seal(header, payload, key)
    return _noted(standing._replace(held=after), header, sealed), sealed


def _next(standing: Standing) -> Chain:
    return Chain(standing.seq, standing.head.prev)


def _signed(
    setup: Setup, standing: Standing, told: Announced, header: Header, payload: bytes
) -> tuple[Standing, Sealed]:
    sealed = envelope.seal_update(
        header,
        payload,
        told.announce.round_key,
        setup.identity.sign,
        unsafe=setup.unsafe,
        provider=setup.provider,
    )
    return _noted(standing, header, sealed), sealed


def _noted(standing: Standing, header: Header, sealed: Sealed) -> Standing:
    """The standing with a message that is about to leave; in a session its number is used up."""
    one = Sent(header, sealed.transcript, sealed.exports)
    seq = header.seq + 1 if client.is_in_session(header) else standing.seq
    return standing._replace(seq=seq, sent=(*standing.sent, one))


def pack(state: State) -> bytes:
    """A state as bytes, without its secrets: sessions and reply keys are forgotten."""
    runs = {
        run.hex(): {
            "before": _from_zero(one.before), "last": _from_zero(one.last), "heard": one.heard,
            "head": list(one.head), "seq": one.seq,
            "sent": [[envelope.pack(m.header), m.transcript] for m in one.sent],
        }
        for run, one in state.runs.items()
    }  # fmt: skip
    return cbor.encode({"server": state.server, "runs": runs})


def parse(data: bytes) -> State:
    """Inverse of ``pack``; FORMAT for anything else."""
    fields = cbor.decode(data)
    try:
        runs = {bytes.fromhex(run): _standing(one) for run, one in fields["runs"].items()}
        return State(fields["server"], runs)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EnvelopeError(Code.FORMAT, f"not what a client remembers: {error}") from None


def _standing(fields: dict[str, Any]) -> Standing:
    sent = tuple(Sent(envelope.unpack(front), name) for front, name in fields["sent"])
    return Standing(
        _seen(fields["before"]), _seen(fields["last"]), fields["heard"], Chain(*fields["head"]),
        fields["seq"], sent,
    )  # fmt: skip


def _from_zero(seen: tuple[int, bytes]) -> list[cbor.Value]:
    """Counted from 0, which stands for no round: CBOR of the wire has no negative numbers."""
    return [seen[0] + 1, seen[1]]


def _seen(value: list[Any]) -> tuple[int, bytes]:
    number, digest = value
    return number - 1, digest
