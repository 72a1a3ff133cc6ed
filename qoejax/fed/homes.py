"""Which device each client lives on: its rows are there and nowhere else. NumPy.

Clients go, largest first, to the device with the fewest rows so far (LPT, Graham 1969), so that
devices hold about the same number of rows unless a single client has more than an even share.
"""

import heapq
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int32, Integer


class Homes(NamedTuple):
    """P clients on D devices.

    Attributes:
      device: Number of each client's device in the mesh.
      offset: First row of each client among those of its device.
      rows: Staged rows of each device, in order; short devices repeat theirs up to L, the rows of
        the fullest. A process needs the rows of its own devices only.
    """

    device: Int32[np.ndarray, " P"]
    offset: Int32[np.ndarray, " P"]
    rows: Int[np.ndarray, "D L"]

    @property
    def most(self) -> int:
        """Clients of the device that has most."""
        return int(np.bincount(self.device).max())


def settle(
    offset: Integer[np.ndarray, " P"], count: Integer[np.ndarray, " P"], devices: int
) -> Homes:
    """Homes of clients with these ranges of the staged rows.

    Raises:
      ValueError: fewer clients than devices.
    """
    if len(count) < devices:
        raise ValueError(
            f"{devices} devices for {len(count)} clients: expected at most one device a client"
        )
    load = [(0, d) for d in range(devices)]
    device = np.empty(len(count), np.int32)
    for client in np.argsort(-np.asarray(count, np.int64), kind="stable"):
        rows, device[client] = heapq.heappop(load)
        heapq.heappush(load, (rows + int(count[client]), int(device[client])))
    local, slabs = np.empty(len(count), np.int32), []
    for d in range(devices):
        own = np.flatnonzero(device == d)
        local[own] = np.cumsum(count[own]) - count[own]
        slabs.append(np.concatenate([np.arange(offset[c], offset[c] + count[c]) for c in own]))
    longest = max(map(len, slabs))
    return Homes(device, local, np.stack([np.resize(slab, longest) for slab in slabs]))
