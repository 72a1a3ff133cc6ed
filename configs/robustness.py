"""A small classifier at 30 simulated clients, for the grid of attacks and robust rules.

    python -m experiments.robustness --config=configs/robustness.py --workdir=runs/robustness

The rule and the attack named here are only defaults: the command goes through all of them.
``server.root_rows`` are the training rows that the server keeps for FLTrust.
"""

import ml_collections

from configs import base


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The defaults; there are no variants."""
    if variant:
        raise ValueError(f"unknown variant {variant!r}: configs/robustness.py has none")
    c = base.get_config()
    c.data.name = "simulated_iot/small"
    c.clients.update(partition="dirichlet_balanced", alpha=1.0, count=30)
    c.model = {"net": "mlp", "width": 64, "depth": 1, "dropout": 0.0}
    c.loss.mos_weight = 0.0
    c.fed.update(rounds=30, weight="uniform")
    c.client.update(optimizer="sgd", lr=0.2, batch=32, steps=10)
    c.server.update(aggregator="fltrust", root_rows=100)
    return c.lock()
