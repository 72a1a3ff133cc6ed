"""Ways to part rows into training and test rows, from mild to severe. NumPy only.

``prepared`` splits (by content, or by group) come with a dataset. These part the union of its rows
anew, from which duplicates and conflicts have gone first, so that no row has an equal on the other
side. A split is a pure function of the rows and a seed.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int64

from qoejax.data import split
from qoejax.data.errors import DataError


class Split(NamedTuple):
    """Sorted indices of training and test rows, and what there is to say about them."""

    train: Int64[np.ndarray, " train"]
    test: Int64[np.ndarray, " test"]
    report: dict[str, Any]


def random(x: Float32[np.ndarray, "N D"], fraction: float, seed: int) -> Split:
    """By content: about ``fraction`` of the rows are test rows, whatever their order.

    Raises:
      DataError: the fraction is not in [0, 1].
    """
    return _parted(split.holdout(x, fraction, seed), {})


def by_group(
    group: Int[np.ndarray, " N"], label: Int[np.ndarray, " N"], fraction: float, seed: int
) -> Split:
    """Whole groups: all rows of a host, person or capture are on one side.

    Groups are taken in a random order until ``fraction`` of the rows are test rows. Groups are
    never cut, so sides need not have the same classes: the report says which lack one, and how far
    the class shares differ (total variation).

    Raises:
      DataError: the rows have no groups, or only one.
    """
    names, inverse = np.unique(group, return_inverse=True)
    if len(names) < 2 or names[0] < 0:
        raise DataError(
            "rows have no natural groups, or only one; expected several for a split by group."
        )
    order = np.random.default_rng([seed, 11]).permutation(len(names))
    rows = np.cumsum(np.bincount(inverse)[order])
    count = int(np.clip(np.searchsorted(rows, fraction * rows[-1], "right"), 1, len(names) - 1))
    chosen = np.isin(inverse, order[:count])
    groups = {"test_groups": count, "train_groups": len(names) - count}
    return _parted(chosen, groups | stratification(label, chosen))


def blocked(
    within: Int[np.ndarray, " N"],
    order: Float[np.ndarray, " N"],
    label: Int[np.ndarray, " N"],
    fraction: float,
    seed: int,
    *,
    blocks: int = 10,
    gap: int = 50,
) -> Split:
    """Contiguous blocks of time, with a gap: neighbours in time are not on both sides.

    Each part of ``within`` (a class, whose rows are one capture; a host) is put in ``order`` and
    cut into ``blocks`` blocks of equal length, of which ``fraction`` are test blocks, at random.
    Where two neighbours are on different sides, the last and first ``gap`` rows are dropped. Parts
    of fewer rows than blocks go to the training side.

    Raises:
      DataError: fewer than two blocks, a negative gap, or a gap that leaves a side without rows.
    """
    if blocks < 2 or gap < 0:
        raise DataError(f"{blocks} blocks and a gap of {gap} rows; expected at least 2, and 0.")
    rng = np.random.default_rng([seed, 12])
    test, dropped = np.zeros(len(label), bool), np.zeros(len(label), bool)
    small = 0
    for part in np.unique(within):
        rows = np.flatnonzero(within == part)
        rows = rows[np.argsort(order[rows], kind="stable")]
        chosen = rng.permutation(blocks) < max(1, round(fraction * blocks))
        if len(rows) < blocks:
            small += 1
            continue
        side = chosen[np.arange(len(rows)) * blocks // len(rows)]
        test[rows] = side
        borders = np.flatnonzero(side[1:] != side[:-1])
        near = (borders[:, None] + np.arange(1 - gap, gap + 1)).ravel()
        dropped[rows[near[(near >= 0) & (near < len(rows))]]] = True
    if not (test & ~dropped).any() or (test | dropped).all():
        raise DataError(f"a gap of {gap} rows leaves no row on one side; expected a smaller gap.")
    report = {"dropped_at_borders": int(dropped.sum()), "parts_too_small": small}
    return _parted(test, report | stratification(label, test, ~dropped), ~dropped)


def leave_out(
    label: Int[np.ndarray, " N"],
    test: Bool[np.ndarray, " N"],
    names: Sequence[str],
    absent: Collection[str],
    benign: str,
) -> Split:
    """Some attacks are unknown: none of their rows is a training row, all are test rows.

    The other rows stay where ``test`` has them. A model cannot name an unknown attack; the question
    is whether it takes one for benign.

    Raises:
      DataError: no name is given, one is no class, or the benign class or all attacks are left out.
    """
    unknown = sorted(set(absent) - set(names))
    if unknown or not absent:
        raise DataError(f"cannot leave out {unknown or 'nothing'}; the classes are {list(names)}.")
    if benign in absent or len(set(absent)) >= len(names) - 1:
        raise DataError("expected to leave out some attacks, not the benign class, and not all.")
    gone = np.isin(label, [i for i, name in enumerate(names) if name in absent])
    return _parted(test | gone, {"left_out_rows": int(gone.sum())})


def stratification(
    label: Int[np.ndarray, " N"],
    test: Bool[np.ndarray, " N"],
    used: Bool[np.ndarray, " N"] | None = None,
) -> dict[str, Any]:
    """How alike the sides are: classes (indices) that one lacks, distance of the class shares."""
    used = np.ones(len(label), bool) if used is None else used
    classes = int(label.max(initial=-1)) + 1
    count = [
        np.bincount(label[side & used & (label >= 0)], minlength=classes) for side in (~test, test)
    ]
    share = [c / max(1, c.sum()) for c in count]
    present = (count[0] + count[1]) > 0
    return {
        "classes_without_training_rows": np.flatnonzero(present & (count[0] == 0)).tolist(),
        "classes_without_test_rows": np.flatnonzero(present & (count[1] == 0)).tolist(),
        "class_share_distance": float(np.abs(share[0] - share[1]).sum() / 2),
    }


def _parted(
    test: Bool[np.ndarray, " N"], report: dict[str, Any], used: Bool[np.ndarray, " N"] | None = None
) -> Split:
    used = np.ones(len(test), bool) if used is None else used
    made = Split(np.flatnonzero(~test & used), np.flatnonzero(test & used), report)
    for side, rows in (("training", made.train), ("test", made.test)):
        if not len(rows):
            raise DataError(f"the split leaves no {side} row; expected some on either side.")
    return made
