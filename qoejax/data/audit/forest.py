"""A reference for sentinels: extremely randomised trees on all columns at once. NumPy only.

Where no trained model is at hand, "close to a model" means close to this. Geurts, Ernst and
Wehenkel, "Extremely randomized trees", Machine Learning 63, 2006; here each candidate threshold is
the value of a random row of the node, and all nodes of a depth are split at once.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float64, Int, Int64, Shaped

from qoejax.data.audit import sentinels
from qoejax.data.audit.frame import Column, Frame, Side, score, try_all

TREES = 24
DEPTH = 16
BINS = 256

Gain = Callable[[np.ndarray, int], np.ndarray]
"""Goodness [nodes] of a split, from 2 * node + side of each row and the number of nodes."""


def reference(
    frame: Frame, columns: Sequence[Column], *, seed: int = 0, shuffle: bool = False
) -> float:
    """Score of the forest on the tried rows; with ``shuffle``, training targets are permuted."""
    orders = [sentinels.ordered(c) for c in columns]
    rng = np.random.default_rng(seed)

    def predict(side: Side, known: np.ndarray) -> np.ndarray:
        train, test = (
            np.stack([sentinels.cut(o[side[0]], o[rows], BINS) for o in orders], 1) for rows in side
        )
        learnt = rng.permutation(known) if shuffle else known
        trees = TREES // 3 if shuffle else TREES
        said = forest(train, learnt, test, len(frame.target.names), rng, trees=trees)
        return said.argmax(1) if frame.target.names else said[:, 0]

    return score(frame.target, *try_all(frame, predict))


def forest(
    train: Int[np.ndarray, "n D"],
    known: Shaped[np.ndarray, " n"],
    test: Int[np.ndarray, "m D"],
    classes: int,
    rng: np.random.Generator,
    *,
    trees: int = TREES,
    depth: int = DEPTH,
) -> Float64[np.ndarray, "m C"]:
    """Mean class shares of the leaves that test rows fall into; mean scores [m, 1] if no classes.

    Test rows ride along as the trees grow, so no tree is kept. Cells are below 2**15.
    """
    n, both = len(train), np.concatenate([train, test]).astype(np.int16)
    total = np.zeros((len(test), max(classes, 1)))
    for _ in range(trees):
        node = _grow(both, n, _gain(known, classes), depth, rng)
        count = np.bincount(node[:n])
        if classes:
            leaf = np.bincount(node[:n] * classes + known, minlength=len(count) * classes)
            leaf = leaf.reshape(-1, classes)
        else:
            leaf = np.bincount(node[:n], weights=known)[:, None]
        total += (leaf / count[:, None])[node[n:]]
    return total / trees


def _grow(
    x: Int[np.ndarray, "N D"], n: int, gain: Gain, depth: int, rng: np.random.Generator
) -> Int64[np.ndarray, " N"]:
    """Leaf of each row; the first ``n`` rows decide the splits, the others follow."""
    width = x.shape[1]
    flat, at, tries = x.ravel(), np.arange(len(x)) * width, max(4, -(-width // 3))
    node = np.zeros(len(x), np.int64)
    for _ in range(depth):
        nodes = int(node.max()) + 1
        order = np.argsort(node[:n], kind="stable")
        size = np.bincount(node[:n], minlength=nodes)
        start = np.cumsum(size) - size
        best = gain(2 * node[:n], nodes) + 1e-9  # Rounding is no gain.
        right, split = np.zeros(len(x), bool), np.zeros(nodes, bool)
        for _ in range(tries):
            feature = rng.integers(0, width, nodes)
            pivot = order[start + (rng.random(nodes) * size).astype(np.int64)]
            go = flat[at + feature[node]] > flat[at[pivot] + feature][node]
            found = gain(2 * node[:n] + go[:n], nodes)
            better = found > best
            best, split = np.where(better, found, best), split | better
            right = np.where(better[node], go, right)
        if not split.any():
            break
        node = _renumber(2 * node + right, n)
    return node


def _renumber(node: Int64[np.ndarray, " N"], n: int) -> Int64[np.ndarray, " N"]:
    """The same nodes without gaps; a split node has training rows on both sides."""
    present = np.zeros(int(node.max()) + 1, bool)
    present[node[:n]] = True
    return (np.cumsum(present) - 1)[node]


def _gain(known: Shaped[np.ndarray, " n"], classes: int) -> Gain:
    """Sum over both sides of (sum of targets)^2 / rows: Gini or variance, up to a constant."""

    def of_classes(side: np.ndarray, nodes: int) -> np.ndarray:
        joint = np.bincount(side * classes + known, minlength=2 * nodes * classes)
        joint = joint.reshape(nodes, 2, classes).astype(np.float64)
        return ((joint**2).sum(2) / np.maximum(joint.sum(2), 1)).sum(1)

    def of_scores(side: np.ndarray, nodes: int) -> np.ndarray:
        total = np.bincount(side, weights=known, minlength=2 * nodes)
        count = np.bincount(side, minlength=2 * nodes)
        return (total**2 / np.maximum(count, 1)).reshape(nodes, 2).sum(1)

    return of_classes if classes else of_scores
