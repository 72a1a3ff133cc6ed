"""Conformal sets of classes and intervals of scores, from held-out rows. NumPy, host.

A score says how badly an answer fits a row. With the scores of n held-out rows and of a new row
exchangeable, the set of all answers whose score is at most the k-th smallest of the n,
k = ceil((n + 1)(1 - alpha)), holds the truth with probability at least 1 - alpha, and at most
1 / (n + 1) more where scores have no ties (Vovk, Gammerman, Shafer 2005; Lei et al. 2018). That is
marginal: over rows and over draws of the held-out rows, not for each class, client or row.

Classes: LAC (Sadinle, Lei, Wasserman 2019, "Least ambiguous set-valued classifiers") and APS
(Romano, Sesia, Candes 2020, "Classification with valid and adaptive coverage"). Scores: CQR
(Romano, Patterson, Candes 2019, "Conformalized quantile regression").
"""

import math
from collections.abc import Callable

import numpy as np
import scipy.special
import scipy.stats
from jaxtyping import Bool, Float, Float32, Int

CAP = 1.0
"""Largest score of a class: a threshold of it lets every class in."""


def rank(rows: int, alpha: float) -> int:
    """Rank ceil((n + 1)(1 - alpha)); above ``rows`` where they are too few to promise anything.

    Raises:
      ValueError: alpha is not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha: expected a number between 0 and 1, got {alpha}")
    # 0.9 * 10 must be 9 and not a little more.
    return math.ceil(round((rows + 1) * (1 - alpha), 9))


def quantile(scores: Float[np.ndarray, " n"], alpha: float) -> float:
    """The ``rank``-th smallest score; infinity where there are too few."""
    k = rank(len(scores), alpha)
    return float(np.partition(scores, k - 1)[k - 1]) if k <= len(scores) else math.inf


def histogram(
    scores: Float[np.ndarray, " n"], edges: Float[np.ndarray, " E"]
) -> Int[np.ndarray, " E"]:
    """Scores by the smallest edge that is not below them: what a client sends.

    Raises:
      ValueError: a score is above the last edge.
    """
    if scores.max(initial=-math.inf) > edges[-1]:
        raise ValueError(f"scores: expected at most {edges[-1]}, got {scores.max()}")
    return np.bincount(np.searchsorted(edges, scores, side="left"), minlength=len(edges))


def quantile_of_counts(
    counts: Int[np.ndarray, " E"], edges: Float[np.ndarray, " E"], alpha: float
) -> float:
    """``quantile`` of the rows of all whose histograms were added, rounded up to an edge.

    It is the smallest edge that is not below the exact quantile: never lower, so that coverage
    stays, and higher by less than the width of that one bin. Too few rows give infinity.
    """
    k = rank(int(counts.sum()), alpha)
    return float(edges[np.searchsorted(np.cumsum(counts), k)]) if k <= counts.sum() else math.inf


def class_edges(bins: int = 4096, reach: float = 18.0) -> Float[np.ndarray, " E"]:
    """Edges for scores of classes, evenly spaced in log odds: fine near 0 and near 1."""
    inner = scipy.special.expit(np.linspace(-reach, reach, bins))
    return np.concatenate([[0.0], inner, [CAP]])


def lac(probability: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "N C"]:
    """1 - p: sets hold the classes that are probable enough, and may be empty."""
    return np.clip(1.0 - np.asarray(probability, np.float64), 0.0, CAP)


def aps(
    probability: Float[np.ndarray, "N C"], uniform: Float[np.ndarray, " N"] | None = None
) -> Float[np.ndarray, "N C"]:
    """Probability of the classes before a class, in falling order, and of a part of its own.

    Args:
      probability: Of each class; equal ones are taken in the order of the classes.
      uniform: The part, one draw from [0, 1) a row: the randomised form, whose coverage is not
        above its promise. None is the deterministic form, the whole of it: sets are larger.
    """
    p = np.asarray(probability, np.float64)
    order = np.argsort(-p, axis=1, kind="stable")
    ranked = np.take_along_axis(p, order, axis=1)
    part = np.ones(len(p)) if uniform is None else uniform
    score = np.cumsum(ranked, axis=1) - (1.0 - part[:, None]) * ranked
    out = np.empty_like(p)
    np.put_along_axis(out, order, score, axis=1)
    return np.clip(out, 0.0, CAP)


def uniform(values: Float32[np.ndarray, "N C"]) -> Float[np.ndarray, " N"]:
    """A number in [0, 1) of each row's bits, for ``aps``: evenly spread, and the same for ever.

    So a record has one set, whenever and beside whatever others it is asked for.
    """
    word = np.full(len(values), 0x9E3779B9, np.uint32)
    for column in np.ascontiguousarray(values.T).view(np.uint32):
        word = word ^ column
        word = (word ^ (word >> 16)) * np.uint32(0x7FEB352D)  # lowbias32, C. Wellons 2018
        word = (word ^ (word >> 15)) * np.uint32(0x846CA68B)
        word = word ^ (word >> 16)
    return word / 2.0**32


Method = Callable[[Float[np.ndarray, "N C"], Float[np.ndarray, " N"]], Float[np.ndarray, "N C"]]

METHODS: dict[str, Method] = {
    "lac": lambda probability, uniform: lac(probability),
    "aps": aps,
    "aps_whole": lambda probability, uniform: aps(probability),
}
"""Scores of all classes of probabilities and ``uniform``, by name."""


def of_label(
    scores: Float[np.ndarray, "N C"], label: Int[np.ndarray, " N"]
) -> Float[np.ndarray, " N"]:
    """Score of each row's true class."""
    return np.take_along_axis(scores, label[:, None], axis=1)[:, 0]


def sets(
    scores: Float[np.ndarray, "N C"],
    threshold: Float[np.ndarray, " C"],
    probability: Float[np.ndarray, "N C"] | None = None,
) -> Bool[np.ndarray, "N C"]:
    """Classes whose score is at most their threshold.

    Equal thresholds give marginal coverage; one of each class's own held-out rows, coverage within
    each class (Mondrian sets). With ``probability`` the most probable class is always in, which
    can only add to coverage.
    """
    inside = scores <= np.broadcast_to(threshold, scores.shape)
    if probability is not None:
        inside[np.arange(len(inside)), probability.argmax(1)] = True
    return inside


def cqr(
    low: Float[np.ndarray, "*N"], high: Float[np.ndarray, "*N"], target: Float[np.ndarray, "*N"]
) -> Float[np.ndarray, "*N"]:
    """How far a target is outside of its predicted quantiles; below 0 inside.

    The interval that covers is ``[low - q, high + q]`` with q the ``quantile`` of these.
    """
    return np.maximum(low - target, target - high)


def floor(calibration: int, test: int, alpha: float, level: float = 0.01) -> float:
    """Coverage of ``test`` rows that valid sets stay below with probability ``level`` at most.

    Given the held-out rows, coverage is Beta(k, n + 1 - k) where scores have no ties (Vovk 2012);
    the covered among m rows are then beta-binomial. Ties only add to coverage. Rows that come in
    dependent groups count as one a group. 0 where ``rank`` is above the held-out rows.
    """
    k = rank(calibration, alpha)
    if k > calibration:
        return 0.0
    return float(scipy.stats.betabinom.ppf(level, test, k, calibration + 1 - k) / test)
