"""A round whose updates reach the server only as sums: quantised, masked, added, unmasked.

Agreeing on keys, sharing secrets and making masks go on beside the device's work, since they need
no input; masks hold 4 N bytes for each client, and are added when the whole cohort is quantised.
From then on the device waits, so workers sign for several clients at a time.

Clients that the participation model stops half-way leave in the middle of the protocol, at a step
that depends on the round and the client. Only what comes out of the masks enters the server's step.
"""

import hashlib
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qoejax.fed.engine import Engine
from qoejax.fed.state import ServerState
from qoejax.run import transparency, wired
from qoejax.run.sums import Session, Sums
from qoejax.types import Cohort, Examples
from qoejax.wire.log import records

LEAVES = ("keys", "ciphertexts", "shares", "input")
"""Steps at which a client that does not finish its work may leave: before its input is sent."""


def leaving_step(number: int, client: int, agreed: bool) -> str:
    """Where a client that does not finish leaves; with keys ``agreed`` it has left later."""
    steps = LEAVES[2:] if agreed else LEAVES
    draw = hashlib.sha256(b"leave" + number.to_bytes(8, "big") + client.to_bytes(8, "big")).digest()
    return steps[draw[0] % len(steps)]


def run_round(
    engine: Engine,
    session: Session,
    state: ServerState,
    examples: Examples,
    key: jax.Array,
    ledger: transparency.Ledger | None = None,
) -> tuple[ServerState, dict[str, Any], dict[str, Any]]:
    """One round of masked sums: the next state, the metrics and the wire's own report.

    With a ledger, all of the round is in the log before its state is returned. ``wait_s`` and
    ``share`` of the report are as in ``wired.run_round``; what went on beside the device is
    ``beside_s``.
    """
    start = time.perf_counter()
    halves = engine.masked(session.ring)
    _, model = wired.encoded(engine.sent(state))
    number = int(state.round)
    cohort = engine.cohort_for(state.round, key)
    parts = [engine.local(state, examples, piece, key) for piece in engine.slices(cohort)]
    encoded = halves.encode(state, cohort, parts, key)  # the device has its work from here on
    begun = time.perf_counter()
    facts, checkpoint = session.facts(), b""
    if ledger is not None:
        checkpoint = ledger.begin(facts, number, model)
    asked, leaves = _turnout(cohort, number, session.rules.epoch > 1)
    data, told = session.tell(number, model, list(asked), checkpoint)
    opened = session.begin(told, asked, leaves)
    beside = time.perf_counter() - begun
    words, sound = np.asarray(encoded.words), np.asarray(encoded.sound)
    begun = time.perf_counter()
    # Who has nothing finite to send has done everything before.
    leaves |= {i: "input" for i, slot in asked.items() if i not in leaves and not sound[slot]}
    found = session.sums(opened, {i: words[slot] for i, slot in asked.items()}, leaves)
    waited = time.perf_counter() - begun
    counted = np.zeros(len(words), bool)
    counted[[asked[i] for i in found.counted]] = True
    clipped = int(np.asarray(encoded.clipped)[counted].sum())
    state, metrics = halves.server(
        state, cohort, parts, encoded.attack_state, jnp.asarray(found.words), jnp.asarray(counted),
        key,
    )  # fmt: skip
    metrics = jax.device_get(metrics)
    report = _report(found, len(asked), len(model), clipped)
    logged = time.perf_counter()
    if ledger is not None:
        after = wired.digests(engine.sent(state))
        report["log"] = ledger.record(_entries(facts, data, found, number, after))
    now = time.perf_counter()
    waited += now - logged
    return state, metrics, report | {
        "beside_s": beside, "wait_s": waited, "share": waited / (now - start)
    }  # fmt: skip


def _entries(
    facts: records.Facts, data: bytes, found: Sums, number: int, after: tuple[bytes, bytes]
) -> list[bytes]:
    outcome = records.Outcome(
        run=facts.run, round=number, greetings={}, slots={}, rejected=found.refused, evidence=(),
        aggregate=hashlib.sha256(found.words.astype("<u4").tobytes()).digest(), model=after[0],
        spec=after[1], sums=[records.survivors(*each) for each in found.records],
        summed=len(found.counted),
    )  # fmt: skip
    return [records.announcement(data), *records.outcome(outcome)]


def _turnout(cohort: Cohort, number: int, epochs: bool) -> tuple[dict[int, int], dict[int, str]]:
    """Slots of those asked by client, and where those leave that do not finish."""
    ids, weight = np.asarray(cohort.client_id), np.asarray(cohort.weight)
    asked = {int(client): slot for slot, client in enumerate(ids) if client >= 0}
    leaves = {
        client: leaving_step(number, client, epochs)
        for client, slot in asked.items()
        if weight[slot] <= 0
    }
    return asked, leaves


def _report(found: Sums, asked: int, model: int, clipped: int) -> dict[str, Any]:
    """What the round cost, but for time on the wall."""
    down, spent = found.down + asked * model, math.fsum(found.seconds.values())
    return {
        "bytes_up": found.up,
        "bytes_down": down,
        "accepted": len(found.counted),
        "rejected": dict(sorted(found.rejected.items())),
        "clipped": clipped,
        "seconds": {**found.steps, "server": found.server},
        "client": wired.each(asked, found.up, down, spent),
        "clients_s": spent,
        "server_s": found.server,
    }
