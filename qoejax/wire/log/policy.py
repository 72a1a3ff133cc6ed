"""Trust policies in the format of C2SP tlog-policy: known logs, witnesses, and the quorum."""

from collections.abc import Iterable
from typing import NamedTuple

from qoejax.wire.log import note
from qoejax.wire.log.errors import LogError
from qoejax.wire.log.note import Note, Verifier

NONE = "none"


class Witness(NamedTuple):
    """A witness: its key, and where it answers ("" if nowhere)."""

    verifier: Verifier
    url: str


class Group(NamedTuple):
    """Members of which ``threshold`` must have witnessed."""

    threshold: int
    members: tuple[str, ...]


class Policy(NamedTuple):
    """Logs by origin, witnesses and groups by name, and the name that makes a quorum."""

    logs: dict[str, Verifier]
    witnesses: dict[str, Witness]
    groups: dict[str, Group]
    quorum: str


class Verdict(NamedTuple):
    """Who signed a checkpoint and when (Unix seconds), and whether that is enough."""

    log: int
    witnesses: dict[str, int]
    quorum: bool
    unknown: int


def parse(text: str) -> Policy:
    """The policy of a file; LogError names the line that is wrong."""
    found = Policy({}, {}, {}, "")
    for number, line in enumerate(text.split("\n"), 1):
        words = line.replace("\t", " ").split(" ")
        words = [word for word in words if word]
        if not words or words[0].startswith("#"):
            continue
        try:
            found = _line(found, words)
        except LogError as error:
            raise LogError(f"policy, line {number}: {error}") from None
    if not found.quorum:
        raise LogError(f"policy: expected one quorum line, 'quorum {NONE}' to ask for no witness")
    return found


def _line(found: Policy, words: list[str]) -> Policy:
    kind, rest = words[0], words[1:]
    known = {NONE, *found.witnesses, *found.groups}
    if kind == "log" and len(rest) in (1, 2):
        one = note.parse_vkey(rest[0])
        if one.name in found.logs or _duplicate(one, found.logs.values()):
            raise LogError(f"log {one.name!r} appears twice")
        return found._replace(logs={**found.logs, one.name: one})
    if kind == "witness" and len(rest) in (2, 3):
        one = note.parse_vkey(rest[1])
        others = (w.verifier for w in found.witnesses.values())
        if rest[0] in known or _duplicate(one, others):
            raise LogError(f"witness {rest[0]!r} appears twice")
        made = Witness(one, rest[2] if len(rest) == 3 else "")
        return found._replace(witnesses={**found.witnesses, rest[0]: made})
    if kind == "group" and len(rest) >= 3:
        name, count, members = rest[0], rest[1], tuple(rest[2:])
        taken = {m for group in found.groups.values() for m in group.members}
        if name in known:
            raise LogError(f"group {name!r} appears twice")
        for member in members:
            if member not in known - {NONE} or member in taken or members.count(member) > 1:
                raise LogError(f"group {name!r}: member {member!r} is unknown or used twice")
        threshold = {"any": 1, "all": len(members)}.get(count) or note.decimal(count)
        if not 1 <= threshold <= len(members):
            raise LogError(f"group {name!r}: {threshold} of {len(members)} members")
        return found._replace(groups={**found.groups, name: Group(threshold, members)})
    if kind == "quorum" and len(rest) == 1:
        if found.quorum:
            raise LogError("a second quorum line")
        if rest[0] not in known:
            raise LogError(f"quorum {rest[0]!r} is neither a witness nor a group defined before")
        return found._replace(quorum=rest[0])
    raise LogError(f"expected 'log', 'witness', 'group' or 'quorum', got {' '.join(words)[:40]!r}")


def _duplicate(one: Verifier, others: Iterable[Verifier]) -> bool:
    return any(one.public == other.public for other in others)


def render(policy: Policy) -> str:
    """The file of a policy."""
    lines = [f"log {log.vkey}" for log in policy.logs.values()]
    for name, one in policy.witnesses.items():
        lines.append(f"witness {name} {one.verifier.vkey} {one.url}".rstrip())
    for name, group in policy.groups.items():
        lines.append(f"group {name} {group.threshold} {' '.join(group.members)}")
    return "\n".join([*lines, f"quorum {policy.quorum}", ""])


def met(policy: Policy, name: str, signed: Iterable[str]) -> bool:
    """Whether witnesses ``signed`` satisfy a witness, a group or ``none``."""
    signed = set(signed)
    if name == NONE or name in policy.witnesses:
        return name == NONE or name in signed
    group = policy.groups[name]
    return sum(met(policy, m, signed) for m in group.members) >= group.threshold


def check(policy: Policy, signed: Note, provider: str = "openssl") -> Verdict:
    """Verifies every known signature of a checkpoint.

    Raises:
        LogError: the log is unknown or did not sign, or a known signature does not verify.
    """
    origin = signed.checkpoint.origin
    log = policy.logs.get(origin)
    if log is None:
        raise LogError(f"checkpoint of the log {origin!r}, which the policy does not know")
    time = note.verify(signed, log, provider)
    if time is None:
        raise LogError(f"checkpoint of size {signed.checkpoint.size}: not signed by its log")
    seen = {}
    for name, one in policy.witnesses.items():
        when = note.verify(signed, one.verifier, provider)
        if when is not None:
            seen[name] = when
    unknown = len(signed.signatures) - 1 - len(seen)
    return Verdict(time, seen, met(policy, policy.quorum, seen), unknown)
