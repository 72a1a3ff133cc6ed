"""Edge-IIoTset, federated among 20 clients, Dirichlet 0.5, sealed and signed updates.

    python -m experiments.prepare --dataset=edge_iiotset/15class --manual_dir=DIR --data_dir=D
    python -m experiments.train --config=configs/edge_iiotset.py --config.data.dir=D --workdir=W

The variant is ``15class`` (default), ``6class`` or ``binary``, with ``+centralised``,
``+fedprox`` or ``+local`` after it if wanted.
"""

import ml_collections

from configs import base


def get_config(variant: str = "15class") -> ml_collections.ConfigDict:
    """The run of one dataset config and, after a plus sign, one way of training."""
    dataset, _, algorithm = variant.partition("+")
    c = base.get_config()
    c.data.name = f"edge_iiotset/{dataset}"
    c.clients.update(count=20, partition="dirichlet", alpha=0.5)
    c.fed.rounds = 60
    return base.train_as(c, algorithm or "fedavg").lock()
