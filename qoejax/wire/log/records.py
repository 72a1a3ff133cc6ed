"""What entries hold: one deterministic CBOR map each, made from an exchange's plain records.

| kind | fields |
|---|---|
| run | run, manifest (signed), server (key), first (round), model, config, policy (digests) |
| enrol | an entry of the registry, with its proof of possession |
| registry | serial, authority, revoked, signature: who says that all the entries so far may send |
| revoke | id, notice (signed) |
| announce | front (header, body and signature as sent), model (SHA-512, as sent) |
| hello | as update, and statement: what it signs of the session before |
| update | header, enc, digest, signature: proof of who sent it, without the payload |
| close | header, signature, statement: signs for a session's updates when no HELLO follows |
| reject | run, round, sender, code |
| equivocation | first, second: two signed updates for one slot |
| survivors | plan, members, told, confirmed (signed frames), sum (digest): a secure sum |
| result | run, round, accepted, aggregate, model, spec |
| final | run, rounds, model, params |
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from qoejax.wire import cbor, enrolment, envelope, keys
from qoejax.wire.enrolment import SignedRegistry
from qoejax.wire.keys import Registry
from qoejax.wire.log.errors import LogError
from qoejax.wire.revocation import PAYLOAD_SIZE
from qoejax.wire.server import Slot

VERSION = 1


class Facts(NamedTuple):
    """What anybody may know of an exchange.

    Attributes:
        run: id [16].
        manifest: what holds for the whole run, signed (``wire.manifest``).
        server: public key of the server.
        registry: enrolled and revoked clients.
        notices: every REVOKE of the run, in order.
        ids: id [16] of each client, in order of index.
        signed: the registry as its authority signed it, None without one.
    """

    run: bytes
    manifest: bytes
    server: bytes
    registry: Registry
    notices: tuple[bytes, ...]
    ids: tuple[bytes, ...]
    signed: SignedRegistry | None = None


class Session(NamedTuple):
    """One stretch of a run under one run id: a run that was killed and resumed has several.

    Attributes:
        run: id [16].
        manifest: the signed manifest: suite, spec, sessions, confidentiality.
        server: public key of the server.
        first: number of its first round.
        model: ``codec.model_digest`` [32] of the model that round ``first`` begins with.
        config: SHA-256 [32] of the configuration.
        policy: SHA-256 [32] of the log's policy file.
    """

    run: bytes
    manifest: bytes
    server: bytes
    first: int
    model: bytes
    config: bytes
    policy: bytes


class Outcome(NamedTuple):
    """What came out of a round.

    Attributes:
        run: id [16].
        round: its number.
        greetings: every accepted HELLO, by sender.
        slots: proof of every accepted update, by sender; signed, except in a session.
        rejected: code by the id of the client in whose place something was refused.
        evidence: pairs of signed updates that claim one slot.
        aggregate: SHA-256 [32] of the sums where there are any (secure aggregation), else empty.
        model: digest [32] of the model that the next round begins with.
        spec: ``codec.spec_digest`` [32] of that model.
        sums: entries of secure sums, made by ``survivors``.
        summed: number of clients in them.
    """

    run: bytes
    round: int
    greetings: Mapping[bytes, Slot]
    slots: Mapping[bytes, Slot]
    rejected: Mapping[bytes, str]
    evidence: Sequence[tuple[Slot, Slot]]
    aggregate: bytes
    model: bytes
    spec: bytes
    sums: Sequence[bytes] = ()
    summed: int = 0


def entry(kind: str, **fields: cbor.Value) -> bytes:
    """The bytes of an entry."""
    return cbor.encode({"kind": kind, "version": VERSION, **fields})


def session(opened: Session) -> bytes:
    """The entry that opens a run, or goes on with it."""
    return entry("run", **opened._asdict())


def registry_changes(
    before: Registry,
    after: Registry,
    notices: Iterable[bytes],
    signed: SignedRegistry | None = None,
) -> list[bytes]:
    """Entries for all that was enrolled and revoked since ``before``.

    ``signed`` is an authority's registry that the log does not have yet.

    Raises:
        LogError: someone is no longer enrolled as before, or no longer revoked: a log cannot take
            it back.
    """
    lost = (before.entries.keys() - after.entries.keys()) | (before.revoked - after.revoked)
    if lost:
        raise LogError(f"client {min(lost).hex()} is in the log, and is not what it was")
    for name, one in before.entries.items():
        if after.entries[name]._replace(proof=b"") != one._replace(proof=b""):
            raise LogError(f"client {name.hex()} is in the log with another enrolment")
    new = [name for name in sorted(after.entries) if name not in before.entries]
    gone = [notice for notice in notices if notice[-PAYLOAD_SIZE:-4] not in before.revoked]
    return [
        *(entry("enrol", **enrolment.pack_entry(after.entries[name])) for name in new),
        *([] if signed is None else [_registry(signed)]),
        *(entry("revoke", id=notice[-PAYLOAD_SIZE:-4], notice=notice) for notice in gone),
    ]


def _registry(signed: SignedRegistry) -> bytes:
    return entry(
        "registry",
        serial=signed.serial,
        authority=signed.authority,
        revoked=sorted(signed.registry.revoked),
        signature=signed.signature,
    )


def announcement(data: bytes) -> bytes:
    """The entry of an announcement, which ends in the model: plain, or encrypted."""
    end = len(data) - envelope.unpack(data).payload_len
    return entry("announce", front=data[:end], model=hashlib.sha512(data[end:]).digest())


def _slot(slot: Slot) -> dict[str, cbor.Value]:
    return {
        "header": slot.header_bytes,
        "enc": slot.enc,
        "digest": slot.digest,
        "signature": slot.signature,
    }


def closing(slot: Slot) -> bytes:
    """The entry of a CLOSE."""
    return entry(
        "close", header=slot.header_bytes, signature=slot.signature, statement=slot.statement
    )


def outcome(done: Outcome) -> list[bytes]:
    """Entries of a round after its announcement, senders in order of id."""
    where = {"run": done.run, "round": done.round}
    accepted = [done.slots[name] for name in sorted(done.slots)]
    greeted = [done.greetings[name] for name in sorted(done.greetings)]
    return [
        *(entry("hello", **_slot(slot), statement=slot.statement) for slot in greeted),
        *(entry("update", **_slot(slot)) for slot in accepted),
        *done.sums,
        *(
            entry("reject", **where, sender=name, code=str(done.rejected[name]))
            for name in sorted(done.rejected)
        ),
        *(entry("equivocation", first=_slot(a), second=_slot(b)) for a, b in done.evidence),
        entry(
            "result",
            **where,
            accepted=len(accepted) + done.summed,
            aggregate=done.aggregate,
            model=done.model,
            spec=done.spec,
        ),
    ]


def survivors(
    plan: bytes,
    members: Iterable[bytes],
    told: bytes,
    confirmed: Mapping[bytes, bytes],
    total: bytes,
) -> bytes:
    """The entry of one secure sum.

    Args:
        plan: the round's plan, encoded.
        members: ids of all who joined; the sets in ``told`` are bits in their order.
        told: the server's signed SURVIVORS frame.
        confirmed: the members' signed CONFIRM frames, by id.
        total: SHA-256 [32] of the sum.
    """
    frames = [[name, confirmed[name]] for name in sorted(confirmed)]
    return entry(
        "survivors", plan=plan, members=sorted(members), told=told, confirmed=frames, sum=total
    )


def final(run: bytes, rounds: int, model: bytes, params: bytes) -> bytes:
    """The entry that closes a run: the last model, and SHA-256 [32] of the saved parameters."""
    return entry("final", run=run, rounds=rounds, model=model, params=params)


class Known(NamedTuple):
    """Who a log says is enrolled and revoked, and the serial number of its authority's registry."""

    registry: Registry
    serial: int


def known(entries: Iterable[bytes]) -> Known:
    """What a log's entries add up to, proofs unchecked: to go on from."""
    found: dict[bytes, keys.Entry] = {}
    revoked, serial = set(), -1
    for data in entries:
        fields = cbor.decode(data)
        if fields["kind"] == "enrol":
            one = enrolment.unpack_entry({k: fields[k] for k in keys.Entry._fields})
            found[one.id] = one
        elif fields["kind"] == "revoke":
            revoked.add(fields["id"])
        elif fields["kind"] == "registry":
            revoked.update(fields["revoked"])
            serial = fields["serial"]
    return Known(Registry(found, frozenset(revoked)), serial)
