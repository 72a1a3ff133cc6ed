"""CICIoT2023, federated among 20 clients, Dirichlet 0.5, sealed and signed updates.

    python -m experiments.prepare --dataset=ciciot2023/merged_34class --manual_dir=DIR --data_dir=D
    python -m experiments.train --config=configs/ciciot2023.py:merged_34class \
        --config.data.dir=D --workdir=W

The variant is a dataset config, with ``+centralised``, ``+fedprox`` or ``+local`` after it if
wanted: ``34class``, ``8class``, ``binary`` (first release), ``merged_34class`` (default),
``merged_8class``, ``merged_binary`` (second release), and each with ``_partial`` for excerpts
that lack columns, such as ``8class_partial``.
"""

import ml_collections

from configs import base


def get_config(variant: str = "merged_34class") -> ml_collections.ConfigDict:
    """The run of one dataset config and, after a plus sign, one way of training."""
    dataset, _, algorithm = variant.partition("+")
    c = base.get_config()
    c.data.name = f"ciciot2023/{dataset}"
    c.clients.update(count=20, partition="dirichlet", alpha=0.5)
    c.fed.rounds = 60
    if algorithm == "centralised" and dataset.startswith("merged"):
        base.ensemble(c, rounds=240, batch=128)
        if "34class" in dataset:
            base.fine_classes(c).fed.rounds = 300
    return base.train_as(c, algorithm or "fedavg").lock()
