"""Cost of one envelope by suite and signer, and of a round of many. One JSON line each.

    python -m experiments.bench.wire

An ``envelope`` line has milliseconds of CPU (median of interleaved repetitions, and minimum) to
seal and to open one update, the parts of both, and the bytes beyond the payload; a ``session`` line
the same for an update in a session. ``ratio_seal`` and ``ratio_open`` are against the openssl
signer and suite 0x0001 at the same size, where that was measured, else the first line of it. An
``exchange`` line has the wall-clock seconds of a round of simulated clients through a pool,
announcement included, and its median ``cpu_s``; ``ratio`` is against one thread of the same signer.

A ``tls`` line has the CPU of both ends of a classical TLS 1.3 connection with certificates at both
ends and the same payload, its bytes beyond the payload, and what the same update costs here with
the openssl provider: ``ratio`` is ours over theirs, ``ratio_announced`` with the client's reading
of a round's announcement on our side. An ``aggregation`` line is a client's part of one sum, by our
secure aggregation, Flower's SecAgg+ or CKKS (``experiments.bench.secagg``); a peer whose package is
missing says so. ``--model`` prints the tables of docs/wire-costs.md instead.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.bench import costs, secagg
from experiments.bench.peers import tls
from qoejax.wire import announce, client, codec, envelope, kem, keys, server, session, suites
from qoejax.wire.clock import Clock
from qoejax.wire.exchange import Exchange
from qoejax.wire.secagg import bound
from qoejax.wire.secret import Secret

_PARTS = ("kem", "sign", "verify", "aead", "hash", "codec")


def _environment() -> dict[str, Any]:
    packages = ("cryptography", "numpy", "pqcrypto", "qoejax")
    return {
        "python": platform.python_version(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


class _Scene(NamedTuple):
    """An open round of one client; ``provider`` is the KEM's."""

    data: bytes
    provider: str
    round: server.Round
    secret: kem.Secret
    one: keys.Identity
    boss: keys.Identity
    spec: codec.TreeSpec
    leaves: list[np.ndarray]


class _Way(NamedTuple):
    """How an update goes: under which suite, signed by which provider, in a session or not."""

    suite: int
    signer: str
    session: bool


def _scene(way: _Way, size: int) -> _Scene:
    """A round whose update has ``size`` bytes."""
    chosen = suites.suite(way.suite, unsafe=True)
    spec = codec.tree_spec([("leaf", (size // 4,), "f4")])
    leaves = [np.random.default_rng(0).standard_normal(size // 4, np.float32)]
    provider = suites.kem_provider(chosen, way.signer)
    boss, one = (keys.generate(way.signer, chosen.scheme) for _ in range(2))
    registry = keys.register([keys.enrol(one, (way.suite,))], verifier=way.signer)
    public, secret = b"", Secret(b"")
    if chosen.sealed:
        public, secret = kem.keygen(chosen.kem, provider)
    facts = announce.Announce(
        run=bytes(16),
        round=0,
        suite=way.suite,
        previous=announce.ZERO,
        base_model=codec.model_digest(b""),
        tree_spec=codec.spec_digest(spec),
        round_key=public,
        registry=keys.registry_digest(registry),
        clients=keys.clients_digest([one.id]),
        deadline=0,
        caps=announce.Caps(updates=2**32, session=64 if way.session else 0),
        log=b"",
    )
    data, told = announce.publish(boss, facts, b"")
    rnd = server.Round(told, spec, registry, frozenset([one.id]), not chosen.safe)
    return _Scene(data, provider, rnd, secret, one, boss, spec, leaves)


def _signed(at: _Scene, signer: str) -> Iterator[tuple[dict[str, float], int]]:
    """Seconds and length of one signed update after the other."""
    while True:
        clock = Clock()
        told, empty = at.round.announced, server.State({}, {})
        with clock("seal"):
            sealed = client.seal(
                at.spec, at.leaves, at.one, told, n_samples=1, unsafe=at.round.unsafe, clock=clock,
                provider=at.provider,
            )  # fmt: skip
        with clock("open"):
            data = sealed.envelope
            server.open(
                at.round, empty, data, at.secret, 0, verifier=signer, clock=clock,
                provider=at.provider,
            )  # fmt: skip
        yield clock.seconds, len(data)


def _in_session(at: _Scene, signer: str) -> Iterator[tuple[dict[str, float], int]]:
    """Seconds and length of one update in a session after the other; HELLO is not counted."""
    told, size = at.round.announced, codec.nbytes(at.spec)
    header = client.hello_header(told, at.one.id, 0, client.Chain())
    key = told.announce.round_key
    hello = envelope.seal_update(
        header, session.statement(None), key, at.one.sign, provider=at.provider
    )
    first = server.State({}, {})
    state, _ = server.open(
        at.round, first, hello.envelope, at.secret, 0, verifier=signer, provider=at.provider
    )
    assert hello.exports is not None
    held = session.begin(hello.exports.session, header, 0)
    chain = client.Chain(1, hello.transcript[:32])
    while True:
        clock = Clock()
        with clock("seal"):
            with clock("codec"):
                payload = codec.encode(at.spec, at.leaves)
            message_key, held = session.take(held)
            header = client.in_session(client.update_header(told, at.one.id, 0, chain, 1, size))
            sealed = session.seal(header, payload, message_key, clock=clock)
        with clock("open"):
            state, _ = server.open(at.round, state, sealed.envelope, at.secret, 0, clock=clock)
        chain = client.Chain(chain.seq + 1, sealed.transcript[:32])
        yield clock.seconds, len(sealed.envelope)


def _ways(numbers: Sequence[int], signers: Sequence[str]) -> list[_Way]:
    """Every suite with every signer that has it, and the default suite in a session."""
    chosen = [suites.suite(number, unsafe=True) for number in numbers]
    ways = [_Way(s.id, n, False) for s in chosen for n in signers if not suites.lacking(s, n)]
    return ways + [_Way(suites.DEFAULT, n, True) for n in signers[:1]]


def envelopes(
    signers: Sequence[str], sizes: Sequence[int], repeats: int, numbers: Sequence[int]
) -> Iterator[dict]:
    """One line for each size and way; ways take turns, so they meet the same neighbours."""
    for size in sizes:
        ways = _ways(numbers, signers)
        scenes = {way: _scene(way, size) for way in ways}
        runs = {w: (_in_session if w.session else _signed)(scenes[w], w.signer) for w in ways}
        seen: dict[_Way, list[dict[str, float]]] = {way: [] for way in ways}
        length = {}
        for _ in range(repeats + 1):
            for way, run in runs.items():
                seconds, length[way] = next(run)
                seen[way].append(seconds)
        median = {way: _median(rows[1:]) for way, rows in seen.items()}
        base = median.get(_Way(suites.DEFAULT, "openssl", False), median[ways[0]])
        for way in ways:
            extra = length[way] - codec.nbytes(scenes[way].spec)
            yield {
                "bench": "session" if way.session else "envelope",
                "suite": f"{way.suite:#06x}",
                "signer": way.signer,
                "kem": scenes[way].provider,
                "payload_bytes": size,
                "extra_bytes": extra,
                "extra_share": round(extra / size, 6),
                "seal_ms": _ms(median[way]["seal"]),
                "open_ms": _ms(median[way]["open"]),
                "seal_min_ms": _ms(min(row["seal"] for row in seen[way][1:])),
                "open_min_ms": _ms(min(row["open"] for row in seen[way][1:])),
                "parts_ms": {n: _ms(median[way][n]) for n in _PARTS if n in median[way]},
                "ratio_seal": round(median[way]["seal"] / base["seal"], 3),
                "ratio_open": round(median[way]["open"] / base["open"], 3),
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


def connections(sizes: Sequence[int], repeats: int) -> Iterator[dict]:
    """One line for each size and kind of certificate; kinds and our envelope take turns."""
    ends = {kind: tls.parties(kind) for kind in tls.KEYS}
    for size in sizes:
        at = _scene(_Way(suites.DEFAULT, "openssl", False), size)
        ours, payload = _signed(at, "openssl"), codec.encode(at.spec, at.leaves)
        seen: dict[str, list[tls.Cost]] = {kind: [] for kind in ends}
        sealed, read, length = [], [], 0
        for _ in range(repeats + 1):
            seconds, length = next(ours)
            sealed.append(seconds["seal"] + seconds["open"])
            clock = Clock()
            with clock("read"):
                announce.read(at.data, at.boss.public, bytes(16), verifier="openssl")
            read.append(clock.seconds["read"])
            for kind, who in ends.items():
                seen[kind].append(tls.exchange(who, payload))
        update, reading = (statistics.median(each[1:]) for each in (sealed, read))
        for kind, costs_ in seen.items():
            theirs = statistics.median(c.handshake + c.payload for c in costs_[1:])
            yield {
                "bench": "tls",
                "certificates": kind,
                "group": tls.GROUP,
                "library": tls.ssl.OPENSSL_VERSION,
                "payload_bytes": len(payload),
                "tls_ms": _ms(theirs),
                "handshake_ms": _ms(statistics.median(c.handshake for c in costs_[1:])),
                "tls_extra_bytes": costs_[-1].up + costs_[-1].down - len(payload),
                "extra_bytes": length - len(payload),
                "seal_open_ms": _ms(update),
                "read_announcement_ms": _ms(reading),
                "ratio": round(update / theirs, 3),
                "ratio_announced": round((update + reading) / theirs, 3),
                "repeats": repeats,
            }


def _median(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 4)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses flags, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--signers", nargs="+", default=["pqcrypto", "openssl"])
    parser.add_argument(
        "--sizes", nargs="+", type=int, default=[66_000, 100_000, 788_000, 1_000_000]
    )
    parser.add_argument(
        "--suites", nargs="+", type=lambda text: int(text, 0), default=list(suites.SUITES)
    )
    parser.add_argument("--repeats", type=int, default=40, help="envelopes of each kind")
    parser.add_argument("--size", type=int, default=100_000, help="bytes of an update in a round")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds of each pool")
    parser.add_argument("--words", nargs="+", type=int, default=[25_000, 150_000])
    parser.add_argument("--members", type=int, default=100, help="clients of one sum")
    parser.add_argument("--degree", type=int, default=20)
    parser.add_argument("--threshold", type=int, default=11)
    parser.add_argument("--turns", type=int, default=5, help="sums of each kind")
    parser.add_argument("--model", action="store_true", help="the cost model, as Markdown tables")
    chosen = parser.parse_args(arguments)
    if chosen.model:
        print(costs.tables())
        return
    environment = _environment()
    for row in envelopes(chosen.signers, chosen.sizes, chosen.repeats, chosen.suites):
        print(json.dumps(row | environment), flush=True)
    for row in exchanges(chosen.signers, chosen.clients, chosen.size, chosen.rounds):
        print(json.dumps(row | environment), flush=True)
    for row in connections(chosen.sizes, chosen.repeats):
        print(json.dumps(row | environment), flush=True)
    choice = bound.Choice(chosen.degree, chosen.threshold, chosen.members, 0.0, 0.0)
    for row in secagg.against(chosen.members, choice, chosen.words, chosen.turns, "openssl"):
        print(json.dumps(row | environment), flush=True)


if __name__ == "__main__":
    main()
