"""Dedup and label conflicts with dicts of bytes: slow, obvious."""

import collections

import numpy as np


def clean(x: np.ndarray, label: np.ndarray) -> tuple[list[int], float]:
    """Rows to keep, and the best accuracy that a look-up of whole rows can reach."""
    groups = collections.defaultdict(list)
    for i, row in enumerate(x):
        groups[tuple(float(v) + 0.0 for v in row)].append(i)
    keep, hits = [], 0
    for rows in groups.values():
        counts = collections.Counter(label[rows].tolist())
        hits += counts.most_common(1)[0][1]
        if len(counts) == 1:
            keep.append(rows[0])
    return sorted(keep), hits / len(label)
