"""What entries claim, checked one after the other: signatures, digests, and how they follow.

``step`` is a fold over the entries of a log. It needs no secret and no payload.
"""

import hashlib
from collections.abc import Callable
from typing import Any

from qoejax.wire import (
    announce,
    authority,
    cbor,
    client,
    closing,
    enrolment,
    envelope,
    keys,
    manifest,
    revocation,
    server,
    session,
)
from qoejax.wire.announce import ZERO
from qoejax.wire.errors import EnvelopeError
from qoejax.wire.log import note, records, sums
from qoejax.wire.log.errors import LogError
from qoejax.wire.log.records import Session
from qoejax.wire.log.state import (
    At,
    Member,
    Refusal,
    Round,
    State,
    closed,
    open_round,
    require,
    session_of,
    unsigned,
    with_round,
)
from qoejax.wire.secret import Secret
from qoejax.wire.server import Slot


def _run(state: State, fields: dict[str, Any], at: At) -> State:
    opened = Session(**fields)
    require(closed(state), "a run begins inside an open round")
    require(opened.run not in state.runs, f"run {opened.run.hex()} begins twice")
    agreed = manifest.read(opened.manifest, opened.server, verifier=at.verifier, unsafe=True)
    require(agreed.run == opened.run, "its manifest is of another run")
    if state.session is None:
        require(opened.first == 0, "the first run of a log begins at another round than 0")
        models = {-1: (opened.model, b"")}
    else:
        models = {n: model for n, model in state.models.items() if n < opened.first}
        known = models.get(opened.first - 1, (b"", b""))[0]
        require(
            opened.model == known,
            f"goes on at round {opened.first} with a model that the log does not lead to",
        )
    return state._replace(
        session=opened, agreed=agreed, runs=state.runs | {opened.run}, models=models,
        last=(opened.first - 1, ZERO), chains={}, sessions={}, notices=client.Chain(),
        unsigned=unsigned(state), signatures=state.signatures + 1,
    )  # fmt: skip


def _enrol(state: State, fields: dict[str, Any], at: At) -> State:
    request = enrolment.Request(enrolment.unpack_entry(fields))
    registry = enrolment.admit(state.registry, request, at.verifier)
    return state._replace(registry=registry, signatures=state.signatures + 1)


def _registry(state: State, fields: dict[str, Any], at: At) -> State:
    revoked, serial, signer = fields["revoked"], fields["serial"], fields["authority"]
    require(all(isinstance(name, bytes) for name in revoked), "revokes something that is no id")
    known = state.authority or (signer, 0)
    require(signer == known[0], "is by another authority than the registry before")
    require(serial >= known[1], f"is registry {serial}, after registry {known[1]}")
    require(set(revoked) <= state.registry.entries.keys(), "revokes somebody who is not enrolled")
    said = state.registry._replace(revoked=frozenset(revoked))
    good = authority.verify(signer, keys.registry_digest(said), serial, fields["signature"])
    require(good, "the authority's signature on the entries so far does not verify")
    registry = state.registry._replace(revoked=state.registry.revoked | said.revoked)
    return state._replace(
        registry=registry, authority=(signer, serial), signatures=state.signatures + 1
    )


def _revoke(state: State, fields: dict[str, Any], at: At) -> State:
    opened, agreed = session_of(state)
    notice, notices = revocation.read(
        fields["notice"], opened.server, opened.run, agreed.suite, state.notices,
        verifier=at.verifier,
    )  # fmt: skip
    require(notice.subject == fields["id"], "its notice revokes somebody else")
    require(notice.subject not in state.registry.revoked, "revoked a second time")
    registry = keys.revoke(state.registry, notice.subject)
    return state._replace(registry=registry, notices=notices, signatures=state.signatures + 1)


def _announce(state: State, fields: dict[str, Any], at: At) -> State:
    opened, agreed = session_of(state)
    require(closed(state), "a round begins inside an open round")
    facts, digest = announce.proves(fields["front"], fields["model"], opened.server, at.verifier)
    number, link = state.last
    require(facts.run == opened.run, "announces a round of another run")
    said = (facts.suite, facts.tree_spec, facts.caps.session)
    require(
        said == (agreed.suite, agreed.tree_spec, agreed.session),
        "announces another suite, spec or session than the run's manifest",
    )
    require(facts.round > number, f"round {facts.round} after round {number}")
    require(facts.previous == link, "does not name the announcement before")
    require(facts.registry == keys.registry_digest(state.registry), "names another registry")
    base = state.models.get(facts.round - 1, (b"", b""))[0]
    require(base == facts.base_model, "begins with another model than the round before ended with")
    if facts.log:
        seen = note.parse_body(facts.log.decode("utf-8", "replace"))
        known = seen.size <= at.index and at.tree.root(seen.size) == seen.root
        require(known, f"names a checkpoint of {seen.size} entries that is not this log's")
    rnd = Round(facts.run, facts.round, at.index, digest, facts)
    return state._replace(
        rounds=(*state.rounds, rnd), last=(facts.round, digest), signatures=state.signatures + 1
    )


def _hello(state: State, fields: dict[str, Any], at: At) -> State:
    statement = fields.pop("statement")
    slot = _slot(fields)
    header, signed = _verified(state, slot, envelope.HELLO, at)
    state, _ = _chained(state, header, slot)
    require(hashlib.sha512(statement).digest() == slot.digest, "signs another statement")
    held = state.sessions.get(header.sender, ())
    said = (_said(held), session.statement(None))
    require(statement in said, "signs for other updates of the session before than the log has")
    if statement != _said(held):
        state = state._replace(unsigned=state.unsigned + len(held))
    if open_round(state).facts.caps.session:
        state = state._replace(sessions={**state.sessions, header.sender: ()})
    return state._replace(signatures=state.signatures + signed)


def _said(accepted: tuple[bytes, ...]) -> bytes:
    """What who closes a session of these updates signs."""
    return session.statement(session.Session(Secret(b""), 0, 0, 0, accepted))


def _close(state: State, fields: dict[str, Any], at: At) -> State:
    require(closed(state), "closes a session inside an open round")
    statement = fields["statement"]
    digest = hashlib.sha512(statement).digest()
    slot = Slot(b"", fields["header"], b"", digest, fields["signature"])
    header, signed = _verified(state, slot, envelope.CLOSE, at)
    held = state.sessions.get(header.sender)
    require(held is not None, "closes a session that no HELLO began")
    require(statement == _said(held or ()), "signs for other updates than the log has")
    opened, agreed = session_of(state)
    entry = state.registry.entries[header.sender]
    chain = state.chains[header.sender]
    want = closing.header(opened.run, agreed.suite, header.recipient, entry, chain)
    require(
        header == want._replace(seq=header.seq) and 0 <= header.seq - want.seq <= session.MAX_SKIP,
        "is of another run or suite, or does not continue its sender's chain",
    )
    require(header.sender not in state.registry.revoked, "is by a revoked client")
    name = envelope.transcript(slot.header_bytes, b"", digest)
    chains = {**state.chains, header.sender: client.Chain(header.seq + 1, name[:32])}
    sessions = {who: ids for who, ids in state.sessions.items() if who != header.sender}
    return state._replace(chains=chains, sessions=sessions, signatures=state.signatures + signed)


def _update(state: State, fields: dict[str, Any], at: At) -> State:
    slot = _slot(fields)
    header, signed = _verified(state, slot, envelope.UPDATE, at)
    state, name = _chained(state, header, slot)
    rnd = open_round(state)
    sent = sum(m.sender == header.sender for m in rnd.members)
    require(sent < rnd.facts.caps.updates, "is one more than the announcement allows its sender")
    in_session = bool(header.flags & envelope.SESSION)
    require(in_session == (rnd.facts.caps.session > 0), "is signed where sessions are, or not")
    if in_session:
        held = state.sessions.get(header.sender)
        if held is None:
            raise LogError("is in a session that no HELLO began")
        require(slot.enc == slot.signature == b"", "is in a session, and carries a signature")
        state = state._replace(sessions={**state.sessions, header.sender: (*held, name)})
    weighs = 1 <= header.n_samples <= rnd.facts.caps.samples
    require(weighs, f"claims {header.n_samples} examples, the announcement allows fewer")
    member = Member(at.index, header.sender, header.seq, header.n_samples, signed > 0)
    loose = not signed and not in_session
    state = state._replace(signatures=state.signatures + signed, unsigned=state.unsigned + loose)
    return with_round(state, members=(*rnd.members, member))


def _chained(state: State, header: envelope.Header, slot: Slot) -> tuple[State, bytes]:
    """The sender's chain moved on by a message that answers the open round; its transcript."""
    rnd = open_round(state)
    facts = rnd.facts
    require(header.announce == rnd.digest, "answers another announcement")
    require((header.run, header.round) == (facts.run, facts.round), "is of another round")
    require(header.suite == facts.suite, "is of another suite")
    same = (header.base_model, header.tree_spec) == (facts.base_model, facts.tree_spec)
    require(same, "was computed from another model or spec")
    require(header.sender not in state.registry.revoked, "is by a revoked client")
    chain = state.chains.get(header.sender, client.Chain())
    skip = session.MAX_SKIP if facts.caps.session else 0
    require(
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
    require(len(slot.header_bytes) == envelope.HEADER_SIZE, "has a header of another size")
    header = envelope.unpack(slot.header_bytes)
    require(header.type == kind, f"is of type {header.type}, expected {kind}")
    require(header.recipient == keys.key_id(session_of(state)[0].server), "is to another server")
    entry = state.registry.entries.get(header.sender)
    if entry is None:
        raise LogError(f"is by {header.sender.hex()}, who is not enrolled")
    require(header.key_epoch == entry.epoch, "is of another key epoch than its sender's")
    require(header.suite in entry.suites, "is of a suite that its sender is not enrolled for")
    if header.flags & envelope.SESSION or not envelope.suite(header.suite, unsafe=True).sealed:
        return header, 0
    require(
        server.proves(slot, entry.public, at.verifier),
        f"the signature of {header.sender.hex()} does not verify",
    )
    return header, 1


def _reject(state: State, fields: dict[str, Any], at: At) -> State:
    rnd = open_round(state)
    require((fields["run"], fields["round"]) == (rnd.run, rnd.number), "is of another round")
    require(fields["sender"] in state.registry.entries, "names a client that is not enrolled")
    refusal = Refusal(at.index, fields["sender"], fields["code"])
    return with_round(state, refusals=(*rnd.refusals, refusal))


def _equivocation(state: State, fields: dict[str, Any], at: At) -> State:
    rnd = open_round(state)
    slots = _slot(fields["first"]), _slot(fields["second"])
    kind = envelope.unpack(slots[0].header_bytes).type
    require(kind in envelope.CONTEXTS, f"its messages are of type {kind}, which nobody signs so")
    (one, signed), (two, both) = (_verified(state, slot, kind, at) for slot in slots)
    # A tag or nothing at all would convict whoever the server likes.
    require(signed > 0 and both > 0, "its two messages are not signed, and prove nothing")
    same = (one.run, one.round, one.sender, one.seq) == (two.run, two.round, two.sender, two.seq)
    here = (one.run, one.round) == (rnd.run, rnd.number)
    require(same and here, "its two updates are not for one slot of the round")
    differ = (slots[0].header_bytes, slots[0].digest) != (slots[1].header_bytes, slots[1].digest)
    require(differ, "its two updates are the same")
    state = state._replace(signatures=state.signatures + 2 * signed)
    return with_round(state, convictions=(*rnd.convictions, at.index))


def _survivors(state: State, fields: dict[str, Any], at: At) -> State:
    rnd, (opened, _) = open_round(state), session_of(state)
    facts, said = rnd.facts, sums.plan_of(fields["plan"])
    want = {
        "announce": rnd.digest, "run": rnd.run, "round": rnd.number,
        "server": keys.key_id(opened.server), "base_model": facts.base_model,
        "tree_spec": facts.tree_spec, "suite": facts.suite,
    }  # fmt: skip
    odd = [name for name, value in want.items() if said[name] != value]
    require(not odd, f"its plan is for another {' and '.join(odd)}")
    found, signed = sums.verify(fields, opened.server, state.registry, at.index, at.verifier)
    seen = {name for one in rnd.sums for name in one.survivors}
    require(not seen & set(found.survivors), "counts somebody twice")
    require(not state.registry.revoked & set(found.survivors), "counts a revoked client")
    state = state._replace(signatures=state.signatures + signed)
    return with_round(state, sums=(*rnd.sums, found))


def _result(state: State, fields: dict[str, Any], at: At) -> State:
    rnd = open_round(state)
    require((fields["run"], fields["round"]) == (rnd.run, rnd.number), "is of another round")
    found = len(rnd.members) + sum(len(one.survivors) for one in rnd.sums)
    require(
        fields["accepted"] == found, f"counts {fields['accepted']} accepted, the log has {found}"
    )
    models = {**state.models, rnd.number: (fields["model"], fields["spec"])}
    return with_round(state._replace(models=models), result=at.index, model=fields["model"])


def _final(state: State, fields: dict[str, Any], at: At) -> State:
    require(closed(state), "closes the run inside an open round")
    require(fields["run"] == session_of(state)[0].run, "closes another run")
    rounds = max(state.models) + 1
    require(fields["rounds"] == rounds, f"counts {fields['rounds']} rounds, the log has {rounds}")
    last = state.models[rounds - 1][0]
    require(fields["model"] == last, "names another model than the last round's")
    return state._replace(final=fields)


Check = Callable[[State, dict[str, Any], At], State]
_SLOT = {"header": bytes, "enc": bytes, "digest": bytes, "signature": bytes}
_ROUND = {"run": bytes, "round": int}
_SUM = {"plan": bytes, "members": list, "told": bytes, "confirmed": list, "sum": bytes}
KINDS: dict[str, tuple[Check, dict[str, type]]] = {
    "run": (_run, {**dict.fromkeys(Session._fields, bytes), "first": int}),
    "enrol": (_enrol, dict.fromkeys(keys.Entry._fields, object)),
    "registry": (
        _registry, {"serial": int, "authority": bytes, "revoked": list, "signature": bytes}
    ),
    "revoke": (_revoke, {"id": bytes, "notice": bytes}),
    "announce": (_announce, {"front": bytes, "model": bytes}),
    "hello": (_hello, {**_SLOT, "statement": bytes}),
    "update": (_update, _SLOT),
    "close": (_close, {"header": bytes, "signature": bytes, "statement": bytes}),
    "reject": (_reject, {**_ROUND, "sender": bytes, "code": str}),
    "equivocation": (_equivocation, {"first": dict, "second": dict}),
    "survivors": (_survivors, _SUM),
    "result": (
        _result, {**_ROUND, "accepted": int, "aggregate": bytes, "model": bytes, "spec": bytes}
    ),
    "final": (_final, {"run": bytes, "rounds": int, "model": bytes, "params": bytes}),
}  # fmt: skip
"""By kind of entry: its check, and the type of each of its fields."""


_BETWEEN = ("run", "enrol", "registry", "revoke")
"""What may follow a run's end: its continuation."""


def step(state: State, data: bytes, at: At) -> State:
    """The state after one more entry.

    Raises:
        LogError: with the entry's index and what is wrong with it.
    """
    kind = "?"
    try:
        fields = cbor.decode(data)
        found = fields.pop("kind", None) if isinstance(fields, dict) else None
        require(isinstance(found, str) and found in KINDS, "of no known kind")
        kind = str(found)
        require(fields.pop("version", None) == records.VERSION, "of another version")
        check, types = KINDS[kind]
        require(set(fields) == set(types), f"its fields are not those of {kind!r}")
        for name, want in types.items():
            require(isinstance(fields[name], want), f"field {name!r} is of another type")
        require(state.final is None or kind in _BETWEEN, "follows the run's end")
        return check(state._replace(final=None), fields, at)
    except (LogError, EnvelopeError) as error:
        raise LogError(f"entry {at.index} ({kind}): {error}", at.index) from None


def _slot(fields: dict[str, Any]) -> Slot:
    if set(fields) != set(_SLOT) or not all(isinstance(v, bytes) for v in fields.values()):
        raise LogError("its fields are not those of an update")
    return Slot(b"", fields["header"], fields["enc"], fields["digest"], fields["signature"])
