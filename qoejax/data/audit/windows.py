"""The size of the window that a record was computed over, as columns give it away. NumPy only.

CICIoT2023's extractor averaged 100 packets for floods and 10 for all else; a count then holds one
constant a class, and a mean of 0/1 flags is a multiple of 0.01 or of 0.1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse.csgraph
from jaxtyping import Float64, Int, Int64

from qoejax.data.audit.frame import Column, Frame

CONSTANTS = 12
COVERED = 0.99
OVERLAP = 0.1
LEAST_SHARE = 0.25

GRID = (1, 2, 4, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Window sizes to try, smallest first; a row's grain is the first that all its means fit."""

_CLOSE = 1e-5  # float32 rounding of a mean in [0, 1]


class Groups(NamedTuple):
    """Groups of classes that a column's few values tell apart, each with its common values."""

    classes: tuple[tuple[int, ...], ...]
    values: tuple[tuple[float, ...], ...]


def class_groups(frame: Frame, column: Column) -> Groups | None:
    """Groups of classes that hardly share a value of a column of few values; None if one group.

    Two classes belong together when their distributions over the values overlap by more than
    ``OVERLAP``, or both overlap with a third. Each of the two largest groups must have at least
    ``LEAST_SHARE`` of the classes: a protocol that one or two attacks use is behaviour, a constant
    that halves the classes is how records were cut.
    """
    label, classes = frame.target.value, len(frame.target.names)
    count = np.bincount(column.code, minlength=len(column.value))
    common = np.argsort(-count, kind="stable")[:CONSTANTS]
    if len(column.value) < 2 or count[common].sum() < COVERED * len(label):
        return None
    joint = np.zeros((classes, len(column.value)))
    np.add.at(joint, (label, column.code), 1)
    present = np.flatnonzero(joint.any(1))
    share = joint[present] / joint[present].sum(1, keepdims=True)
    overlap = np.minimum(share[:, None], share[None]).sum(2)
    groups, member = scipy.sparse.csgraph.connected_components(overlap > OVERLAP, directed=False)
    sizes = np.sort(np.bincount(member))[::-1]
    if groups < 2 or sizes[1] < max(2, LEAST_SHARE * len(present)):
        return None
    order = np.argsort(-np.bincount(member), kind="stable")[:2]
    sets = [np.flatnonzero(member == g) for g in order]
    held = [column.value[share[s].mean(0) > OVERLAP / 2] for s in sets]
    return Groups(
        tuple(tuple(present[s].tolist()) for s in sets), tuple(tuple(v.tolist()) for v in held)
    )


def repeats_label(frame: Frame, column: Column) -> bool:
    """Whether every class has a single value and there are several: a label by another name."""
    if len(column.value) < 2 or len(np.unique(frame.target.value)) < 3:
        return False
    pairs = np.unique(np.stack([frame.target.value, column.code]), axis=1)
    return pairs.shape[1] == len(np.unique(frame.target.value))


def grain(columns: Sequence[Column]) -> Int64[np.ndarray, " N"] | None:
    """Index into ``GRID`` of each row's window size, as far as its means of 0/1 flags tell.

    None where fewer than two columns are such means: numbers in [0, 1] with values in between, most
    of them on some grid. ``len(GRID)`` is "on none".
    """
    means = [c for c in columns if _is_mean(c)]
    if len(means) < 2:
        return None
    return np.max([_grain(c.value)[c.code] for c in means], axis=0)


def _is_mean(column: Column) -> bool:
    value = column.value
    inside = not column.nominal and len(value) >= 3 and value[0] >= 0 and value[-1] <= 1
    return bool(inside) and float((_grain(value) < len(GRID)).mean()) > 0.9


def _grain(value: Float64[np.ndarray, " V"]) -> Int64[np.ndarray, " V"]:
    sizes = np.array(GRID)
    fits = np.abs(value[:, None] * sizes - np.round(value[:, None] * sizes)) < _CLOSE * sizes
    return np.where(fits.any(1), fits.argmax(1), len(sizes))


def by_class(grains: Int[np.ndarray, " N"], frame: Frame) -> dict[str, float]:
    """Share of each class's rows that need a window of more than 10."""
    fine = grains > GRID.index(10)
    names = frame.target.names
    return {names[c]: float(fine[frame.target.value == c].mean())
            for c in np.unique(frame.target.value)}  # fmt: skip
