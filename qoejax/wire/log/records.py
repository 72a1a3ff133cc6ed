"""What entries hold: one deterministic CBOR map each, made from an exchange's plain records.

| kind | fields |
|---|---|
| run | run, suite, server (key), first (round), model, spec, config, policy (digests) |
| enrol, revoke | an entry of the registry with its proof; an id |
| announce | front (header, body and signature as sent), model (SHA-512) |
| update | header, enc, digest, signature: proof of who sent it, without the payload |
| reject | run, round, sender, code |
| equivocation | first, second: two signed updates for one slot |
| survivors | run, round, ids, sum (digest), signed: secure aggregation's agreed set |
| result | run, round, accepted, aggregate, model, spec |
| final | run, rounds, model, params |
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from qoejax.wire import cbor, enrolment, keys
from qoejax.wire.keys import Registry
from qoejax.wire.server import Slot

VERSION = 1


class Facts(NamedTuple):
    """What anybody may know of an exchange.

    Attributes:
        run: id [16].
        suite: number of the suite.
        server: public key of the server.
        registry: enrolled and revoked clients.
        ids: id [16] of each client, in order of index.
    """

    run: bytes
    suite: int
    server: bytes
    registry: Registry
    ids: tuple[bytes, ...]


class Session(NamedTuple):
    """One stretch of a run under one run id: a run that was killed and resumed has several.

    Attributes:
        run: id [16].
        suite: number of the suite.
        server: public key of the server.
        first: number of its first round.
        model: ``codec.model_digest`` [32] of the model that round ``first`` begins with.
        spec: ``codec.spec_digest`` [32] of an update.
        config: SHA-256 [32] of the configuration.
        policy: SHA-256 [32] of the log's policy file.
    """

    run: bytes
    suite: int
    server: bytes
    first: int
    model: bytes
    spec: bytes
    config: bytes
    policy: bytes


class Outcome(NamedTuple):
    """What came out of a round.

    Attributes:
        run: id [16].
        round: its number.
        slots: signed proof of every accepted update, by sender.
        rejected: code by the id of the client in whose place something was refused.
        evidence: pairs of signed updates that claim one slot.
        aggregate: SHA-256 [32] of the sum where there is one (secure aggregation), else empty.
        model: digest [32] of the model that the next round begins with.
        spec: ``codec.spec_digest`` [32] of that model.
    """

    run: bytes
    round: int
    slots: Mapping[bytes, Slot]
    rejected: Mapping[bytes, str]
    evidence: Sequence[tuple[Slot, Slot]]
    aggregate: bytes
    model: bytes
    spec: bytes


def entry(kind: str, **fields: cbor.Value) -> bytes:
    """The bytes of an entry."""
    return cbor.encode({"kind": kind, "version": VERSION, **fields})


def session(opened: Session) -> bytes:
    """The entry that opens a run, or goes on with it."""
    return entry("run", **opened._asdict())


def registry_changes(before: Registry, after: Registry) -> list[bytes]:
    """Entries for all that was enrolled and revoked since ``before``."""
    new = [name for name in sorted(after.entries) if name not in before.entries]
    gone = sorted(after.revoked - before.revoked)
    return [
        *(entry("enrol", **enrolment.pack_entry(after.entries[name])) for name in new),
        *(entry("revoke", id=name) for name in gone),
    ]


def announcement(data: bytes, model: bytes) -> bytes:
    """The entry of an announcement ``data``, which ends in the encoded ``model``."""
    front = data[: len(data) - len(model)]
    return entry("announce", front=front, model=hashlib.sha512(model).digest())


def _slot(slot: Slot) -> dict[str, cbor.Value]:
    return {
        "header": slot.header_bytes,
        "enc": slot.enc,
        "digest": slot.digest,
        "signature": slot.signature,
    }


def outcome(done: Outcome) -> list[bytes]:
    """Entries of a round after its announcement, senders in order of id."""
    where = {"run": done.run, "round": done.round}
    accepted = [done.slots[name] for name in sorted(done.slots)]
    return [
        *(entry("update", **_slot(slot)) for slot in accepted),
        *(
            entry("reject", **where, sender=name, code=str(done.rejected[name]))
            for name in sorted(done.rejected)
        ),
        *(entry("equivocation", first=_slot(a), second=_slot(b)) for a, b in done.evidence),
        entry(
            "result",
            **where,
            accepted=len(accepted),
            aggregate=done.aggregate,
            model=done.model,
            spec=done.spec,
        ),
    ]


def survivors(
    run: bytes, number: int, ids: Iterable[bytes], total: bytes, signed: Mapping[bytes, bytes]
) -> bytes:
    """The entry of a secure sum: who is in it, its digest [32], and who signed the set."""
    return entry(
        "survivors",
        run=run,
        round=number,
        ids=sorted(ids),
        sum=total,
        signed=[[name, signed[name]] for name in sorted(signed)],
    )


def final(run: bytes, rounds: int, model: bytes, params: bytes) -> bytes:
    """The entry that closes a run: the last model, and SHA-256 [32] of the saved parameters."""
    return entry("final", run=run, rounds=rounds, model=model, params=params)


def known_registry(entries: Iterable[bytes]) -> Registry:
    """The registry that a log's entries add up to, proofs unchecked: to go on from."""
    found: dict[bytes, keys.Entry] = {}
    revoked = set()
    for data in entries:
        fields = cbor.decode(data)
        if fields["kind"] == "enrol":
            one = enrolment.unpack_entry({k: fields[k] for k in keys.Entry._fields})
            found[one.id] = one
        elif fields["kind"] == "revoke":
            revoked.add(fields["id"])
    return Registry(found, frozenset(revoked))
