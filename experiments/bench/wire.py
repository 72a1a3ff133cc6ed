"""Cost of one envelope, and of a round of many, by signer. One JSON line each.

    python -m experiments.bench.wire

An ``envelope`` line has milliseconds of CPU (median of interleaved repetitions, and minimum) to
seal and to open one update, the parts of both, and the bytes beyond the payload; ``ratio_seal``
and ``ratio_open`` are against the openssl signer at the same size. An ``exchange`` line has the
wall-clock seconds of a round of simulated clients through a pool, announcement included, and its
median ``cpu_s``; ``ratio`` is against one thread of the same signer.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from qoejax.wire import announce, client, codec, envelope, kem, keys, server
from qoejax.wire.clock import Clock
from qoejax.wire.exchange import Exchange

_PARTS = ("kem", "sign", "verify", "aead", "hash", "codec")


def _environment() -> dict[str, Any]:
    packages = ("cryptography", "numpy", "pqcrypto", "qoejax")
    return {
        "python": platform.python_version(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def _round(
    signer: str, size: int
) -> tuple[server.Round, kem.Secret, keys.Identity, codec.TreeSpec, list[np.ndarray]]:
    """An open round of one client whose update has ``size`` bytes."""
    spec = codec.tree_spec([("leaf", (size // 4,), "f4")])
    leaves = [np.random.default_rng(0).standard_normal(size // 4, np.float32)]
    boss, one = keys.generate(signer), keys.generate(signer)
    registry = keys.register([keys.enrol(one, (envelope.DEFAULT,))], verifier=signer)
    public, secret = kem.keygen()
    facts = announce.Announce(
        run=bytes(16),
        round=0,
        suite=envelope.DEFAULT,
        previous=announce.ZERO,
        base_model=codec.model_digest(b""),
        tree_spec=codec.spec_digest(spec),
        round_key=public,
        registry=keys.registry_digest(registry),
        clients=keys.clients_digest([one.id]),
        deadline=0,
        caps=announce.Caps(),
        log=b"",
    )
    _, told = announce.publish(boss, facts, b"")
    rnd = server.Round(told, spec, registry, frozenset([one.id]))
    return rnd, secret, one, spec, leaves


def envelopes(signers: Sequence[str], sizes: Sequence[int], repeats: int) -> Iterator[dict]:
    """One line for each size and signer; signers take turns, so they meet the same neighbours."""
    for size in sizes:
        rounds = {signer: _round(signer, size) for signer in signers}
        seen: dict[str, list[dict[str, float]]] = {signer: [] for signer in signers}
        length = 0
        for _ in range(repeats + 1):
            for signer, (rnd, secret, one, spec, leaves) in rounds.items():
                clock = Clock()
                with clock("seal"):
                    sealed = client.seal(spec, leaves, one, rnd.announced, n_samples=1, clock=clock)
                empty = server.State({}, {})
                with clock("open"):
                    server.open(
                        rnd, empty, sealed.envelope, secret, 0, verifier=signer, clock=clock
                    )
                length = len(sealed.envelope)
                seen[signer].append(clock.seconds)
        median = {s: _median(rows[1:]) for s, rows in seen.items()}
        for signer in signers:
            base = median.get("openssl", median[signer])
            extra = length - codec.nbytes(rounds[signer][3])
            yield {
                "bench": "envelope",
                "signer": signer,
                "payload_bytes": size,
                "extra_bytes": extra,
                "extra_share": round(extra / size, 6),
                "seal_ms": _ms(median[signer]["seal"]),
                "open_ms": _ms(median[signer]["open"]),
                "seal_min_ms": _ms(min(row["seal"] for row in seen[signer][1:])),
                "open_min_ms": _ms(min(row["open"] for row in seen[signer][1:])),
                "parts_ms": {name: _ms(median[signer][name]) for name in _PARTS},
                "ratio_seal": round(median[signer]["seal"] / base["seal"], 3),
                "ratio_open": round(median[signer]["open"] / base["open"], 3),
                "repeats": repeats,
            }


def exchanges(signers: Sequence[str], clients: int, size: int, rounds: int) -> Iterator[dict]:
    """One line for each signer, kind of pool and number of workers."""
    spec = codec.tree_spec([("leaf", (size // 4,), "f4")])
    payload = codec.encode(spec, [np.zeros(size // 4, np.float32)])
    payloads = dict.fromkeys(range(clients), payload)
    samples = dict.fromkeys(range(clients), 1)
    for signer in signers:
        base = None
        for mode, workers in (("threads", 1), ("threads", 2), ("processes", 1), ("processes", 2)):
            settings = {"clients": clients, "spec": spec, "signer": signer}
            with Exchange(**settings, mode=mode, workers=workers) as one:
                results = [one.round(i, payload, payloads, samples) for i in range(rounds + 1)][1:]
            walls = [result.seconds["wall"] for result in results]
            cpu = [sum(r.seconds[k] for k in ("seal", "open", "check")) for r in results]
            wall = statistics.median(walls)
            base = wall if base is None else base
            yield {
                "bench": "exchange",
                "signer": signer,
                "mode": mode,
                "workers": workers,
                "clients": clients,
                "payload_bytes": size,
                "round_s": round(wall, 4),
                "round_min_s": round(min(walls), 4),
                "cpu_s": round(statistics.median(cpu), 4),
                "updates_per_s": round(clients / wall, 1),
                "bytes_up": results[-1].bytes_up,
                "bytes_down": results[-1].bytes_down,
                "ratio": round(wall / base, 3),
                "rounds": rounds,
            }


def _median(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 4)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses flags, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--signers", nargs="+", default=["pqcrypto", "openssl"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=60, help="envelopes of each kind")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds of each pool")
    chosen = parser.parse_args(arguments)
    environment = _environment()
    for row in envelopes(chosen.signers, chosen.sizes, chosen.repeats):
        print(json.dumps(row | environment), flush=True)
    for row in exchanges(chosen.signers, chosen.clients, chosen.sizes[0], chosen.rounds):
        print(json.dumps(row | environment), flush=True)


if __name__ == "__main__":
    main()
