"""A round in which every update is sealed, signed, sent and opened.

The device computes the next clients while the pool seals and opens the previous ones. Opened
updates enter the same ``server_step`` as the fused round, so the parameters agree to the bit.
"""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from qoejax import trees
from qoejax.fed.engine import Engine
from qoejax.fed.state import Local, ServerState
from qoejax.run import transparency
from qoejax.run.choices import choose
from qoejax.run.errors import RunError
from qoejax.types import Examples
from qoejax.wire import codec, providers, suites
from qoejax.wire.errors import EnvelopeError
from qoejax.wire.exchange import Exchange, RoundResult

Collect = Callable[[Engine, ServerState, Examples, Any, jax.Array], list[Local]]
"""``collect(engine, state, examples, cohort, key) -> parts``: gets the round's updates to the
exchange; what the slices of the cohort keep is for ``Engine.server``."""

PRIMITIVES = ("sign", "verify", "kem", "aead", "hash", "codec")
"""CPU seconds are reported for each of these, over all clients and the server."""


def tree_spec(message: Any) -> codec.TreeSpec:
    """The agreed layout of an update: names, shapes and little-endian types, in tree order.

    ``message`` is any tree of that layout: ``Engine.message`` of the parameters.
    """
    return codec.tree_spec(
        [(name, leaf.shape, leaf.dtype) for name, leaf in trees.named_leaves(message)]
    )


def encoded(sent: Any) -> tuple[codec.TreeSpec, bytes]:
    """Layout and bytes of what an announcement carries."""
    layout = tree_spec(sent)
    return layout, codec.encode(layout, [np.asarray(leaf) for leaf in jax.tree.leaves(sent)])


def digests(sent: Any) -> tuple[bytes, bytes]:
    """Digests of an announcement's model and of its layout, as the log names them."""
    layout, data = encoded(sent)
    return codec.model_digest(data), codec.spec_digest(layout)


def check(exchange: Any) -> None:
    """Refuses a suite, a provider or a mode that cannot work together.

    Raises:
        RunError: names the key, its value and what was expected.
    """
    for key in ("signer", "kem_provider"):
        choose(providers.PROVIDERS, exchange[key], f"exchange.{key}")
    try:
        chosen = suites.suite(exchange.suite, unsafe=True)
    except EnvelopeError:
        numbers = ", ".join(f"{number:#06x}" for number in suites.SUITES)
        raise RunError(
            f"config.exchange.suite is {exchange.suite:#06x}: expected one of {numbers}"
        ) from None
    name = f"config.exchange.suite is {chosen.id:#06x} ({chosen.status})"
    if not chosen.safe and not exchange.unsafe:
        raise RunError(f"{name}: expected another, or exchange.unsafe=True to measure it")
    if missing := suites.lacking(chosen, exchange.signer):
        raise RunError(
            f"{name}: {exchange.signer} has no {missing[0]}, expected exchange.signer='pqcrypto'"
        )
    if exchange.session < 0:
        raise RunError(f"config.exchange.session is {exchange.session}: expected 0 or more rounds")
    if not chosen.sealed and (exchange.session or exchange.confidential):
        raise RunError(f"{name}: expected exchange.session=0 and exchange.confidential=False")


def each(clients: int, up: int, down: int, spent: float) -> dict[str, float]:
    """What a round cost one of its clients on average: bytes both ways and CPU seconds."""
    return {
        "bytes_up": up / max(1, clients),
        "bytes_down": down / max(1, clients),
        "cpu_s": spent / max(1, clients),
    }


def _submit(exchange: Exchange, spec: codec.TreeSpec, cohort: Any, deltas: Any) -> None:
    """Hands every client's delta of one slice to the pool; waits for the device, not the pool."""
    host = [np.asarray(leaf) for leaf in jax.tree.leaves(deltas)]
    counts = np.asarray(cohort.count)
    finishes = np.asarray(cohort.weight) > 0  # the others are padding, or stop half-way
    for slot, client in enumerate(np.asarray(cohort.client_id)):
        if client >= 0 and finishes[slot]:
            payload = codec.encode(spec, [leaf[slot] for leaf in host])
            exchange.submit(int(client), payload, n_samples=int(counts[slot]))


def _invited(cohort: Any) -> list[int]:
    """Clients of the cohort; the others hear nothing of the round."""
    return [int(client) for client in np.asarray(cohort.client_id) if client >= 0]


def _opened(
    result: RoundResult, spec: codec.TreeSpec, like: Any, clients: np.ndarray
) -> tuple[Any, np.ndarray]:
    """Messages [K, *] in cohort order and who arrived [K]; refused clients are zeros."""
    leaves, structure = jax.tree.flatten(like)
    out = [np.zeros((len(clients), *leaf.shape), leaf.dtype) for leaf in leaves]
    arrived = np.zeros(len(clients), bool)
    for slot, client in enumerate(clients):
        payload = result.payloads.get(int(client))
        if payload is None:
            continue
        for target, leaf in zip(out, codec.decode(spec, payload), strict=True):
            target[slot] = leaf
        arrived[slot] = True
    return jax.tree.unflatten(structure, out), arrived


def _simulate(exchange: Exchange, spec: codec.TreeSpec) -> Collect:
    """The clients of the exchange, on this device."""

    def collect(
        engine: Engine, state: ServerState, examples: Examples, cohort: Any, key: jax.Array
    ) -> list[Local]:
        pending, parts = None, []
        for piece in engine.slices(cohort):
            out = engine.local(state, examples, piece, key)
            if pending is not None:
                _submit(exchange, spec, *pending)
            pending = (piece, out.deltas)
            parts.append(out)
        if pending is not None:
            _submit(exchange, spec, *pending)
        return parts

    return collect


def run_round(
    engine: Engine,
    exchange: Any,
    state: ServerState,
    examples: Examples,
    key: jax.Array,
    ledger: transparency.Ledger | None = None,
    collect: Collect | None = None,
) -> tuple[ServerState, dict[str, Any], dict[str, Any]]:
    """One round over the wire: the next state, the round's metrics and the wire's own report.

    With a ledger, all of the round is in the log before its state is returned. ``collect`` hands
    the exchange what clients elsewhere send; by default they are simulated here. ``wait_s`` of the
    report are the seconds in which nothing but the wire and its log went on, ``share`` their part
    of the round.
    """
    start = time.perf_counter()
    like = engine.message(state.params)
    spec = tree_spec(like)
    _, model = encoded(engine.sent(state))
    number = int(state.round)
    alone = time.perf_counter()
    facts, checkpoint = exchange.facts(), b""
    if ledger is not None:
        checkpoint = ledger.begin(facts, number, model)
    cohort = engine.cohort_for(state.round, key)
    invited = _invited(cohort)
    data = exchange.begin_round(number, model, invited, log=checkpoint)
    alone = time.perf_counter() - alone
    parts = (collect or _simulate(exchange, spec))(engine, state, examples, cohort, key)
    waited = time.perf_counter()
    result = exchange.finish_round()
    alone += time.perf_counter() - waited
    deltas, arrived = _opened(result, spec, like, np.asarray(cohort.client_id))
    state, metrics = engine.server(state, cohort, deltas, arrived, parts, key)
    metrics = jax.device_get(metrics)
    sealing = result.seconds.get("seal", 0.0)
    wire = {
        "bytes_up": result.bytes_up,
        "bytes_down": result.bytes_down,
        "accepted": int(arrived.sum()),
        "greeted": len(result.greetings),
        "rejected": dict(sorted(Counter(map(str, result.rejected.values())).items())),
        "seconds": {k: result.seconds.get(k, 0.0) for k in PRIMITIVES},
        "seal_s": sealing,
        "open_s": result.seconds.get("open", 0.0),
        "client": each(len(invited), result.bytes_up, result.bytes_down, sealing),
        "clients_s": sealing,
        "server_s": sum(result.seconds.get(k, 0.0) for k in ("announce", "check", "open")),
    }
    logged = time.perf_counter()
    if ledger is not None:
        after = digests(engine.sent(state))
        entries = transparency.round_entries(facts, data, result, number, after)
        wire["log"] = ledger.record(entries)
    now = time.perf_counter()
    alone += now - logged
    return state, metrics, wire | {"wait_s": alone, "share": alone / (now - start)}
