"""Counts of equal rows, eight bytes a row: for splits too large for memory. NumPy, on the host."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int, UInt64

from qoejax.data import split

_CHUNK = 1 << 20


class Equal(NamedTuple):
    """As in ``split.CleanReport``: repeats of an earlier row and label; rows of several labels."""

    duplicates: int
    conflict_rows: int


def count(
    rows: int,
    chunks: Iterable[tuple[Float32[np.ndarray, "n D"], Int[np.ndarray, " n"]]],
) -> Equal:
    """Duplicates and label conflicts of ``rows`` rows that come in chunks, with their labels.

    Rows are told apart by 56 bits of their hash: of ten million different rows, two are taken for
    equal with a chance below 0.001.

    Raises:
      DataError: a value is not finite.
    """
    keys = np.empty(rows, np.uint64)
    at = 0
    for x, label in chunks:
        keys[at : at + len(x)] = split.row_hash(x) & ~np.uint64(0xFF)
        keys[at : at + len(x)] |= label.astype(np.uint64)
        at += len(x)
    keys.sort()
    duplicates = conflicts = 0
    for part in _parts(keys):
        group = part >> np.uint64(8)
        starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
        sizes = np.diff(np.r_[starts, len(part)])
        # Sorted by label within a group: several labels, if its ends differ.
        mixed = part[starts] != part[starts + sizes - 1]
        conflicts += int(sizes[mixed].sum())
        duplicates += int((sizes[~mixed] - 1).sum())
    return Equal(duplicates, conflicts)


def _parts(keys: UInt64[np.ndarray, " n"]) -> Iterator[UInt64[np.ndarray, " m"]]:
    """The sorted keys in pieces that cut no group."""
    start = 0
    while start < len(keys):
        stop = min(start + _CHUNK, len(keys))
        if stop < len(keys):  # To the end of the group that the cut would fall into.
            stop = int(np.searchsorted(keys, keys[stop - 1] | np.uint64(0xFF), side="right"))
        yield keys[start:stop]
        start = stop
