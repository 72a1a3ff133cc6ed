"""Paired differences of two contenders: over seeds, and over what was drawn of the test rows.

A figure is given as ``Figure``: from what a contender says of the rows to a function of weights
[R,B] of the B blocks of test rows that gives R values. A resample of blocks is such a row of
weights, so a bootstrap is a few matrix products.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from qoejax.data import table
from qoejax.qoe import scales
from qoejax.run import baselines, study
from qoejax.run.baselines import Said
from qoejax.run.studies.fits import Task

RESAMPLES = 1000

Weighted = Callable[[np.ndarray], np.ndarray]
"""Weights [R,B] of blocks to values [R]."""

Figure = Callable[[Said, Task], Weighted]


class Gap(NamedTuple):
    """Ours minus theirs: mean over seeds, its interval over seeds, and over blocks of rows."""

    mean: float
    low: float
    high: float
    block_low: float
    block_high: float

    @property
    def above(self) -> bool:
        """Whether both 95 % intervals lie above 0."""
        return self.low > 0 and self.block_low > 0

    @property
    def least(self) -> float:
        """The lower of the two lower ends."""
        return min(self.low, self.block_low)

    @property
    def most(self) -> float:
        """The higher of the two upper ends."""
        return max(self.high, self.block_high)


def gap(figure: Figure, task: Task, ours: Sequence[Said], theirs: Sequence[Said]) -> Gap:
    """Paired differences of a figure; both sides have the same seeds, at least two."""
    return gap_of([figure(s, task) for s in ours], [figure(s, task) for s in theirs], task.block)


def gap_of(
    ours: Sequence[Weighted], theirs: Sequence[Weighted], block: Int[np.ndarray, " N"]
) -> Gap:
    """``gap`` of figures that are functions of weights already."""
    weights = resamples(int(block.max()) + 1)
    each = np.stack([a(weights) - b(weights) for a, b in zip(ours, theirs, strict=True)])
    mean, low, high = study.over_seeds(each[:, 0])
    blocks = np.nanquantile(each[:, 1:].mean(0), (0.025, 0.975))
    return Gap(mean, low, high, float(blocks[0]), float(blocks[1]))


def resamples(blocks: int) -> Float[np.ndarray, "R B"]:
    """First every block once, then ``RESAMPLES`` draws of as many blocks with replacement."""
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(blocks, np.full(blocks, 1 / blocks), RESAMPLES)
    return np.concatenate([np.ones((1, blocks)), drawn]).astype(np.float64)


def value(figure: Figure, task: Task, said: Said) -> float:
    """The figure on all test rows."""
    return float(figure(said, task)(np.ones((1, int(task.block.max()) + 1)))[0])


def by_block(values: Float[np.ndarray, "N D"], block: Int[np.ndarray, " N"]) -> np.ndarray:
    """Sums [B,D] over the rows of each block."""
    out = np.zeros((int(block.max()) + 1, values.shape[1]))
    np.add.at(out, block, values)
    return out


def macro_f1(said: Said, task: Task) -> Weighted:
    """Macro-F1 over the classes that occur; a resample may lack one that is rare."""
    label, classes = task.data.test.label, len(task.data.spec.label_names)
    cell = label * classes + np.asarray(said.probability).argmax(1)
    block, count = task.block, classes**2

    def f1(weights: np.ndarray) -> np.ndarray:
        matrix = np.stack(
            [np.bincount(cell, weights=w[block], minlength=count) for w in weights]
        ).reshape(-1, classes, classes)
        truth, hits = matrix.sum(2), np.einsum("rcc->rc", matrix)
        total = truth + matrix.sum(1)
        score = np.divide(2 * hits, total, out=np.zeros_like(hits), where=total > 0)
        return (score * (truth > 0)).sum(1) / (truth > 0).sum(1)

    return f1


def precision_at_recall(said: Said, task: Task, recall: float = 0.95) -> Weighted:
    """Precision of an attack alarm at the highest threshold that finds ``recall`` of the attacks.

    At the attack share of the test rows.
    """
    return _at_recall(said, task, recall, lambda hits, false, benign: hits / (hits + false))


def false_positives(said: Said, task: Task, recall: float = 0.95) -> Weighted:
    """False positive rate of an attack alarm at that threshold."""
    return _at_recall(said, task, recall, lambda hits, false, benign: false / benign)


def _at_recall(said: Said, task: Task, recall: float, rate: Any) -> Weighted:
    spec = task.data.spec
    benign = spec.label_names.index(spec.benign)
    score = np.delete(np.asarray(said.probability, np.float64), benign, axis=1).sum(1)
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    attack, block = (task.data.test.label != benign)[order], task.block[order]

    def at(weights: np.ndarray) -> np.ndarray:
        out = np.full(len(weights), np.nan)
        for i, w in enumerate(weights):
            rows = w[block]
            hits = np.cumsum(rows * attack)[ends]
            false = np.cumsum(rows * ~attack)[ends]
            if hits[-1] and false[-1]:
                first = np.searchsorted(hits, recall * hits[-1] * (1 - 1e-12))
                out[i] = rate(hits[first], false[first], false[-1])
        return out

    return at


def rmse(services: Sequence[int]) -> Figure:
    """Mean over services of the root mean squared error, in the range of the head (1 to 5)."""

    def figure(said: Said, task: Task) -> Weighted:
        rows = task.data.test
        mask = rows.mos_mask[:, services]
        error = np.where(mask, np.asarray(said.mos)[:, services] - rows.mos[:, services], 0.0)
        squares, count = by_block(error**2, task.block), by_block(mask * 1.0, task.block)
        return lambda weights: np.sqrt((weights @ squares) / (weights @ count)).mean(1)

    return figure


def rmse_star(services: Sequence[int]) -> Figure:
    """``rmse`` of what exceeds the 95 % interval that a panel of 24 would give each score.

    See ``scales.panel_half_width``. Scores of machines have no panel: leave them out.
    """

    def figure(said: Said, task: Task) -> Weighted:
        rows = task.data.test
        true, mask = rows.mos[:, services].astype(np.float64), rows.mos_mask[:, services]
        half = scales.panel_half_width(true.ravel()).reshape(true.shape)
        excess = np.maximum(np.abs(np.asarray(said.mos)[:, services] - true) - half, 0.0)
        squares = by_block(np.where(mask, excess**2, 0.0), task.block)
        count = by_block(mask * 1.0, task.block)
        return lambda weights: np.sqrt((weights @ squares) / (weights @ count)).mean(1)

    return figure


def skill(services: Sequence[int]) -> Figure:
    """Mean over services of 1 - MSE / MSE of the true score now."""

    def figure(said: Said, task: Task) -> Weighted:
        rows, now = task.data.test, table.persistence(task.data.spec)
        known = np.stack([rows.mos[:, now[q]] for q in services], 1)
        mask, true = rows.mos_mask[:, services], rows.mos[:, services]
        ours, theirs = (
            by_block(np.where(mask, (said_ - true) ** 2, 0.0).astype(np.float64), task.block)
            for said_ in (np.asarray(said.mos)[:, services], known)
        )
        return lambda weights: (1 - (weights @ ours) / (weights @ theirs)).mean(1)

    return figure


def plcc(services: Sequence[int]) -> Figure:
    """Mean over services of Pearson's correlation."""

    def figure(said: Said, task: Task) -> Weighted:
        rows = task.data.test
        mask = rows.mos_mask[:, services].astype(np.float64)
        a = (np.asarray(said.mos, np.float64)[:, services] - 3) * mask
        b = (rows.mos[:, services].astype(np.float64) - 3) * mask
        n, x, y, xx, yy, xy = (by_block(v, task.block) for v in (mask, a, b, a * a, b * b, a * b))

        def correlate(weights: np.ndarray) -> np.ndarray:
            count = weights @ n
            mx, my = (weights @ x) / count, (weights @ y) / count
            cov = (weights @ xy) / count - mx * my
            spread = ((weights @ xx) / count - mx**2) * ((weights @ yy) / count - my**2)
            with np.errstate(invalid="ignore", divide="ignore"):
                return (cov / np.sqrt(np.maximum(spread, 0))).mean(1)

        return correlate

    return figure


def spread(figure: Figure, task: Task, seeds: Sequence[Said]) -> list[float]:
    """Mean of a figure over seeds, and half the width of its 95 % interval."""
    return list(baselines.interval([value(figure, task, s) for s in seeds]))


def text(found: Gap) -> str:
    """The gap with its intervals over seeds and over test rows."""
    return (
        f"{found.mean:+.3f} (seeds {found.low:+.3f} to {found.high:+.3f}, "
        f"rows {found.block_low:+.3f} to {found.block_high:+.3f})"
    )
