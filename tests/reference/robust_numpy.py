"""Robust rules and attacks in plain float64 NumPy, written from the papers; deltas are [n, d].

Every rule gets the present clients only. Citations as in ``qoejax.fed.aggregate``.
"""

import numpy as np
import scipy.stats


def coordinate_median(u, w, f):
    return np.median(u, axis=0)


def trimmed_mean(u, w, f):
    return np.sort(u, axis=0)[f : len(u) - f].mean(axis=0)


def krum_scores(u, f):
    distance = ((u[:, None] - u) ** 2).sum(-1)
    np.fill_diagonal(distance, np.inf)
    return np.sort(distance, axis=1)[:, : max(len(u) - f - 2, 1)].sum(axis=1)


def krum(u, w, f):
    return u[np.argmin(krum_scores(u, f))]


def multi_krum(u, w, f):
    return u[np.argsort(krum_scores(u, f))[: len(u) - f]].mean(axis=0)


def bulyan(u, w, f):
    left, chosen = list(range(len(u))), []
    while len(chosen) < len(u) - 2 * f:
        scores = krum_scores(u[left], f)
        tied = np.flatnonzero(np.isclose(scores, scores.min(), rtol=1e-12))  # mutual neighbours
        best = left[min(tied, key=lambda i: np.linalg.norm(u[left[i]]))]
        chosen.append(best)
        left.remove(best)
    s, keep = u[chosen], len(u) - 4 * f
    gap = np.abs(s - np.median(s, axis=0))
    bound = np.sort(gap, axis=0)[keep - 1]
    nearer, tied = gap < bound * (1 - 1e-9), np.isclose(gap, bound, rtol=1e-9)
    share = (keep - nearer.sum(0)) / tied.sum(0)  # those equally far share the last places
    return ((nearer + tied * share) * s).sum(axis=0) / keep


def geometric_median(u, w, f):
    """To convergence, from the plain definition: no smoothing is active away from data points."""
    v = np.average(u, axis=0, weights=w)
    for _ in range(5000):
        pull = w / np.maximum(np.linalg.norm(u - v, axis=1), 1e-12)
        v = (pull[:, None] * u).sum(0) / pull.sum()
    return v


def centred_clipping(u, w, f, centre=None, iterations=3):
    v = np.zeros(u.shape[1]) if centre is None else centre
    for _ in range(iterations):
        gap = np.linalg.norm(u - v, axis=1)
        v = v + ((u - v) * np.minimum(1, np.median(gap) / gap)[:, None]).mean(axis=0)
    return v


def norm_bounding(u, w, f):
    norms = np.linalg.norm(u, axis=1)
    return np.average(u * np.minimum(1, np.median(norms) / norms)[:, None], axis=0, weights=w)


def fltrust(u, w, f, root=None):
    norms = np.linalg.norm(u, axis=1)
    size = np.linalg.norm(root)
    trust = np.maximum(u @ root / (norms * size), 0)
    return (trust[:, None] * u * (size / norms)[:, None]).sum(axis=0) / trust.sum()


def dnc(u, w, f):
    """All coordinates, one iteration."""
    centred = u - u.mean(axis=0)
    top = np.linalg.svd(centred)[2][0]
    return u[np.argsort((centred @ top) ** 2)[: len(u) - f]].mean(axis=0)


def alie(honest, malicious):
    n = honest + malicious
    s = n // 2 + 1 - malicious
    return scipy.stats.norm.ppf((n - malicious - s) / (n - malicious))


def min_max(honest):
    """Shejwalkar and Houmansadr's own search for the step, to machine precision."""
    mean, deviation = honest.mean(axis=0), honest.std(axis=0)
    reach = max(np.linalg.norm(a - b) for a in honest for b in honest)
    low, high = 0.0, 1e6
    for _ in range(200):
        step = (low + high) / 2
        far = np.linalg.norm(mean - step * deviation - honest, axis=1).max()
        low, high = (step, high) if far <= reach else (low, step)
    return mean - low * deviation
