"""People's own scores: the MOS head on cloud gaming, mobile and desktop video, and streaming.

    python -m experiments.prepare --dataset=human_qoe/poqemon --manual_dir=DIR --data_dir=D
    python -m experiments.train --config=configs/human_qoe.py:poqemon --config.data.dir=D \
        --workdir=W

The variant is ``cloud_gaming`` (default), ``poqemon``, ``vlc`` or ``p1203``, trained on all rows at
once, or with ``+fedavg`` (over the wire), ``+fedprox`` or ``+local`` after it with subjects as
clients; a client holds several subjects where the dataset has more of them. What was tried, and on
which rows, is in docs/human-scores.md.
"""

import ml_collections

from configs import base

ROUNDS = {"cloud_gaming": 20, "poqemon": 15, "vlc": 40, "p1203": 60}
CLIENTS = {"cloud_gaming": 20, "poqemon": 20, "vlc": 5, "p1203": 20}


def get_config(variant: str = "cloud_gaming") -> ml_collections.ConfigDict:
    """The run of one dataset config and, after a plus sign, one way of training."""
    dataset, _, algorithm = variant.partition("+")
    if dataset not in ROUNDS:
        raise ValueError(f"unknown dataset {dataset!r}: expected one of {', '.join(ROUNDS)}")
    c = base.get_config()
    c.data.update(name=f"human_qoe/{dataset}", features=0)  # no labels to select features by
    c.clients.update(count=CLIENTS[dataset], partition="natural", min_size=1)
    c.fed.rounds = ROUNDS[dataset]
    c.perf.client_axis = "turn"  # batches too small for more than one device
    return base.train_as(c, algorithm or "centralised").lock()
