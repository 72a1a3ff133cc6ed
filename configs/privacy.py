"""Differential privacy on the simulated dataset: what a guarantee costs in accuracy.

    python -m experiments.train --config=configs/privacy.py --workdir=runs/private
    python -m experiments.privacy_audit --config=configs/privacy.py:overfit --workdir=runs/audit

Variants: ``example`` (default) hides a row from everybody, ``user`` a whole client from those who
see models, ``ftrl`` the same without secret sampling; ``overfit`` is ``example`` on few rows and
many epochs, where membership shows. Figures: docs/privacy.md.
"""

import ml_collections

from configs import base


def get_config(variant: str = "example") -> ml_collections.ConfigDict:
    """One of the variants."""
    c = base.get_config()
    c.data.name = "simulated_iot/small"
    c.model = {"net": "mlp", "width": 64, "depth": 2}
    c.fed.rounds = 30
    c.clients.update(partition="natural", count=20)
    c.client.update(optimizer="sgd", lr=0.5, schedule="constant", batch=256)
    c.evaluation.every = 10
    c.privacy.update(mechanism="example", clip=0.5, noise=1.0, microbatch=64)
    if variant in ("user", "ftrl"):
        c.client.update(lr=0.1, batch=64)
        c.privacy.update(mechanism=variant, clip=0.3, microbatch=0)
        c.server.aggregator = "mean"
        c.fed.cohort = 10
        c.participation.sampling = "poisson" if variant == "user" else "cyclic"
    elif variant == "overfit":
        c.data.max_rows = 1000
        c.clients.update(partition="iid", count=5)
        c.client.update(epochs=5, batch=50, lr=0.2)
        c.fed.rounds = 20
        c.privacy.update(noise=4.0, microbatch=0)
    elif variant != "example":
        raise ValueError(
            f"unknown variant {variant!r}: expected one of example, user, ftrl, overfit"
        )
    return c.lock()
