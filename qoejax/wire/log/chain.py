"""What entries claim, checked one after the other: signatures, digests, and how they follow.

``step`` is a fold over the entries of a log. It needs no secret and no payload.
"""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

from qoejax.wire import (
    announce,
    cbor,
    client,
    enrolment,
    envelope,
    keys,
    manifest,
    revocation,
    server,
    session,
)
from qoejax.wire.announce import ZERO, Announce
from qoejax.wire.errors import EnvelopeError
from qoejax.wire.keys import Registry
from qoejax.wire.log import note, records, sums
from qoejax.wire.log.errors import LogError
from qoejax.wire.log.merkle import Tree
from qoejax.wire.log.records import Session
from qoejax.wire.log.sums import Sum
from qoejax.wire.manifest import Manifest
from qoejax.wire.secret import Secret
from qoejax.wire.server import Slot


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
        rounds: all rounds, the last one maybe open.
        last: number and digest of this run's last announcement.
        models: digest and spec of the model after each round, by round; -1 is the initial model.
        chains: every sender's chain in this run.
        sessions: transcript hashes accepted in every sender's open session.
        notices: the server's chain of REVOKEs in this run.
        final: fields of the closing entry, if the last entry is one.
        signatures: how many were verified.
    """

    session: Session | None = None
    agreed: Manifest | None = None
    runs: frozenset[bytes] = frozenset()
    registry: Registry = Registry({}, frozenset())
    rounds: tuple[Round, ...] = ()
    last: tuple[int, bytes] = (-1, ZERO)
    models: dict[int, tuple[bytes, bytes]] = {}  # noqa: RUF012 (never changed in place)
    chains: dict[bytes, client.Chain] = {}  # noqa: RUF012
    sessions: dict[bytes, tuple[bytes, ...]] = {}  # noqa: RUF012
    notices: client.Chain = client.Chain()
    final: dict[str, Any] | None = None
    signatures: int = 0


class At(NamedTuple):
    """Where an entry stands: its index, the tree up to it, and who verifies ML-DSA-65."""

    index: int
    tree: Tree
    verifier: str


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise LogError(message)


def _run(state: State, fields: dict[str, Any], at: At) -> State:
    opened = Session(**fields)
    _require(_closed(state), "a run begins inside an open round")
    _require(opened.run not in state.runs, f"run {opened.run.hex()} begins twice")
    agreed = manifest.read(opened.manifest, opened.server, verifier=at.verifier, unsafe=True)
    _require(agreed.run == opened.run, "its manifest is of another run")
    if state.session is None:
        _require(opened.first == 0, "the first run of a log begins at another round than 0")
        models = {-1: (opened.model, b"")}
    else:
        models = {n: model for n, model in state.models.items() if n < opened.first}
        known = models.get(opened.first - 1, (b"", b""))[0]
        _require(
            opened.model == known,
            f"goes on at round {opened.first} with a model that the log does not lead to",
        )
    return state._replace(
        session=opened, agreed=agreed, runs=state.runs | {opened.run}, models=models,
        last=(opened.first - 1, ZERO), chains={}, sessions={}, notices=client.Chain(),
        signatures=state.signatures + 1,
    )  # fmt: skip


def _enrol(state: State, fields: dict[str, Any], at: At) -> State:
    request = enrolment.Request(enrolment.unpack_entry(fields))
    registry = enrolment.admit(state.registry, request, at.verifier)
    return state._replace(registry=registry, signatures=state.signatures + 1)


def _revoke(state: State, fields: dict[str, Any], at: At) -> State:
    opened, agreed = _session(state)
    notice, notices = revocation.read(
        fields["notice"], opened.server, opened.run, agreed.suite, state.notices,
        verifier=at.verifier,
    )  # fmt: skip
    _require(notice.subject == fields["id"], "its notice revokes somebody else")
    _require(notice.subject not in state.registry.revoked, "revoked a second time")
    registry = keys.revoke(state.registry, notice.subject)
    return state._replace(registry=registry, notices=notices, signatures=state.signatures + 1)


def _announce(state: State, fields: dict[str, Any], at: At) -> State:
    opened, agreed = _session(state)
    _require(_closed(state), "a round begins inside an open round")
    facts, digest = announce.proves(fields["front"], fields["model"], opened.server, at.verifier)
    number, link = state.last
    _require(facts.run == opened.run, "announces a round of another run")
    said = (facts.suite, facts.tree_spec, facts.caps.session)
    _require(
        said == (agreed.suite, agreed.tree_spec, agreed.session),
        "announces another suite, spec or session than the run's manifest",
    )
    _require(facts.round > number, f"round {facts.round} after round {number}")
    _require(facts.previous == link, "does not name the announcement before")
    _require(facts.registry == keys.registry_digest(state.registry), "names another registry")
    base = state.models.get(facts.round - 1, (b"", b""))[0]
    _require(base == facts.base_model, "begins with another model than the round before ended with")
    if facts.log:
        seen = note.parse_body(facts.log.decode("utf-8", "replace"))
        known = seen.size <= at.index and at.tree.root(seen.size) == seen.root
        _require(known, f"names a checkpoint of {seen.size} entries that is not this log's")
    rnd = Round(facts.run, facts.round, at.index, digest, facts)
    return state._replace(
        rounds=(*state.rounds, rnd), last=(facts.round, digest), signatures=state.signatures + 1
    )


def _hello(state: State, fields: dict[str, Any], at: At) -> State:
    statement = fields.pop("statement")
    slot = _slot(fields)
    header, signed = _verified(state, slot, envelope.HELLO, at)
    state, _ = _chained(state, header, slot)
    _require(hashlib.sha512(statement).digest() == slot.digest, "signs another statement")
    held = state.sessions.get(header.sender)
    known = [session.statement(None)]
    if held is not None:
        known.append(session.statement(session.Session(Secret(b""), 0, 0, 0, held)))
    _require(statement in known, "signs for other updates of the session before than the log has")
    if _open(state).facts.caps.session:
        state = state._replace(sessions={**state.sessions, header.sender: ()})
    return state._replace(signatures=state.signatures + signed)


def _update(state: State, fields: dict[str, Any], at: At) -> State:
    slot = _slot(fields)
    header, signed = _verified(state, slot, envelope.UPDATE, at)
    state, name = _chained(state, header, slot)
    rnd = _open(state)
    sent = sum(m.sender == header.sender for m in rnd.members)
    _require(sent < rnd.facts.caps.updates, "is one more than the announcement allows its sender")
    in_session = bool(header.flags & envelope.SESSION)
    _require(in_session == (rnd.facts.caps.session > 0), "is signed where sessions are, or not")
    if in_session:
        held = state.sessions.get(header.sender)
        if held is None:
            raise LogError("is in a session that no HELLO began")
        _require(slot.enc == slot.signature == b"", "is in a session, and carries a signature")
        state = state._replace(sessions={**state.sessions, header.sender: (*held, name)})
    member = Member(at.index, header.sender, header.seq, header.n_samples, signed > 0)
    state = state._replace(signatures=state.signatures + signed)
    return _with(state, members=(*rnd.members, member))


def _chained(state: State, header: envelope.Header, slot: Slot) -> tuple[State, bytes]:
    """The sender's chain moved on by a message that answers the open round; its transcript."""
    rnd = _open(state)
    facts = rnd.facts
    _require(header.announce == rnd.digest, "answers another announcement")
    _require((header.run, header.round) == (facts.run, facts.round), "is of another round")
    _require(header.suite == facts.suite, "is of another suite")
    same = (header.base_model, header.tree_spec) == (facts.base_model, facts.tree_spec)
    _require(same, "was computed from another model or spec")
    _require(header.sender not in state.registry.revoked, "is by a revoked client")
    chain = state.chains.get(header.sender, client.Chain())
    skip = session.MAX_SKIP if facts.caps.session else 0
    _require(
        0 <= header.seq - chain.seq <= skip and header.prev == chain.prev,
        f"message {header.seq} does not continue its sender's chain at {chain.seq}",
    )
    name = envelope.transcript(slot.header_bytes, slot.enc, slot.digest)
    moved = client.Chain(header.seq + 1, name[:32])
    return state._replace(chains={**state.chains, header.sender: moved}), name


def _verified(state: State, slot: Slot, kind: int, at: At) -> tuple[envelope.Header, int]:
    """Header of a message of an enrolled client, and how many signatures were verified.

    That is none in a session, and in the plaintext suite.
    """
    _require(len(slot.header_bytes) == envelope.HEADER_SIZE, "has a header of another size")
    header = envelope.unpack(slot.header_bytes)
    _require(header.type == kind, f"is of type {header.type}, expected {kind}")
    _require(header.recipient == keys.key_id(_session(state)[0].server), "is to another server")
    entry = state.registry.entries.get(header.sender)
    if entry is None:
        raise LogError(f"is by {header.sender.hex()}, who is not enrolled")
    _require(header.key_epoch == entry.epoch, "is of another key epoch than its sender's")
    _require(header.suite in entry.suites, "is of a suite that its sender is not enrolled for")
    if header.flags & envelope.SESSION or not envelope.suite(header.suite, unsafe=True).sealed:
        return header, 0
    _require(
        server.proves(slot, entry.public, at.verifier),
        f"the signature of {header.sender.hex()} does not verify",
    )
    return header, 1


def _reject(state: State, fields: dict[str, Any], at: At) -> State:
    rnd = _open(state)
    _require((fields["run"], fields["round"]) == (rnd.run, rnd.number), "is of another round")
    _require(fields["sender"] in state.registry.entries, "names a client that is not enrolled")
    refusal = Refusal(at.index, fields["sender"], fields["code"])
    return _with(state, refusals=(*rnd.refusals, refusal))


def _equivocation(state: State, fields: dict[str, Any], at: At) -> State:
    rnd = _open(state)
    slots = _slot(fields["first"]), _slot(fields["second"])
    (one, signed), (two, _) = (
        _verified(state, slot, envelope.unpack(slot.header_bytes).type, at) for slot in slots
    )
    same = (one.run, one.round, one.sender, one.seq) == (two.run, two.round, two.sender, two.seq)
    _require(same and one.round == rnd.number, "its two updates are not for one slot of the round")
    differ = (slots[0].header_bytes, slots[0].digest) != (slots[1].header_bytes, slots[1].digest)
    _require(differ, "its two updates are the same")
    state = state._replace(signatures=state.signatures + 2 * signed)
    return _with(state, convictions=(*rnd.convictions, at.index))


def _survivors(state: State, fields: dict[str, Any], at: At) -> State:
    rnd, (opened, _) = _open(state), _session(state)
    facts, said = rnd.facts, sums.plan_of(fields["plan"])
    want = {
        "announce": rnd.digest, "run": rnd.run, "round": rnd.number,
        "server": keys.key_id(opened.server), "base_model": facts.base_model,
        "tree_spec": facts.tree_spec, "suite": facts.suite,
    }  # fmt: skip
    odd = [name for name, value in want.items() if said[name] != value]
    _require(not odd, f"its plan is for another {' and '.join(odd)}")
    found, signed = sums.verify(fields, opened.server, state.registry, at.index, at.verifier)
    seen = {name for one in rnd.sums for name in one.survivors}
    _require(not seen & set(found.survivors), "counts somebody twice")
    state = state._replace(signatures=state.signatures + signed)
    return _with(state, sums=(*rnd.sums, found))


def _result(state: State, fields: dict[str, Any], at: At) -> State:
    rnd = _open(state)
    _require((fields["run"], fields["round"]) == (rnd.run, rnd.number), "is of another round")
    found = len(rnd.members) + sum(len(one.survivors) for one in rnd.sums)
    _require(
        fields["accepted"] == found, f"counts {fields['accepted']} accepted, the log has {found}"
    )
    models = {**state.models, rnd.number: (fields["model"], fields["spec"])}
    return _with(state._replace(models=models), result=at.index, model=fields["model"])


def _final(state: State, fields: dict[str, Any], at: At) -> State:
    _require(_closed(state), "closes the run inside an open round")
    _require(fields["run"] == _session(state)[0].run, "closes another run")
    rounds = max(state.models) + 1
    _require(fields["rounds"] == rounds, f"counts {fields['rounds']} rounds, the log has {rounds}")
    last = state.models[rounds - 1][0]
    _require(fields["model"] == last, "names another model than the last round's")
    return state._replace(final=fields)


Check = Callable[[State, dict[str, Any], At], State]
_SLOT = {"header": bytes, "enc": bytes, "digest": bytes, "signature": bytes}
_ROUND = {"run": bytes, "round": int}
_SUM = {"plan": bytes, "members": list, "told": bytes, "confirmed": list, "sum": bytes}
KINDS: dict[str, tuple[Check, dict[str, type]]] = {
    "run": (_run, {**dict.fromkeys(Session._fields, bytes), "first": int}),
    "enrol": (_enrol, dict.fromkeys(keys.Entry._fields, object)),
    "revoke": (_revoke, {"id": bytes, "notice": bytes}),
    "announce": (_announce, {"front": bytes, "model": bytes}),
    "hello": (_hello, {**_SLOT, "statement": bytes}),
    "update": (_update, _SLOT),
    "reject": (_reject, {**_ROUND, "sender": bytes, "code": str}),
    "equivocation": (_equivocation, {"first": dict, "second": dict}),
    "survivors": (_survivors, _SUM),
    "result": (
        _result, {**_ROUND, "accepted": int, "aggregate": bytes, "model": bytes, "spec": bytes}
    ),
    "final": (_final, {"run": bytes, "rounds": int, "model": bytes, "params": bytes}),
}  # fmt: skip
"""By kind of entry: its check, and the type of each of its fields."""


def step(state: State, data: bytes, at: At) -> State:
    """The state after one more entry.

    Raises:
        LogError: with the entry's index and what is wrong with it.
    """
    kind = "?"
    try:
        fields = cbor.decode(data)
        found = fields.pop("kind", None) if isinstance(fields, dict) else None
        _require(isinstance(found, str) and found in KINDS, "of no known kind")
        kind = str(found)
        _require(fields.pop("version", None) == records.VERSION, "of another version")
        check, types = KINDS[kind]
        _require(set(fields) == set(types), f"its fields are not those of {kind!r}")
        for name, want in types.items():
            _require(isinstance(fields[name], want), f"field {name!r} is of another type")
        _require(state.final is None or kind in ("run", "enrol", "revoke"), "follows the run's end")
        return check(state._replace(final=None), fields, at)
    except (LogError, EnvelopeError) as error:
        raise LogError(f"entry {at.index} ({kind}): {error}", at.index) from None


def _session(state: State) -> tuple[Session, Manifest]:
    if state.session is None or state.agreed is None:
        raise LogError("comes before any run")
    return state.session, state.agreed


def _closed(state: State) -> bool:
    return not state.rounds or state.rounds[-1].result is not None


def _open(state: State) -> Round:
    if _closed(state):
        raise LogError("comes outside of a round")
    return state.rounds[-1]


def _with(state: State, **changes: Any) -> State:
    return state._replace(rounds=(*state.rounds[:-1], state.rounds[-1]._replace(**changes)))


def _slot(fields: dict[str, Any]) -> Slot:
    if set(fields) != set(_SLOT) or not all(isinstance(v, bytes) for v in fields.values()):
        raise LogError("its fields are not those of an update")
    return Slot(b"", fields["header"], fields["enc"], fields["digest"], fields["signature"])
