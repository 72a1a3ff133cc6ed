"""People's own scores: the MOS head on cloud gaming, mobile and desktop video, and streaming.

    python -m experiments.prepare --dataset=human_qoe/poqemon --manual_dir=DIR --data_dir=D
    python -m experiments.train --config=configs/human_qoe.py:poqemon --config.data.dir=D \
        --workdir=W

The variant is ``cloud_gaming`` (default), ``poqemon``, ``vlc`` or ``p1203``, trained on all rows at
once, or with ``+fedavg`` (over the wire), ``+fedprox`` or ``+local`` after it with subjects as
clients; a client holds several subjects where the dataset has more of them. There are 142 to 2,364
training rows in the excerpts it was tuned on, so the network is the MLP and not the hybrid, whose
convolutions and attention cost more and forecast no better there: docs/human-scores.md.
"""

import ml_collections

from configs import base

_PERIODIC = {"net": "mlp", "depth": 2, "embed": "periodic"}
_PLAIN = {"net": "mlp", "depth": 2, "embed": "none"}
SETTINGS = {  # the network, scale of the features, rounds of one epoch, batch
    "cloud_gaming": (_PERIODIC | {"width": 128, "dropout": 0.3}, "quantile", 40, 64),
    "poqemon": (_PERIODIC | {"width": 64, "dropout": 0.3}, "both", 20, 64),
    "vlc": (_PERIODIC | {"width": 64, "dropout": 0.2}, "quantile", 40, 32),
    "p1203": (_PLAIN | {"width": 64, "dropout": 0.2}, "quantile", 80, 32),
}
CLIENTS = {"cloud_gaming": 20, "poqemon": 20, "vlc": 5, "p1203": 20}


def get_config(variant: str = "cloud_gaming") -> ml_collections.ConfigDict:
    """The run of one dataset config and, after a plus sign, one way of training."""
    dataset, _, algorithm = variant.partition("+")
    if dataset not in SETTINGS:
        raise ValueError(f"unknown dataset {dataset!r}: expected one of {', '.join(SETTINGS)}")
    c = base.get_config()
    c.model, scale, c.fed.rounds, c.client.batch = SETTINGS[dataset]
    # There are no labels to select features by.
    c.data.update(name=f"human_qoe/{dataset}", scale=scale, features=0)
    c.clients.update(count=CLIENTS[dataset], partition="natural", min_size=1)
    c.perf.client_axis = "turn"  # batches too small for more than one device
    return base.train_as(c, algorithm or "centralised").lock()
