"""Equal rows: removal of duplicates and label conflicts, and hold-outs by content. NumPy only.

Equal means equal on every column given (-0.0 equals 0.0), so pass only the columns that a model
sees: what differs in a dropped column alone is a duplicate to the model.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int, Int64, UInt64

from qoejax.data.errors import DataError

_CHUNK = 8192  # rows at a time: what is in work stays in cache


class CleanReport(NamedTuple):
    """What ``clean`` found; rows = kept + duplicates + conflict_rows + unlabelled.

    ``duplicates`` repeat an earlier row and its label; ``conflict_rows`` stand in one of
    ``conflict_groups`` groups of equal features with different labels, all of them removed.
    ``accuracy_ceiling`` is the best accuracy that any function of these columns can reach on the
    labelled rows as they came, duplicates and conflicts included. ``class_*`` count rows per label.
    """

    rows: int
    kept: int
    duplicates: int
    conflict_rows: int
    conflict_groups: int
    unlabelled: int
    accuracy_ceiling: float
    class_rows: tuple[int, ...]
    class_kept: tuple[int, ...]
    class_duplicates: tuple[int, ...]
    class_conflicts: tuple[int, ...]


def clean(
    x: Float32[np.ndarray, "N D"], label: Int[np.ndarray, " N"]
) -> tuple[Int64[np.ndarray, " kept"], CleanReport]:
    """Sorted indices of the rows to keep: one of each, and none whose features have two labels.

    Rows with an unknown label (-1) are left out and counted. Exact: rows are grouped by hash, then
    compared.

    Raises:
      DataError: a value of x is not finite; names its column and row.
    """
    rows, known = len(label), np.flatnonzero(label >= 0)
    if len(known) < len(label):
        x, label = x[known], label[known]
    first = first_equal(x)
    conflicting = np.zeros(len(x), bool)
    conflicting[first[label != label[first]]] = True
    conflict = conflicting[first]
    keep = first == np.arange(len(x))
    repeat = ~keep & ~conflict
    keep &= ~conflict
    classes = int(label.max(initial=-1)) + 1

    def per_class(chosen: Bool[np.ndarray, " n"]) -> tuple[int, ...]:
        return tuple(np.bincount(label[chosen], minlength=classes).tolist())

    best = len(x) - int(conflict.sum()) + _best_hits(first[conflict], label[conflict])
    report = CleanReport(
        rows=rows,
        kept=int(keep.sum()),
        duplicates=int(repeat.sum()),
        conflict_rows=int(conflict.sum()),
        conflict_groups=int(conflicting.sum()),
        unlabelled=rows - len(known),
        accuracy_ceiling=best / len(x) if len(x) else 1.0,
        class_rows=per_class(np.ones(len(x), bool)),
        class_kept=per_class(keep),
        class_duplicates=per_class(repeat),
        class_conflicts=per_class(conflict),
    )
    return known[keep], report


def holdout(x: Float32[np.ndarray, "N D"], fraction: float, salt: int) -> Bool[np.ndarray, " N"]:
    """True for about ``fraction`` of the rows, chosen by content: equal rows go together.

    Independent of row order and of the other rows; independent choices for different salts.
    """
    if not 0 <= fraction <= 1:
        raise DataError(f"the fraction to hold out is {fraction}; expected 0 to 1.")
    return (row_hash(x, salt) >> np.uint64(32)) < np.uint64(round(fraction * 2**32))


def row_hash(x: Float32[np.ndarray, "N D"], salt: int = 0) -> UInt64[np.ndarray, " N"]:
    """64-bit multilinear hash of each row's float32 words, with splitmix64 keys from ``salt``.

    The upper 32 bits are strongly universal (Lemire and Kaser, "Strongly universal string hashing
    is fast", 2014). The definition is fixed: changing it changes every split.

    Raises:
      DataError: a value is not finite; names its column and row.
    """
    keys = _splitmix(salt, x.shape[1] + 1)
    out = np.empty(len(x), np.uint64)
    for start in range(0, len(x), _CHUNK):
        chunk = x[start : start + _CHUNK] + np.float32(0)  # -0.0 + 0.0 is 0.0
        if not np.isfinite(chunk).all():
            row, column = np.argwhere(~np.isfinite(chunk))[0]
            raise DataError(
                f"row {start + row} has {chunk[row, column]} in column number {column}; expected "
                "finite values."
            )
        words = chunk.view(np.uint32)
        # The low bits of most floats are zero: a half turn keeps a product's low bits busy.
        turned = ((words >> np.uint32(16)) | (words << np.uint32(16))).astype(np.uint64)
        turned *= keys[1:]
        out[start : start + _CHUNK] = keys[0] + turned.sum(1, dtype=np.uint64)
    return out


def first_equal(
    x: Float32[np.ndarray, "N D"], hashes: UInt64[np.ndarray, " N"] | None = None
) -> Int64[np.ndarray, " N"]:
    """For each row, the index of the first row equal to it (its own, if there is none before).

    ``hashes`` must be equal for equal rows; ``row_hash`` by default. Rows of equal hash are
    compared, so a collision costs time, never correctness.
    """
    hashes = row_hash(x) if hashes is None else hashes
    order = np.argsort(hashes, kind="stable")
    ranked = hashes[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]][: len(order)])
    sizes = np.diff(np.r_[starts, len(order)])
    first = np.empty(len(x), np.int64)
    first[order] = np.repeat(order[starts], sizes)
    bad = _unequal(x, first)
    if len(bad):
        rows = np.flatnonzero(np.isin(first, first[bad]))
        exact = np.ascontiguousarray(x[rows] + np.float32(0)).view(f"V{4 * x.shape[1]}")[:, 0]
        _, index, inverse = np.unique(exact, return_index=True, return_inverse=True)
        first[rows] = rows[index][inverse]
    return first


def repeated(
    train: Float32[np.ndarray, "N D"], test: Float32[np.ndarray, "M D"]
) -> Bool[np.ndarray, " M"]:
    """True for the test rows that are equal to some training row."""
    train_hash, test_hash = row_hash(train), row_hash(test)
    here = np.flatnonzero(np.isin(train_hash, test_hash))
    there = np.flatnonzero(np.isin(test_hash, train_hash))
    both = np.concatenate([train[here], test[there]])
    out = np.zeros(len(test), bool)
    out[there] = first_equal(both)[len(here) :] < len(here)
    return out


def _unequal(
    x: Float32[np.ndarray, "N D"], first: Int64[np.ndarray, " N"]
) -> Int64[np.ndarray, " bad"]:
    """Rows that differ from the row they were grouped with."""
    grouped = np.flatnonzero(first != np.arange(len(x)))
    bad = [grouped[:0]]
    for start in range(0, len(grouped), _CHUNK):
        rows = grouped[start : start + _CHUNK]
        bad.append(rows[(x[rows] != x[first[rows]]).any(1)])
    return np.concatenate(bad)


def _best_hits(group: Int64[np.ndarray, " n"], label: Int[np.ndarray, " n"]) -> int:
    """Rows that the most common label of each group gets right."""
    if not len(group):
        return 0
    classes = int(label.max()) + 1
    pairs, counts = np.unique(group * classes + label, return_counts=True)
    _, starts = np.unique(pairs // classes, return_index=True)
    return int(np.maximum.reduceat(counts, starts).sum())


def _splitmix(seed: int, count: int) -> UInt64[np.ndarray, " count"]:
    """Outputs of splitmix64 (Steele, Lea and Flood, OOPSLA 2014) from ``seed``."""
    step = np.uint64(0x9E3779B97F4A7C15)
    z = np.uint64(seed % 2**64) + step * np.arange(1, count + 1, dtype=np.uint64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
