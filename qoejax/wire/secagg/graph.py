"""Who masks with whom: a circulant graph on a permutation that public randomness fixes.

Members stand on a ring in the order of a hash of their ids under a seed that depends on everybody's
fresh keys; each is joined to the ``degree / 2`` next on either side (Bell et al. 2020, a Harary
graph). With ``degree`` n - 1 the graph is complete. On an edge, the side that comes first, counted
clockwise, encapsulates to the other.
"""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple


class Graph(NamedTuple):
    """Members in ring order, their positions, and how many neighbours each has."""

    ring: tuple[bytes, ...]
    position: dict[bytes, int]
    degree: int


def valid(members: int, degree: int) -> bool:
    """Whether a circulant graph of that degree exists: even, or complete."""
    return members > 1 and degree >= 1 and (degree % 2 == 0 or degree >= members - 1)


def build(seed: bytes, members: Iterable[bytes], degree: int) -> Graph:
    """The graph of ``members`` (ids) under ``seed`` [32]; ValueError if there is none.

    Complete where they are no more than ``degree``, since some may have left already.
    """
    ring = tuple(sorted(members, key=lambda one: hashlib.sha256(seed + one).digest()))
    position = {one: at for at, one in enumerate(ring)}
    if len(position) != len(ring):
        raise ValueError("a member is listed twice")
    if not valid(len(ring), degree):
        raise ValueError(
            f"no circulant graph of degree {degree} on {len(ring)} members: expected an even "
            f"number, or at least {len(ring) - 1}"
        )
    return Graph(ring, position, min(degree, len(ring) - 1))


def clockwise(graph: Graph, member: bytes) -> tuple[bytes, ...]:
    """Neighbours to whom the member encapsulates, nearest first."""
    n, at = len(graph.ring), graph.position[member]
    steps = range(1, graph.degree // 2 + 1)
    ahead = [graph.ring[(at + step) % n] for step in steps]
    # Complete graph of an even number: the opposite member belongs to neither side.
    if graph.degree % 2 and at < n // 2:
        ahead.append(graph.ring[at + n // 2])
    return tuple(ahead)


def anticlockwise(graph: Graph, member: bytes) -> tuple[bytes, ...]:
    """Neighbours who encapsulate to the member, nearest first."""
    n, at = len(graph.ring), graph.position[member]
    steps = range(1, graph.degree // 2 + 1)
    behind = [graph.ring[(at - step) % n] for step in steps]
    if graph.degree % 2 and at >= n // 2:
        behind.append(graph.ring[at - n // 2])
    return tuple(behind)


def neighbours(graph: Graph, member: bytes) -> tuple[bytes, ...]:
    """Both sides."""
    return clockwise(graph, member) + anticlockwise(graph, member)


def holders(graph: Graph, owner: bytes) -> tuple[bytes, ...]:
    """Who gets a share of the owner's secrets, itself first; the x of a share is its place + 1."""
    return (owner, *neighbours(graph, owner))
