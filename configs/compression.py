"""Smaller updates on the simulated dataset: bytes against macro-F1.

    python -m experiments.train --config=configs/compression.py:top_k --workdir=runs/top_k

The variant is ``none`` (default), ``int8``, ``int4``, ``top_k`` (5 %) or ``low_rank`` (rank 4),
with ``+bare`` after it for clients that do not remember what compression took. Figures:
docs/compression.md.
"""

import ml_collections

from configs import base

METHODS = ("none", "int8", "int4", "top_k", "low_rank")


def get_config(variant: str = "none") -> ml_collections.ConfigDict:
    """Twenty sites, a small MLP, thirty rounds, and one way to compress."""
    method, _, bare = variant.partition("+")
    if method not in METHODS or bare not in ("", "bare"):
        raise ValueError(
            f"unknown variant {variant!r}: expected one of {', '.join(METHODS)}, '+bare' after it"
        )
    c = base.get_config()
    c.data.name = "simulated_iot/small"
    c.model = {"net": "mlp", "width": 64, "depth": 2}
    c.fed.rounds = 30
    c.clients.update(partition="natural", count=20)
    c.evaluation.every = 10
    c.compress.update(method=method, feedback=not bare)
    return c.lock()
