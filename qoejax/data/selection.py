"""How much one column says, as a number to rank columns by. NumPy only."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64, Int

from qoejax.data.scaling import signed_log

BINS = 64


def mutual_information(values: Float64[np.ndarray, " n"], label: Int[np.ndarray, " n"]) -> float:
    """Mutual information with the label in nats, from a histogram of about 64 equal-count bins.

    With the Miller-Madow correction (half a nat per occupied cell and row), so that noise with many
    distinct values does not outrank a useful flag; never negative. At least one row is needed.
    """
    ranked = np.sort(values)
    edges = np.unique(ranked[np.arange(1, BINS) * len(ranked) // BINS])
    bins = np.searchsorted(edges, values)
    classes = int(label.max()) + 1
    joint = np.bincount(bins * classes + label, minlength=(len(edges) + 1) * classes)
    joint = joint.reshape(-1, classes)
    parts = [_entropy(joint.sum(1)), _entropy(joint.sum(0)), -_entropy(joint.ravel())]
    return max(0.0, sum(parts))


def variance(values: Float64[np.ndarray, " n"], label: Int[np.ndarray, " n"]) -> float:
    """Variance of the signed log, whatever the label."""
    del label
    return float(signed_log(values).var())


SCORES: dict[str, Callable[[Float64[np.ndarray, " n"], Int[np.ndarray, " n"]], float]] = {
    "mutual_information": mutual_information,
    "variance": variance,
}


def _entropy(counts: Int[np.ndarray, " m"]) -> float:
    """Miller-Madow estimate of the entropy in nats."""
    held = counts[counts > 0]
    share = held / held.sum()
    return float(-(share * np.log(share)).sum() + (len(held) - 1) / (2 * held.sum()))
