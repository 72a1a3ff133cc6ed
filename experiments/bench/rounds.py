"""Seconds a federated round: 10 and 100 clients, wire off and on. One JSON line each.

    python -m experiments.bench.rounds

Every client holds the same number of rows, so that a round's work is clients x steps. ``seconds``
is the median of the timed rounds after a warm-up, ``minimum`` the fastest, ``compile_s`` what the
first round took beyond the median. ``ratio`` is against the same rounds with the wire off, and
``wire_share`` the part of a round that the wire added; ``wait_share`` is the part spent waiting for
envelopes after the device was done (the rest shares the cores with it).
"""

import contextlib
import statistics
import time
from collections.abc import Iterator
from typing import Any

from absl import flags

from experiments import cli
from experiments.bench import common

_CLIENTS = flags.DEFINE_list("clients", ["10", "100"], "Numbers of clients.")
_ROWS = flags.DEFINE_integer("rows", 256, "Rows of each client.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Timed rounds.", lower_bound=1)
_FEATURES = flags.DEFINE_integer("features", 40, "Features of a record.", lower_bound=1)
_AXIS = flags.DEFINE_list("axis", ["shard"], "Client axis modes: turn, chunk, shard.")
_SIGNERS = flags.DEFINE_list("signers", ["pqcrypto", "openssl"], "ML-DSA implementations.")


def _config(clients: int, axis: str) -> Any:
    from configs import base

    c = base.get_config()
    c.clients.count = clients
    c.perf.client_axis = axis
    return c


@contextlib.contextmanager
def _exchange(clients: int, params: Any, signer: str | None) -> Iterator[Any]:
    from qoejax.run import wired
    from qoejax.wire.exchange import Exchange

    if signer is None:
        yield None
        return
    spec = wired.tree_spec(params)
    with Exchange(clients=clients, spec=spec, signer=signer, workers=2) as exchange:
        yield exchange


def measure(clients: int, axis: str, signer: str | None) -> dict[str, Any]:
    """Times one setting."""
    import jax

    from experiments.bench import random_rows
    from qoejax import trees
    from qoejax.run import build, wired

    config = _config(clients, axis)
    spec, examples, offset, count = random_rows.make(clients, _ROWS.value, _FEATURES.value)
    objective = build.objective(config, spec, [1.0] * random_rows.CLASSES)
    engine = build.make_engine(config, objective.loss_fn, offset, count)
    params = objective.init(jax.random.key(0), examples.x[:1])
    state, key = engine.init(params), jax.random.key(1)
    examples = engine.place(examples)
    seconds, wires = [], []
    with _exchange(clients, params, signer) as exchange:
        for _ in range(_ROUNDS.value + 1):
            start = time.perf_counter()
            if exchange is None:
                state, metrics = engine.block(state, examples, key, 1)
                jax.block_until_ready((state, metrics))
            else:
                state, _, wire = wired.run_round(engine, exchange, state, examples, key)
                jax.block_until_ready(state)
                wires.append(wire)
            seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds[1:])
    row = {
        "bench": "rounds",
        "clients": clients,
        "rows_per_client": _ROWS.value,
        "client_axis": axis,
        "wire": signer or "off",
        "params": trees.count(params),
        "seconds": median,
        "minimum": min(seconds[1:]),
        "compile_s": seconds[0] - median,
    }
    if wires:
        last = wires[1:]
        row |= {
            "bytes_up": last[-1]["bytes_up"],
            "bytes_down": last[-1]["bytes_down"],
            "wait_share": statistics.median(w["share"] for w in last),
            "wire_seconds": {k: round(v, 6) for k, v in last[-1]["seconds"].items()},
        }
    return row


def main() -> dict[str, Any]:
    """Prints one line a setting; the last line sums up."""
    from qoejax.run import build

    build.set_devices(_config(1, "shard"))
    ratios: dict[str, float] = {}
    for clients in map(int, _CLIENTS.value):
        for axis in _AXIS.value:
            plain = None
            for signer in [None, *_SIGNERS.value]:
                row = measure(clients, axis, signer)
                plain = plain or row["seconds"]
                row["ratio"] = row["seconds"] / plain
                row["wire_share"] = 1 - plain / row["seconds"]
                ratios[f"{clients}/{axis}/{row['wire']}"] = row["ratio"]
                common.emit(row)
    return {"bench": "rounds", "ratios": ratios}


if __name__ == "__main__":
    cli.run(main)
