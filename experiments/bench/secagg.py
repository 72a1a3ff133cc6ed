"""Cost of secure aggregation: one client's CPU, the server's, and bytes. One JSON line each.

    python -m experiments.bench.secagg

A ``secagg`` line is a first round of an epoch (keys agreed, ``fresh``) or a later one, of n clients
with k neighbours and threshold t: milliseconds of CPU of one client for all that it does in the
round (median and minimum over clients and rounds), of the server, and bytes beyond the vector.
``evidence`` says whether clients sign the survivor set. A ``secagg_device`` line is the same
masking as one compiled program for all clients, with ChaCha20. ``against`` gives the
``aggregation`` lines of ``experiments.bench.wire``: the same work by others.
"""

import argparse
import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.common import emit
from qoejax.fed import ring as rings
from qoejax.wire import codec, keys, sign
from qoejax.wire.secagg import agreement, bound, graph, local, plan


def parties(n: int, signer: str) -> tuple[keys.Identity, dict[bytes, keys.Identity]]:
    """A server and n clients."""
    server, *clients = (keys.generate(signer) for _ in range(n + 1))
    return server, {one.id: one for one in clients}


def facts(
    server: keys.Identity, number: int, first: int, choice: bound.Choice, length: int,
    evidence: bool,
) -> plan.Plan:  # fmt: skip
    """The plan of one round."""
    spec = codec.tree_spec([("sum", (length,), "u4")])
    return plan.Plan(
        announce=number.to_bytes(32, "big"), run=bytes(16), round=number, first=first,
        server=server.id, suite=1, base_model=bytes(32), tree_spec=codec.spec_digest(spec),
        degree=choice.degree, threshold=choice.threshold, least=choice.least, length=length,
        evidence=int(evidence),
    )  # fmt: skip


def rounds(
    n: int, choice: bound.Choice, length: int, leave: int, signer: str, repeats: int,
    evidence: bool, trust: agreement.Trust,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Lines of first and later rounds; sums are checked against the clear."""
    server, clients = parties(n, signer)
    rng = np.random.default_rng(0)
    inputs = {name: rng.integers(0, 2**32, length, np.uint32) for name in clients}
    names = list(clients)
    leaves = {names[i]: "input" for i in range(leave)}
    seen: dict[bool, list[local.Outcome]] = {True: [], False: []}
    number = 0
    for _ in range(repeats):
        epoch, first = None, number
        for fresh in (True, False):
            now = facts(server, number, first, choice, length, evidence)
            out = local.run(
                server, now, clients, inputs, epoch=epoch, verifier=signer, leaves=leaves,
                trust=trust,
            )  # fmt: skip
            expected = sum((inputs[name] for name in out.survivors), np.zeros(length, np.uint32))
            if not np.array_equal(out.total, expected):
                raise SystemExit("the masked sum is not the plain sum")
            epoch, number = out.epoch, number + 1
            seen[fresh].append(out)
    for fresh, outs in seen.items():
        each = [s for out in outs for name, s in out.seconds.items() if name in out.survivors]
        yield {
            "bench": "secagg", "fresh": fresh, "clients": n, "degree": choice.degree,
            "threshold": choice.threshold, "words": length, "leave": leave, "signer": signer,
            "evidence": evidence,
            "client_ms": _ms(np.median(each)), "client_min_ms": _ms(min(each)),
            "server_ms": _ms(np.median([out.seconds[b""] for out in outs])),
            "up_bytes": int(np.median([out.up[n] for out in outs for n in out.survivors]))
            - 4 * length,
            "down_bytes": int(np.median([out.down[n] for out in outs for n in out.survivors])),
            "up_ratio": round(float(np.median(list(outs[0].up.values()))) / (4 * length), 4),
            "repeats": repeats,
        }  # fmt: skip


def device(n: int, degree: int, length: int, repeats: int) -> dict[str, Any]:
    """All clients' masking and the server's unmasking in two compiled calls, exact or it stops."""
    found = graph.build(bytes(32), [i.to_bytes(16, "big") for i in range(n)], degree)
    pairs = [
        (found.position[one], found.position[peer])
        for one in found.ring
        for peer in graph.clockwise(found, one)
    ]
    plus, minus = np.array(pairs).T
    key = jax.random.key(0)
    draw = [jax.random.fold_in(key, i) for i in range(4)]
    edges = rings.Edges(
        jnp.asarray(plus), jnp.asarray(minus), jax.random.bits(draw[0], (len(pairs), 8))
    )
    words, own = jax.random.bits(draw[1], (n, length)), jax.random.bits(draw[2], (n, 8))
    counted = jax.random.uniform(draw[3], (n,)) < 0.9
    mask, unmask = jax.jit(rings.mask), jax.jit(rings.unmask)
    cpu = []
    for _ in range(repeats + 1):
        start = time.process_time()
        total = jax.block_until_ready(unmask(mask(words, own, edges), own, edges, counted))
        cpu.append(time.process_time() - start)
    if not np.array_equal(total, rings.total(words, counted)):
        raise SystemExit("the masked sum is not the plain sum")
    return {
        "bench": "secagg_device", "clients": n, "degree": degree, "words": length,
        "compile_and_run_s": round(cpu[0], 4), "cpu_s": round(float(np.median(cpu[1:])), 4),
        "repeats": repeats,
    }  # fmt: skip


def _flower(degree: int, threshold: int, length: int) -> Callable[[int], dict[str, float]]:
    peer = importlib.import_module("experiments.bench.peers.secagg_plus")

    def turn(seed: int) -> dict[str, float]:
        costs = peer.neighbourhood(degree, threshold, length, seed)
        return {
            "client_ms": _ms(np.median([c.client for c in costs])),
            "mask_ms": _ms(np.median([c.mask - c.quantise for c in costs])),
            "up_bytes": int(np.median([c.up for c in costs])),
        }

    return turn


def _ckks(degree: int, threshold: int, length: int) -> Callable[[int], dict[str, float]]:
    del degree, threshold
    peer = importlib.import_module("experiments.bench.peers.ckks")
    contexts = peer.prepare()

    def turn(seed: int) -> dict[str, float]:
        cost = peer.sum_of_two(contexts, length, seed)
        return {
            "client_ms": _ms(cost.encrypt + cost.decrypt),
            "encrypt_ms": _ms(cost.encrypt),
            "server_ms": _ms(cost.server),
            "up_bytes": cost.size,
        }

    return turn


PEERS = {"flower_secagg_plus": (_flower, "flwr"), "ckks_tenseal": (_ckks, "tenseal")}
"""Others, and the package that each needs."""
OURS = {"first": (True, True), "epoch": (False, True), "epoch_unsigned": (False, False)}
"""Our rounds by whether keys are fresh and the survivor set is signed."""


def _ours(n: int, choice: bound.Choice, length: int, signer: str) -> Iterator[dict[str, Any]]:
    """A first round and a later one, with and without evidence."""
    names = {kind: name for name, kind in OURS.items()}
    for evidence in (True, False):
        trust = agreement.Trust(0.05, False)
        for row in rounds(n, choice, length, 0, signer, 1, evidence, trust):
            if who := names.get((row["fresh"], evidence)):
                up = row["up_bytes"] + 4 * length
                kept = {k: row[k] for k in ("client_ms", "client_min_ms", "server_ms")}
                yield {"who": who, **kept, "up_bytes": up}


def against(
    n: int, choice: bound.Choice, lengths: Sequence[int], repeats: int, signer: str
) -> Iterator[dict[str, Any]]:
    """One line for our rounds and for each of ``PEERS``, at each length; they take turns.

    ``client_ms`` is the median over turns of one client's CPU. ``ratio`` is that of a peer over
    ours, by kind of our rounds: above 1, ours costs less. Nobody leaves.
    """
    for length in lengths:
        seen: dict[str, list[dict[str, Any]]] = {}
        turns, absent = {}, {}
        for name, (make, package) in PEERS.items():
            try:
                turns[name] = make(choice.degree, choice.threshold, length)
            except ModuleNotFoundError as e:
                if (e.name or "").partition(".")[0] != package:
                    raise
                absent[name] = f"{package} is not installed: pip install 'qoejax[contenders]'"
        for number in range(repeats):
            for row in _ours(n, choice, length, signer):
                seen.setdefault(row.pop("who"), []).append(row)
            for name, turn in turns.items():
                seen.setdefault(name, []).append(turn(number))
        middle = {
            name: {k: round(float(np.median([r[k] for r in rows])), 3) for k in rows[0]}
            for name, rows in seen.items()
        }
        common = {
            "bench": "aggregation", "clients": n, "degree": choice.degree,
            "threshold": choice.threshold, "words": length, "signer": signer, "repeats": repeats,
        }  # fmt: skip
        for name, row in middle.items():
            over = {k: round(row["client_ms"] / middle[k]["client_ms"], 3) for k in OURS}
            size = {"up_ratio": round(row["up_bytes"] / (4 * length), 4)}
            yield common | {"who": name} | row | size | {"ratio": over}
        for name, reason in absent.items():
            yield common | {"who": name, "skipped": reason}


def _ms(seconds: Any) -> float:
    return round(float(seconds) * 1e3, 3)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses flags, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--degree", type=int, default=20, help="0 takes it from the bound")
    parser.add_argument("--threshold", type=int, default=11)
    parser.add_argument("--colluding", type=float, default=0.05)
    parser.add_argument("--active", action="store_true", help="the server may choose who leaves")
    parser.add_argument("--words", nargs="+", type=int, default=[25_000, 150_000])
    parser.add_argument("--leave", type=int, default=5)
    parser.add_argument("--signers", nargs="+", default=["openssl"], choices=list(sign.PROVIDERS))
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args(arguments)
    trust = agreement.Trust(chosen.colluding, chosen.active)
    corrupt = int(chosen.colluding * chosen.clients)
    if chosen.degree:
        least = chosen.clients - chosen.leave
        choice = bound.Choice(chosen.degree, chosen.threshold, least, 0.0, 0.0)
    else:
        choice = bound.choose(chosen.clients, corrupt, chosen.leave, active=chosen.active)
    for signer in chosen.signers:
        for words in chosen.words:
            for evidence in (True, False):
                for row in rounds(
                    chosen.clients, choice, words, chosen.leave, signer, chosen.repeats, evidence,
                    trust,
                ):  # fmt: skip
                    emit(row)
    for words in chosen.words:
        emit(device(chosen.clients, choice.degree, words, chosen.repeats))


if __name__ == "__main__":
    main()
