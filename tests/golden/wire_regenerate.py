"""Writes wire_golden.json: ``python -m tests.golden.wire_regenerate``.

Keys and envelopes are random, so every byte changes; do it only when the format changes, and say
so in docs/wire.md.
"""

import json
import math
import pathlib

import numpy as np

from qoejax.wire import announce, client, codec, envelope, kem, keys


def main() -> None:
    """One server, one client, one update of two leaves, with all that is needed to open it."""
    spec = codec.tree_spec([("head/bias", (3,), "f4"), ("head/kernel", (2, 3), "f2")])
    leaves = [np.array([0.5, -1.25, 3e-8], "<f4"), np.arange(6, dtype="<f2").reshape(2, 3) / 7]
    boss, one = keys.generate("pqcrypto"), keys.generate("pqcrypto")
    entry = keys.enrol(one, (envelope.DEFAULT,))
    registry = keys.register([entry])
    public, secret = kem.keygen()
    payload = codec.encode(spec, leaves)
    facts = announce.Announce(
        run=b"golden-run-00001",
        round=0,
        suite=envelope.DEFAULT,
        previous=announce.ZERO,
        base_model=codec.model_digest(payload),
        tree_spec=codec.spec_digest(spec),
        round_key=public,
        registry=keys.registry_digest(registry),
        clients=keys.clients_digest([one.id]),
        deadline=0,
        caps=announce.Caps(norm=math.inf),
        log=b"",
    )
    data, told = announce.publish(boss, facts, payload)
    sealed = client.seal(spec, leaves, one, told, n_samples=17)
    out = {
        "spec": [list(leaf) for leaf in spec],
        "now": 1_700_000_000,
        "run": facts.run.hex(),
        "server_key": boss.public.hex(),
        "client_key": one.public.hex(),
        "client_proof": entry.proof.hex(),
        "round_secret": secret.expose().hex(),
        "announce": data.hex(),
        "announce_digest": told.digest.hex(),
        "envelope": sealed.envelope.hex(),
        "transcript": sealed.transcript.hex(),
        "payload": payload.hex(),
    }
    path = pathlib.Path(__file__).with_name("wire_golden.json")
    path.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
