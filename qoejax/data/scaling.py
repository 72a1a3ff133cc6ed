"""Monotone maps of one numeric column to a range that a net can use. NumPy only.

Counts of bytes span nine decades and are mostly zero, so every map here is monotone, bounded far
outside the training range, and, for ranks, exact about ties: a value that many rows share gets the
middle of the ranks it covers. Maps are fitted on a sample of training values and are plain data.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Float32, Float64

LIMIT = 10.0
"""Standardised values are clipped to this many standard deviations."""

LEVELS = 64
"""Knots of a rank map at even ranks; as many again at even normal scores, where tails matter."""


class View(NamedTuple):
    """A fitted map: ``(v - shift) / scale``, or linear between knots where there are any.

    ``knots`` are training values in raw units, strictly increasing; interpolation between them is
    linear in the signed log. Beyond the first and the last knot a rank map is constant.
    """

    log: bool
    shift: float
    scale: float
    knots: Float32[np.ndarray, " k"]
    targets: Float32[np.ndarray, " k"]


_NONE = np.zeros(0, np.float32)


def signed_log(values: Float64[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
    """sign(v) log(1 + |v|): odd, strictly increasing, nearly v near 0."""
    return np.copysign(np.log1p(np.abs(values)), values)


def standard(values: Float64[np.ndarray, " n"]) -> View:
    """Mean 0 and variance 1 in raw units."""
    return View(False, float(values.mean()), _spread(values), _NONE, _NONE)


def log_standard(values: Float64[np.ndarray, " n"]) -> View:
    """Mean 0 and variance 1 of the signed log."""
    logs = signed_log(values)
    return View(True, float(logs.mean()), _spread(logs), _NONE, _NONE)


def normal_ranks(values: Float64[np.ndarray, " n"]) -> View:
    """Ranks as normal scores: the standard normal quantile of the mid-distribution."""
    knots, ranks = _knots(values)
    return View(True, 0.0, 1.0, knots, scipy.special.ndtri(ranks).astype(np.float32))


def uniform_ranks(values: Float64[np.ndarray, " n"]) -> View:
    """Ranks spread evenly over (-1, 1)."""
    knots, ranks = _knots(values)
    return View(True, 0.0, 1.0, knots, (2 * ranks - 1).astype(np.float32))


VIEWS: dict[str, Callable[[Float64[np.ndarray, " n"]], View]] = {
    "standard": standard,
    "signed_log": log_standard,
    "quantile": normal_ranks,
    "uniform": uniform_ranks,
}

SCALES: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in VIEWS},
    "both": ("signed_log", "quantile"),
}
"""Choices of ``scale``: the views that each numeric column gets."""


def look(
    view: View, values: Float64[np.ndarray, " n"], logs: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """The mapped values; ``logs`` is their signed log, which several views share."""
    if len(view.knots):
        return np.interp(logs, signed_log(view.knots.astype(np.float64)), view.targets)
    plain = logs if view.log else values
    return np.clip((plain - view.shift) / view.scale, -LIMIT, LIMIT)


def _spread(values: Float64[np.ndarray, " n"]) -> float:
    """Standard deviation, or 1 where there is none to speak of."""
    spread = float(values.std())
    return spread if spread > 1e-12 * (1 + abs(float(values.mean()))) else 1.0


def _knots(
    values: Float64[np.ndarray, " n"],
) -> tuple[Float32[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
    """Distinct values that carry the distribution, and their mid-ranks in (0, 1).

    Where a value is held by many rows its neighbours are knots too, or interpolation would smear
    its mass over the gap beside it.
    """
    distinct, counts = np.unique(values.astype(np.float32), return_counts=True)
    above = np.cumsum(counts)
    ranks = (above - counts / 2) / len(values)
    if len(distinct) > 4 * LEVELS:
        top = scipy.special.ndtri(1 - 0.5 / len(values))
        even = np.linspace(0, 1, LEVELS)
        wanted = np.concatenate([even, scipy.special.ndtr(np.linspace(-top, top, LEVELS))])
        at = np.searchsorted(above, wanted * len(values))
        heavy = np.flatnonzero(counts * LEVELS >= len(values))
        at = np.unique(np.concatenate([at, heavy - 1, heavy, heavy + 1]))
        at = at[(at >= 0) & (at < len(distinct))]
        distinct, ranks = distinct[at], ranks[at]
    return distinct, ranks
