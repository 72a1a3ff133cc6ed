"""What the entries of a log add up to, as ``chain`` folds them."""

from typing import Any, NamedTuple

from qoejax.wire import client
from qoejax.wire.announce import ZERO, Announce
from qoejax.wire.keys import Registry
from qoejax.wire.log.errors import LogError
from qoejax.wire.log.merkle import Tree
from qoejax.wire.log.records import Session
from qoejax.wire.log.sums import Sum
from qoejax.wire.manifest import Manifest


class Member(NamedTuple):
    """One accepted update of a round: entry, sender, number of its message, examples.

    ``signed`` is false in a session, where the sender's next HELLO signs for it.
    """

    entry: int
    sender: bytes
    seq: int
    n_samples: int
    signed: bool


class Refusal(NamedTuple):
    """One refusal of a round: entry, the client in whose place it was, code."""

    entry: int
    sender: bytes
    code: str


class Round(NamedTuple):
    """A round as the log tells it; ``result`` is the entry that closed it, None while open."""

    run: bytes
    number: int
    entry: int
    digest: bytes
    facts: Announce
    members: tuple[Member, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    convictions: tuple[int, ...] = ()
    sums: tuple[Sum, ...] = ()
    result: int | None = None
    model: bytes = b""


class State(NamedTuple):
    """What the entries so far add up to.

    Attributes:
        session: the present run, None before the first.
        agreed: what its signed manifest says.
        runs: ids of all runs.
        registry: enrolled and revoked.
        authority: key and serial number of the registry that an authority signed, None without.
        rounds: all rounds, the last one maybe open.
        last: number and digest of this run's last announcement.
        models: digest and spec of the model after each round, by round; -1 is the initial model.
        chains: every sender's chain in this run.
        sessions: transcript hashes accepted in every sender's open session.
        notices: the server's chain of REVOKEs in this run.
        unsigned: accepted updates for which nobody has signed, nor will: those of the plaintext
            suite, and of sessions that were lost.
        final: fields of the closing entry, if the last entry is one.
        signatures: how many were verified.
    """

    session: Session | None = None
    agreed: Manifest | None = None
    runs: frozenset[bytes] = frozenset()
    registry: Registry = Registry({}, frozenset())
    authority: tuple[bytes, int] | None = None
    rounds: tuple[Round, ...] = ()
    last: tuple[int, bytes] = (-1, ZERO)
    models: dict[int, tuple[bytes, bytes]] = {}  # noqa: RUF012 (never changed in place)
    chains: dict[bytes, client.Chain] = {}  # noqa: RUF012
    sessions: dict[bytes, tuple[bytes, ...]] = {}  # noqa: RUF012
    notices: client.Chain = client.Chain()
    unsigned: int = 0
    final: dict[str, Any] | None = None
    signatures: int = 0


def unsigned(state: State) -> int:
    """Accepted updates for which nobody has signed so far."""
    return state.unsigned + sum(map(len, state.sessions.values()))


class At(NamedTuple):
    """Where an entry stands: its index, the tree up to it, and who verifies ML-DSA-65."""

    index: int
    tree: Tree
    verifier: str


def require(condition: bool, message: str) -> None:
    """LogError with ``message`` unless ``condition`` holds."""
    if not condition:
        raise LogError(message)


def session_of(state: State) -> tuple[Session, Manifest]:
    """The present run and its manifest; LogError before the first."""
    if state.session is None or state.agreed is None:
        raise LogError("comes before any run")
    return state.session, state.agreed


def closed(state: State) -> bool:
    """Whether no round is open."""
    return not state.rounds or state.rounds[-1].result is not None


def open_round(state: State) -> Round:
    """The open round; LogError if there is none."""
    if closed(state):
        raise LogError("comes outside of a round")
    return state.rounds[-1]


def with_round(state: State, **changes: Any) -> State:
    """The state with the last round changed."""
    return state._replace(rounds=(*state.rounds[:-1], state.rounds[-1]._replace(**changes)))
