"""The whole path in a few minutes: simulated IoT sites, federated rounds, post-quantum envelopes.

    make quickstart
    python -m experiments.train --config=configs/quickstart.py --workdir=runs/quickstart

Variants: ``plain`` is the same run without the wire; its parameters agree to the bit.
"""

import ml_collections

from configs import base


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Defaults, or the variant ``plain``."""
    c = base.get_config()
    c.data.name = "simulated_iot/small"
    c.clients.update(partition="natural", count=20)
    c.fed.rounds = 40
    c.client.update(batch=64, epochs=1)
    c.evaluation.every = 5
    c.checkpoint.every = 5
    c.perf.rounds_per_dispatch = 5
    c.exchange.mode = "pqc"
    if variant == "plain":
        c.exchange.mode = "none"
    elif variant:
        raise ValueError(f"unknown variant {variant!r}: expected 'plain' or none")
    return c.lock()
