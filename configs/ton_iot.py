"""TON_IoT network records, ten types, 20 clients, Dirichlet 0.5, sealed and signed updates.

    python -m experiments.prepare --dataset=ton_iot/10class --manual_dir=DIR --data_dir=D
    python -m experiments.train --config=configs/ton_iot.py --config.data.dir=D --workdir=W

Variants: ``fedavg`` (default), ``fedprox``, ``centralised`` and ``local`` (comparisons; nothing is
exchanged).
"""

import ml_collections

from configs import base


def get_config(variant: str = "fedavg") -> ml_collections.ConfigDict:
    """The run of one variant."""
    c = base.get_config()
    c.data.name = "ton_iot/10class"
    c.clients.update(count=20, partition="dirichlet", alpha=0.5)
    c.fed.rounds = 60
    if variant == "centralised":
        c.model.shortcut = True  # docs/model.md; in an update it would be two fifths more bytes
        c.client.update(
            optimizer="adamw", lr=0.002, weight_decay=0.1, clip=1.0, schedule="warmup_cosine"
        )
    return base.train_as(c, variant).lock()
