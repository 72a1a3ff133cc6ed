"""The literal table of algorithms. JAX."""

from collections.abc import Callable

from qoejax.fed import client, drift, personal
from qoejax.fed.protocol import ClientUpdate

CLIENT_UPDATES: dict[str, Callable[..., ClientUpdate]] = {
    "fedavg": client.fedavg,
    "fedprox": client.fedprox,
    "scaffold": drift.scaffold,
    "fednova": drift.fednova,
    "feddyn": drift.feddyn,
    "shared_moments": drift.shared_moments,
    "fedper": personal.fedper,
    "fedrep": personal.fedrep,
    "ditto": personal.ditto,
    "persistent": client.persistent,
    "local_only": client.local_only,
}
"""``fedper`` is also FedBN and the per-site embedding: they differ in what stays local."""
