"""log.html: a run's transparency log for people: rounds, participants, refusals, proofs.

One self-contained page. It holds every leaf hash, so that the browser itself recomputes the proof
that an entry is under the signed root.
"""

import base64
import datetime
import pathlib
from collections import Counter
from typing import Any

from qoejax.run import files, pages, verify
from qoejax.wire import keys
from qoejax.wire.log.audit import Report
from qoejax.wire.log.chain import Round
from qoejax.wire.log.errors import LogError

MOST_ROUNDS = 500
"""Rounds whose participants are listed, the last ones: a page must stay readable."""


def _time(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")


def _short(name: bytes) -> str:
    return name.hex()[: keys.ID_SIZE]


def _round(rnd: Round, live: bool) -> dict[str, Any]:
    refusals = Counter(r.code for r in rnd.refusals)
    return {
        "number": rnd.number,
        "live": live,
        "entry": rnd.entry,
        "result": rnd.result,
        "model": rnd.model.hex()[:16],
        "members": [
            {
                "entry": m.entry,
                "who": _short(m.sender),
                "seq": m.seq,
                "n": m.n_samples,
                "signed": m.signed,
            }
            for m in rnd.members
        ],
        "refusals": [
            {"entry": r.entry, "who": _short(r.sender), "code": r.code} for r in rnd.refusals
        ],
        "convictions": list(rnd.convictions),
        "sums": [
            {"entry": one.entry, "members": len(one.survivors), "confirmed": one.confirmed}
            for one in rnd.sums
        ],
        "codes": ", ".join(f"{code} {n}" for code, n in sorted(refusals.items())),
    }


def _participants(report: Report) -> list[dict[str, Any]]:
    state = report.state
    accepted, refused = Counter(), Counter()
    for rnd in state.rounds:
        accepted.update(m.sender for m in rnd.members)
        accepted.update(name for one in rnd.sums for name in one.survivors)
        refused.update(r.sender for r in rnd.refusals)
    return [
        {
            "who": _short(name),
            "accepted": accepted[name],
            "refused": refused[name],
            "revoked": name in state.registry.revoked,
        }
        for name in sorted(state.registry.entries)
    ]


def facts(report: Report) -> dict[str, Any]:
    """All that the page shows of a log that holds."""
    last: dict[tuple[bytes, int], int] = {}
    superseded = set()
    for at, rnd in enumerate(report.state.rounds):
        # A run that was killed and resumed repeats rounds: the later ones count.
        for key in [key for key in last if key[1] >= rnd.number]:
            superseded.add(last.pop(key))
        last[rnd.run, rnd.number] = at
    rounds = [_round(rnd, at not in superseded) for at, rnd in enumerate(report.state.rounds)]
    leaves = b"".join(report.tree.leaf(i) for i in range(report.tree.size))
    head = report.heads[-1]
    return {
        "origin": head.note.checkpoint.origin,
        "size": report.tree.size,
        "root": head.note.checkpoint.root.hex(),
        "time": _time(head.verdict.log),
        "signatures": report.signatures,
        "runs": len(report.state.runs),
        "rounds": rounds[-MOST_ROUNDS:],
        "hidden": max(0, len(rounds) - MOST_ROUNDS),
        "participants": _participants(report),
        "heads": [
            {
                "size": h.note.checkpoint.size,
                "root": h.note.checkpoint.root.hex(),
                "time": _time(h.verdict.log),
                "witnesses": sorted(h.verdict.witnesses),
            }
            for h in report.heads[-MOST_ROUNDS:]
        ],
        "witnesses": {name: _time(when) for name, when in head.verdict.witnesses.items()},
        "updates": sum(len(r.members) for r in report.state.rounds),
        "summed": sum(len(one.survivors) for r in report.state.rounds for one in r.sums),
        "refused": sum(len(r.refusals) for r in report.state.rounds),
        "leaves": base64.b64encode(leaves).decode(),
    }


def write(workdir: pathlib.Path) -> dict[str, Any] | None:
    """Audits the run's log and writes ``log.html``; its facts, or None where there is no log.

    A log that does not hold gets a page that says what is wrong with it.
    """
    if not (workdir / "log").is_dir():
        return None
    try:
        found, problem = facts(verify.audit_run(workdir)), ""
    except LogError as error:
        found, problem = {}, str(error)
    page = pages.render("log.html", log=found, problem=problem, name=workdir.name)
    files.write_bytes(workdir / "log.html", page.encode())
    return found | {"problem": problem}
