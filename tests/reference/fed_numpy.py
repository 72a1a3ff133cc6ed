"""Federated averaging of a linear model in plain float64 NumPy, written from the papers.

FedAvg: McMahan et al. 2017, algorithm 1. FedProx: Li et al. 2020, equation 2. Adam: Kingma & Ba
2015, algorithm 1. Momentum: Polyak's heavy ball as ``v = decay v + g; w = w - lr v``.
"""

from collections.abc import Callable, Sequence

import numpy as np

Batch = tuple[np.ndarray, np.ndarray]  # rows [B, F] and targets [B], real rows only


def gradient(w: np.ndarray, batch: Batch) -> np.ndarray:
    """Of half the mean squared error of ``x @ w``."""
    x, y = (np.asarray(a, np.float64) for a in batch)
    return x.T @ (x @ w - y) / len(y)


def sgd() -> Callable[[np.ndarray], np.ndarray]:
    return lambda g: -g


def momentum(decay: float = 0.9) -> Callable[[np.ndarray], np.ndarray]:
    v = 0.0

    def step(g):
        nonlocal v
        v = decay * v + g
        return -v

    return step


def adam(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8):
    m = v = 0.0
    t = 0

    def step(g):
        nonlocal m, v, t
        t += 1
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        return -(m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)

    return step


OPTIMIZERS = {"sgd": sgd, "momentum": momentum, "adam": adam}


def client(
    w: np.ndarray, batches: Sequence[Batch], optimizer: str, lr: float, mu: float = 0.0
) -> np.ndarray:
    """New minus old weights after one step on each batch."""
    start, w, step = w, w.copy(), OPTIMIZERS[optimizer]()
    for batch in batches:
        w = w + lr * step(gradient(w, batch) + mu * (w - start))
    return w - start


def fedavg_round(
    w: np.ndarray,
    batches: Sequence[Sequence[Batch]],
    weights: Sequence[float],
    optimizer: str,
    lr: float,
    mu: float = 0.0,
) -> np.ndarray:
    """The next global weights: the old ones plus the clients' weighted mean delta."""
    total = np.zeros_like(w)
    for own, weight in zip(batches, weights, strict=True):
        total += weight * client(w, own, optimizer, lr, mu)
    return w + total / sum(weights)


# Algorithms beyond averaging, each from its paper's pseudocode; plain SGD throughout.


def descend(
    w: np.ndarray,
    batches: Sequence[Batch],
    lr: float,
    more: Callable[[np.ndarray], np.ndarray] = np.zeros_like,
) -> np.ndarray:
    """Weights after one step on each batch along the gradient plus ``more(w)``."""
    for batch in batches:
        w = w - lr * (gradient(w, batch) + more(w))
    return w


def scaffold_round(w, c, own, batches, weights, lr, at_x=None):
    """Karimireddy et al. 2020, algorithm 1. ``own`` are the c_i; ``at_x`` batches for option I."""
    p = np.asarray(weights, float) / np.sum(weights)
    y = [descend(w, b, lr, lambda _, ci=ci: c - ci) for b, ci in zip(batches, own, strict=True)]
    if at_x is None:
        new = [ci - c + (w - yi) / (len(b) * lr) for yi, ci, b in zip(y, own, batches, strict=True)]
    else:
        new = [np.mean([gradient(w, b) for b in mine], axis=0) for mine in at_x]
    moved = w + sum(pi * (yi - w) for pi, yi in zip(p, y, strict=True))
    return moved, c + sum(pi * (n - o) for pi, n, o in zip(p, new, own, strict=True)), new


def fednova_round(w, batches, weights, lr):
    """Wang et al. 2020, equation 6 with a_i of ones: tau_eff times the mean delta per step."""
    p = np.asarray(weights, float) / np.sum(weights)
    per_step = [(descend(w, b, lr) - w) / len(b) for b in batches]
    tau = sum(pi * len(b) for pi, b in zip(p, batches, strict=True))
    return w + tau * sum(pi * d for pi, d in zip(p, per_step, strict=True))


def feddyn_round(w, h, slopes, batches, weights, lr, alpha):
    """Acar et al. 2021, algorithm 1, with all clients active and weighted means."""
    p = np.asarray(weights, float) / np.sum(weights)
    ends = [
        descend(w, b, lr, lambda v, g=g: alpha * (v - w) - g)
        for b, g in zip(batches, slopes, strict=True)
    ]
    slopes = [g - alpha * (e - w) for g, e in zip(slopes, ends, strict=True)]
    h = h - alpha * sum(pi * (e - w) for pi, e in zip(p, ends, strict=True))
    return sum(pi * e for pi, e in zip(p, ends, strict=True)) - h / alpha, h, slopes


def shared_moments_round(w, m, v, t, batches, weights, lr, b1=0.9, b2=0.999, eps=1e-8):
    """Chen, Li, Li 2020 with Adam's corrections of bias: all that Adam keeps is averaged."""
    p = np.asarray(weights, float) / np.sum(weights)
    ends = []
    for own in batches:
        wi, mi, vi, ti = w, m, v, round(t)
        for batch in own:
            g, ti = gradient(wi, batch), ti + 1
            mi, vi = b1 * mi + (1 - b1) * g, b2 * vi + (1 - b2) * g * g
            wi = wi - lr * (mi / (1 - b1**ti)) / (np.sqrt(vi / (1 - b2**ti)) + eps)
        ends.append((wi, mi, vi, t + len(own)))
    return tuple(
        sum(pi * e for pi, e in zip(p, each, strict=True)) for each in zip(*ends, strict=True)
    )


def ditto_round(w, own, batches, personal_batches, weights, lr, mu):
    """Li et al. 2021, algorithm 1: FedAvg, and personal weights held near the weights sent."""
    own = [
        descend(v, b, lr, lambda x: mu * (x - w))
        for v, b in zip(own, personal_batches, strict=True)
    ]
    return fedavg_round(w, batches, weights, "sgd", lr), own
