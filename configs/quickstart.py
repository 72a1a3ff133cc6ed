"""The whole path in a few minutes: simulated IoT sites, federated rounds, post-quantum envelopes.

    make quickstart
    python -m experiments.train --config=configs/quickstart.py --workdir=runs/quickstart

Variants: ``plain`` is the same run without the wire; its parameters agree to the bit.
``centralised`` trains the same net on the rows of all sites in one place. ``personal`` is ``plain``
with offsets and scales that each site keeps for itself: its capacity and load are its own.
"""

import ml_collections

from configs import base


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Defaults, or one of the variants."""
    c = base.get_config()
    c.data.name = "simulated_iot/small"
    c.clients.update(partition="natural", count=20)
    c.model.update(summary=True, depth=1, dropout=0.2)
    c.loss.mos_weight = 2.0
    c.fed.rounds = 60
    c.client.update(batch=32, epochs=1, lr=0.002)
    c.evaluation.every = 5
    c.checkpoint.every = 5
    c.perf.rounds_per_dispatch = 5
    c.exchange.mode = "pqc"
    if variant == "plain":
        c.exchange.mode = "none"
    elif variant == "personal":
        c.exchange.mode = "none"
        c.fed.algorithm = "fedper"
        c.fed.personal = ("*_position", "*norm*", "net/heads/*/bias")
    elif variant == "centralised":
        base.train_as(c, variant)
        c.model.update(jitter=0.15, shortcut=True)
        c.loss.mos_loss = "two_hot"
        c.client.update(
            optimizer="adamw", weight_decay=0.3, clip=1.0, schedule="warmup_cosine", batch=64
        )
        c.fed.rounds = 12
    elif variant:
        raise ValueError(
            f"unknown variant {variant!r}: expected 'plain', 'personal', 'centralised' or none"
        )
    return c.lock()
