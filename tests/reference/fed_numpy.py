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
