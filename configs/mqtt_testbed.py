"""Captures of an MQTT testbed, 7 classes; each capture round is a client, unseen rounds the test.

    python -m experiments.prepare --dataset=pcap_folder/packets --manual_dir=DIR --data_dir=D
    python -m experiments.train --config=configs/mqtt_testbed.py --config.data.dir=D --workdir=W
    python -m experiments.predict --workdir=W --input=some.pcap --output=verdicts.csv

DIR holds the unpacked captures, named ROUND__CLASS_NN.pcap. With other captures, set
``clients.count`` to the number of groups in the training split (or fewer: groups then share a
client). Variants: ``fedavg`` (default), ``fedprox``, ``centralised`` and ``local`` (comparisons;
nothing is exchanged).
"""

import ml_collections

from configs import base


def get_config(variant: str = "fedavg") -> ml_collections.ConfigDict:
    """The run of one variant."""
    c = base.get_config()
    c.data.update(name="pcap_folder/packets", features=0, scale="quantile")
    c.clients.update(count=6, partition="natural")
    c.loss.class_weight = "balanced"
    c.fed.rounds = 20
    c.client.update(batch=64, epochs=1)
    return base.train_as(c, variant).lock()
