"""The regime that the framework's paper states, for each dataset.

80:20 split, Adam at 0.001, batch 32 to 64, 50 to 100 epochs, FedAvg and FedProx, non-IID edge
clients. Here: batch 64, 100 rounds of one local epoch, ten clients that all take part, Dirichlet
0.5 (the paper gives no number of clients and no measure of skew).

    python -m experiments.train --config=configs/paper.py:ton_iot --config.data.dir=D --workdir=W

The variant is ``simulated_iot`` (default), ``ton_iot``, ``edge_iiotset``, ``ciciot2023`` (first
release) or ``ciciot2023_merged`` (second), with ``+fedprox``, ``+centralised`` or ``+local`` after
it if wanted; FedAvg otherwise. Figures: see the README.
"""

import ml_collections

from configs import base

DATASETS = {
    "simulated_iot": "simulated_iot/standard",
    "ton_iot": "ton_iot/10class",
    "edge_iiotset": "edge_iiotset/15class",
    "ciciot2023": "ciciot2023/34class",
    "ciciot2023_merged": "ciciot2023/merged_34class",
}


def get_config(variant: str = "simulated_iot") -> ml_collections.ConfigDict:
    """The run of one dataset and, after a plus sign, one way of training."""
    dataset, _, algorithm = variant.partition("+")
    if dataset not in DATASETS:
        raise ValueError(f"unknown dataset {dataset!r}: expected one of {', '.join(DATASETS)}")
    c = base.get_config()
    c.data.name = DATASETS[dataset]
    c.clients.update(count=10, partition="dirichlet", alpha=0.5)
    c.fed.rounds = 100
    c.client.update(optimizer="adam", lr=0.001, batch=64, epochs=1, schedule="constant")
    return base.train_as(c, algorithm or "fedavg").lock()
