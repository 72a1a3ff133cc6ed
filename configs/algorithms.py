"""One algorithm a variant on the simulated sites: who drifts, and whom a model of one's own helps.

    python -m experiments.train --config=configs/algorithms.py:fedper --workdir=runs/fedper

Twenty sites, each a client; a small hybrid; 15 rounds of one epoch; nothing is sealed. Variants
are the names of ``fed.algorithm``; ``fedavg_sgd`` is the like of ``scaffold``, ``fednova`` and
``feddyn``, which take plain gradient steps, ``qoe`` is FedAvg with weights by held-out MOS error
and recall, and ``buffered`` is FedBuff on a mix of devices. Figures: docs/algorithms.md.
"""

import ml_collections

from configs import base

SGD = ("fedavg_sgd", "scaffold", "fednova", "feddyn")
ADAM = (
    "fedavg", "fedprox", "fedper", "fedrep", "fedbn", "site_embedding", "ditto", "qoe", "buffered",
    "local_only", "shared_moments",
)  # fmt: skip


def get_config(variant: str = "fedavg") -> ml_collections.ConfigDict:
    """The run of one variant."""
    if variant not in SGD + ADAM:
        raise ValueError(f"unknown variant {variant!r}: expected one of {', '.join(SGD + ADAM)}")
    c = base.get_config()
    c.data.name = "simulated_iot/small"
    c.clients.update(partition="natural", count=20)
    c.model = {"net": "qoenet", "width": 32, "depth": 1, "heads": 4, "mlp": 64, "hidden": 64}
    c.fed.rounds = 15
    c.fed.algorithm = {"fedavg_sgd": "fedavg", "qoe": "fedavg", "buffered": "fedavg"}.get(
        variant, variant
    )
    c.client.update(batch=64, epochs=1)
    c.evaluation.every = c.checkpoint.every = 15
    c.perf.rounds_per_dispatch = 15
    if variant in SGD:
        c.client.update(optimizer="sgd", lr=0.1)
    if variant == "ditto":
        c.fed.mu = 0.1
    if variant == "qoe":
        c.fed.weight = "qoe"
    if variant == "buffered":
        c.fed.cohort = 5
        c.fed.rounds = 60
        c.participation.update(mode="buffered", concurrency=10, devices="mixed")
        c.evaluation.every = c.checkpoint.every = c.perf.rounds_per_dispatch = 60
    return c.lock()
