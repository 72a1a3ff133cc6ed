"""What the transparency log adds to a round of many clients, and what re-checking it costs.

    python -m experiments.bench.log

A ``log`` line has milliseconds a round, median over rounds: building the entries, appending them
(hashing, two fsyncs, signing and renaming a checkpoint), both wall-clock and CPU; ``ratio`` is the
log's CPU over that of the exchange itself (seal, open, check, announce). A ``witness`` line has
those of one witness, without the network: verify, check consistency, cosign, fsync. An ``audit``
line has the CPU milliseconds of re-checking the whole log, by entry.
"""

import argparse
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.bench.common import emit
from qoejax.run import transparency
from qoejax.wire import codec, sign
from qoejax.wire.exchange import Exchange
from qoejax.wire.keyfile import Pair
from qoejax.wire.log import audit, merkle, note, policy, proof, store, witness
from qoejax.wire.log.note import Cosigner


def _cosigner(name: str, signer: str) -> Cosigner:
    return Cosigner(name, signer, *Pair(*sign.provider(signer, note.SCHEME).generate()))


def _timed(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result, wall-clock seconds and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    out = function()
    return out, time.perf_counter() - wall, time.process_time() - cpu


def rounds(folder: pathlib.Path, signer: str, clients: int, size: int, count: int) -> dict:
    """Rounds of an exchange, logged; the first one warms up and is not counted."""
    key = _cosigner("bench/log", signer)
    trusted = policy.Policy({key.verifier.name: key.verifier}, {}, {}, policy.NONE)
    spec = codec.tree_spec([("leaf", (size // 4,), "f4")])
    payload = codec.encode(spec, [np.zeros(size // 4, np.float32)])
    digests = codec.model_digest(payload), codec.spec_digest(spec)
    seen: dict[str, list[float]] = {}
    entries: list[bytes] = []
    with (
        transparency.Ledger(folder, key, trusted, bytes(32)) as ledger,
        Exchange(clients=clients, spec=spec, signer=signer, mode="threads", workers=2) as wire,
    ):
        for number in range(count + 1):
            facts = wire.facts()
            checkpoint = ledger.begin(facts, number, payload)
            data = wire.begin_round(number, payload, log=checkpoint)
            for i in range(clients):
                wire.submit(i, payload, 1)
            result = wire.finish_round()
            entries, wall, cpu = _timed(
                lambda: transparency.round_entries(facts, data, result, number, digests)  # noqa: B023
            )
            _, more, work = _timed(lambda: ledger.record(entries))  # noqa: B023
            exchange = sum(result.seconds[k] for k in ("seal", "open", "check", "announce"))
            row = {"build": wall, "append": more, "cpu": cpu + work, "exchange": exchange}
            for name, seconds in row.items():
                seen.setdefault(name, []).append(seconds)
    median = {name: statistics.median(values[1:]) for name, values in seen.items()}
    return {
        "bench": "log",
        "signer": signer,
        "clients": clients,
        "payload_bytes": size,
        "entries": len(entries),
        "entry_bytes": sum(map(len, entries)),
        "bytes_an_update": round(sum(map(len, entries)) / clients),
        "build_ms": _ms(median["build"]),
        "append_ms": _ms(median["append"]),
        "cpu_ms": _ms(median["cpu"]),
        "exchange_cpu_ms": _ms(median["exchange"]),
        "ratio": round(median["cpu"] / median["exchange"], 4),
        "rounds": count,
    }


def witnessing(folder: pathlib.Path, signer: str, count: int) -> dict:
    """One witness that follows a log growing by 100 entries at a time."""
    log, own = _cosigner("bench/log", signer), _cosigner("bench/w", signer)
    folder.mkdir()
    one = witness.Witness(own, {log.verifier.name: log.verifier}, folder)
    tree = merkle.Tree()
    walls, cpus = [], []
    for number in range(count + 1):
        old = tree.size
        for i in range(100):
            tree.append(merkle.leaf_hash(b"%d" % (100 * number + i)))
        head = note.Checkpoint(log.verifier.name, tree.size, tree.root())
        signed = note.assemble(head, log.line(head, number))
        body = proof.request(old, tree.consistency(old), signed)
        answer, wall, cpu = _timed(lambda: witness.add_checkpoint(one, body, 1))  # noqa: B023
        if answer.status != 200:
            raise RuntimeError(f"the witness answered {answer.status}: {answer.body}")
        walls.append(wall)
        cpus.append(cpu)
    return {
        "bench": "witness",
        "signer": signer,
        "wall_ms": _ms(statistics.median(walls[1:])),
        "cpu_ms": _ms(statistics.median(cpus[1:])),
        "rounds": count,
    }


def auditing(folder: pathlib.Path, verifier: str) -> dict:
    """Re-checking a whole log."""
    own = policy.parse((folder / "policy").read_text())
    contents = store.read(folder)
    report, wall, cpu = _timed(lambda: audit.audit(contents, own, verifier=verifier))
    return {
        "bench": "audit",
        "verifier": verifier,
        "entries": report.tree.size,
        "signatures": report.signatures,
        "wall_ms": _ms(wall),
        "cpu_ms": _ms(cpu),
        "cpu_ms_an_entry": _ms(cpu / report.tree.size),
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 4)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses flags, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--signers", nargs="+", default=["openssl", "pqcrypto"])
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--size", type=int, default=100_000, help="bytes of one update")
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args(arguments)
    for signer in chosen.signers:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            emit(rounds(folder / "log", signer, chosen.clients, chosen.size, chosen.rounds))
            emit(witnessing(folder / "w", signer, chosen.rounds))
            emit(auditing(folder / "log", signer))


if __name__ == "__main__":
    main()
