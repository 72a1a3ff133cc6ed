"""Fits a MOS model's constants to scores. NumPy and SciPy, float64, host."""

from typing import NamedTuple

import numpy as np
import scipy.optimize
from jaxtyping import Float

from qoejax.qoe.mos import Iqx


class IqxFit(NamedTuple):
    """Constants of ``mos.iqx`` and how well they fit.

    Attributes:
        constants: alpha, beta (both positive) and gamma.
        rmse: root mean square error on the rows of the fit, in the unit of the scores.
    """

    constants: Iqx
    rmse: float


def _checked(qos: np.ndarray, score: np.ndarray) -> None:
    if qos.shape != score.shape:
        raise ValueError(
            f"IQX fit: expected as many scores as disturbances ({len(qos)}), got {len(score)}"
        )
    for name, values in (("disturbances", qos), ("scores", score)):
        if not np.isfinite(values).all():
            bad = values[~np.isfinite(values)][0]
            raise ValueError(f"IQX fit: expected finite {name}, got {bad}")
    if qos.size and qos.min() < 0:
        raise ValueError(f"IQX fit: expected disturbances of at least 0, got {qos.min():g}")


def fit_iqx(qos: Float[np.ndarray, " N"], score: Float[np.ndarray, " M"]) -> IqxFit:
    """Least-squares fit of score = alpha exp(-beta qos) + gamma (Fiedler et al. 2010).

    For a given beta the rest is linear, so only beta is searched: on a logarithmic grid that spans
    every rate the data can tell apart, then by Brent's method around the best of it. No start has
    to be guessed.

    Args:
        qos: a disturbance, 0 for none: loss ratio, delay, waiting time.
        score: MOS or single ratings, on any scale. ``mos.iqx`` clips to [1, 5] when it evaluates.

    Raises:
        ValueError: if the arrays differ in length, hold anything not finite, negative disturbances
            or fewer than 3 different ones, or if scores do not fall as the disturbance grows.
    """
    qos, score = np.asarray(qos, np.float64), np.asarray(score, np.float64)
    _checked(qos, score)
    levels = np.unique(qos)
    if levels.size < 3:
        raise ValueError(f"IQX fit: expected at least 3 different disturbances, got {levels.size}")

    def linear(log_beta: float) -> tuple[float, float, float]:
        # Relative to the least disturbance: no underflow where all of them are large.
        fall = np.exp(-np.exp(log_beta) * (qos - levels[0]))
        design = np.stack([fall, np.ones_like(fall)], axis=1)
        (height, floor), *_ = np.linalg.lstsq(design, score, rcond=None)
        return float(np.sum((score - design @ (height, floor)) ** 2)), float(height), float(floor)

    slowest = np.log(0.01 / np.ptp(levels))
    # A faster fall than this is over before the second level, or has an alpha beyond float64.
    fastest = np.log(min(20.0 / np.diff(levels).min(), 300.0 / max(levels[0], 1e-300)))
    grid = np.linspace(slowest, max(fastest, slowest + 1e-6), 200)
    best = int(np.argmin([linear(x)[0] for x in grid]))
    around = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    found = scipy.optimize.minimize_scalar(
        lambda x: linear(x)[0], bounds=around, method="bounded", options={"xatol": 1e-10}
    )
    error, height, floor = linear(found.x)
    beta = float(np.exp(found.x))
    fall = height * -np.expm1(-beta * np.ptp(levels))
    if fall <= 1e-9 * np.abs(score).max():
        raise ValueError("IQX fit: expected scores that fall as the disturbance grows")
    constants = Iqx(height * float(np.exp(beta * levels[0])), beta, floor)
    return IqxFit(constants, float(np.sqrt(error / len(score))))
