"""TON_IoT as a time series: attack now, and MOS of benign DNS and HTTP in the next minute.

    python -m experiments.prepare --dataset=ton_iot/windows --manual_dir=DIR --data_dir=D
    python -m experiments.train --config=configs/ton_iot_windows.py --config.data.dir=D --workdir=W

DIR holds Network_dataset_1.csv to _23.csv. Captures are dealt whole to three clients. Variants:
``fedavg`` (default), ``fedprox``, ``centralised``, ``local``; ``blind`` is fedavg without the
columns that come from durations and connection states, which show the response until now.
"""

import ml_collections

from configs import base

STATES = (
    *("SF", "S0", "REJ", "RSTO", "RSTR", "RSTOS0", "RSTRH", "SH"),
    *("S1", "S2", "S3", "SHR", "OTH"),
)
OUTCOMES = (
    *("duration", "longest"),
    *(f"state_{state}" for state in STATES),
    *("dns_failed", "http_failed", "dns_wait", "http_wait"),
)


def get_config(variant: str = "fedavg") -> ml_collections.ConfigDict:
    """The run of one variant."""
    c = base.get_config()
    c.data.name = "ton_iot/windows"
    c.clients.update(count=3, partition="natural", min_size=1)
    c.fed.rounds = 60
    if variant == "blind":
        c.data.drop = OUTCOMES
        variant = "fedavg"
    return base.train_as(c, variant).lock()
