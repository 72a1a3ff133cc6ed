"""How sure the figures of ``qoe.scales`` are, and when two differ. NumPy, float64, host.

All of it follows ITU-T P.1401 (01/2020) but where a docstring names another source.
Intervals are two-sided at 95 % unless told otherwise. They assume independent targets: bootstrap
over blocks or subjects where rows belong together, and pair the samples where two models forecast
the same rows.
"""

from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.stats
from jaxtyping import Float


class Interval(NamedTuple):
    """Ends of a confidence interval; NaN where the figure itself is."""

    low: float
    high: float


class Map(NamedTuple):
    """A monotone third-order map of forecasts to scores, on the range of its training forecasts.

    Attributes:
        coefficients: a, b, c, d of a + b x + c x^2 + d x^3.
        low: forecasts below count as this.
        high: forecasts above count as this.
    """

    coefficients: tuple[float, float, float, float]
    low: float
    high: float


def _quantile(level: float) -> float:
    if not 0.0 < level < 1.0:
        raise ValueError(f"confidence level: expected a value in (0, 1), got {level}")
    return float(scipy.stats.norm.ppf(0.5 + level / 2))


def _enough(figure: str, rows: int, least: int) -> None:
    if rows < least:
        raise ValueError(f"interval of {figure}: expected at least {least} targets, got {rows}")


def _z(correlation: float) -> float:
    """Fisher's z, finite also where a correlation is perfect."""
    return float(np.arctanh(np.clip(correlation, 1e-15 - 1.0, 1.0 - 1e-15)))


def _fisher(correlation: float, error: float, level: float) -> Interval:
    z, half = _z(correlation), _quantile(level) * error
    return Interval(float(np.tanh(z - half)), float(np.tanh(z + half)))


def plcc_interval(plcc: float, rows: int, level: float = 0.95) -> Interval:
    """Interval of a linear correlation by Fisher's z, whose error is 1 / sqrt(N - 3). Clause 7.5.3.

    Args:
        plcc: see ``scales.plcc``.
        rows: N, at least 4.
        level: in (0, 1).

    Raises:
        ValueError: if N or the level is outside its range.
    """
    _enough("PLCC", rows, 4)
    return _fisher(plcc, 1.0 / np.sqrt(rows - 3), level)


def srocc_interval(srocc: float, rows: int, level: float = 0.95) -> Interval:
    """Interval of a rank correlation by Fisher's z with the error of Bonett and Wright.

    sqrt((1 + r^2 / 2) / (N - 3)); "Sample size requirements for estimating Pearson, Kendall and
    Spearman correlations", Psychometrika 65(1), 2000. P.1401 itself gives none.

    Args:
        srocc: see ``scales.srocc``.
        rows: N, at least 4.
        level: in (0, 1).

    Raises:
        ValueError: if N or the level is outside its range.
    """
    _enough("SROCC", rows, 4)
    return _fisher(srocc, np.sqrt((1.0 + srocc**2 / 2.0) / (rows - 3)), level)


def rmse_interval(rmse: float, rows: int, dof: int = 1, level: float = 0.95) -> Interval:
    """Interval of an RMSE or RMSE* of normal errors, by chi-squared of N - dof. Clause 7.5.1.

    Args:
        rmse: see ``scales.rmse`` and ``scales.rmse_star``.
        rows: N, above ``dof``.
        dof: as in ``scales.rmse``.
        level: in (0, 1).

    Raises:
        ValueError: if N or the level is outside its range.
    """
    _enough("RMSE", rows, dof + 1)
    _quantile(level)
    free = rows - dof
    small, large = scipy.stats.chi2.ppf([0.5 - level / 2, 0.5 + level / 2], free)
    return Interval(float(rmse * np.sqrt(free / large)), float(rmse * np.sqrt(free / small)))


def outlier_interval(ratio: float, rows: int, level: float = 0.95) -> Interval:
    """Interval of an outlier ratio: the binomial's, by the normal law. Clause 7.5.2.2.

    Args:
        ratio: see ``scales.outlier_ratio``.
        rows: N, at least 1; the approximation wants N times the ratio above 5 or so.
        level: in (0, 1).

    Raises:
        ValueError: if N or the level is outside its range.
    """
    _enough("outlier ratio", rows, 1)
    half = _quantile(level) * np.sqrt(ratio * (1.0 - ratio) / rows)
    return Interval(float(max(ratio - half, 0.0)), float(min(ratio + half, 1.0)))


def plcc_difference(plcc: float, rows: int, other: float, other_rows: int) -> float:
    """p-value (two-sided) that correlations on *independent* rows are equal. Clause 7.6.1.

    (z1 - z2) / sqrt(1 / (N1 - 3) + 1 / (N2 - 3)) is standard normal.

    Raises:
        ValueError: if either N is below 4.
    """
    _enough("PLCC", min(rows, other_rows), 4)
    error = np.sqrt(1.0 / (rows - 3) + 1.0 / (other_rows - 3))
    return float(2.0 * scipy.stats.norm.sf(abs(_z(plcc) - _z(other)) / error))


def rmse_difference(rmse: float, rows: int, other: float, other_rows: int, dof: int = 1) -> float:
    """p-value (two-sided) that two RMSE on *independent* rows are equal: F test. 7.6.4.

    Raises:
        ValueError: if either N is not above ``dof``, or both figures are 0.
    """
    _enough("RMSE", min(rows, other_rows), dof + 1)
    if rmse == other == 0:
        raise ValueError("F test of two RMSE: expected at least one above 0, got 0 and 0")
    free, other_free = rows - dof, other_rows - dof
    ratio = (rmse / other) ** 2 if other > 0 else np.inf
    law = scipy.stats.f(free, other_free)
    return float(2.0 * min(law.sf(ratio), law.cdf(ratio)))


def outlier_difference(ratio: float, rows: int, other: float, other_rows: int) -> float:
    """p-value (two-sided) that outlier ratios on *independent* rows are equal. 7.6.2.

    Difference over the error of the pooled ratio; 1 where neither has an outlier, or both nothing
    else.

    Raises:
        ValueError: if either N is below 1.
    """
    _enough("outlier ratio", min(rows, other_rows), 1)
    pooled = (ratio * rows + other * other_rows) / (rows + other_rows)
    error = np.sqrt(pooled * (1.0 - pooled) * (1.0 / rows + 1.0 / other_rows))
    return float(2.0 * scipy.stats.norm.sf(abs(ratio - other) / error)) if error > 0 else 1.0


def fit_map(target: Float[np.ndarray, " N"], predicted: Float[np.ndarray, " N"]) -> Map:
    """Third-order least-squares map of forecasts that never falls. Clause 7.3.2, appendix I.

    Fit it on training rows; figures of mapped forecasts use ``dof=4``. Where plain least squares
    falls somewhere on the range, the slope is written so that it cannot: on t in [0, 1] a quadratic
    is non-negative exactly if it is (p (1 - t) - q t)^2 + r^2 t (1 - t) (Markov-Lukacs).

    Args:
        target: opinion scores.
        predicted: forecasts of them.

    Raises:
        ValueError: if fewer than 4 different forecasts are given, or anything is not finite.
    """
    x, y = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("monotone map: expected finite targets and forecasts")
    if np.unique(x).size < 4:
        raise ValueError(
            f"monotone map: expected at least 4 different forecasts, got {np.unique(x).size}"
        )
    low, high = float(x.min()), float(x.max())
    t = (x - low) / (high - low)
    powers = np.stack([np.ones_like(t), t, t**2, t**3], axis=1)
    free, *_ = np.linalg.lstsq(powers, y, rcond=None)
    if _least_slope(free) < 0:
        free = _monotone(powers, y)
    cubic = np.polynomial.Polynomial(free, domain=[low, high], window=[0, 1]).convert()
    a, b, c, d = (float(v) for v in np.pad(cubic.coef, (0, 4 - cubic.coef.size)))
    return Map((a, b, c, d), low, high)


def _least_slope(free: np.ndarray) -> float:
    """Least slope on [0, 1] of the cubic with these coefficients."""
    slope = np.polynomial.Polynomial(free).deriv()
    at = [0.0, 1.0]
    if slope.coef.size > 2 and slope.coef[2] > 0:
        at.append(float(np.clip(-slope.coef[1] / (2 * slope.coef[2]), 0.0, 1.0)))
    return float(min(slope(v) for v in at))


def _monotone(powers: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Coefficients of the best cubic whose slope is non-negative on [0, 1]."""

    def cubic(v: np.ndarray) -> np.ndarray:
        offset, p, q, r = v
        # Slope p^2 (1-t)^2 - 2 p q t (1-t) + q^2 t^2 + r^2 t (1-t), collected in powers of t.
        middle = r**2 - 2 * p * q
        one, two, three = p**2, (middle - 2 * p**2) / 2, (p**2 + q**2 - middle) / 3
        return np.array([offset, one, two, three])

    rise = np.sqrt(max(np.polynomial.polynomial.polyfit(powers[:, 1], y, 1)[1], 1e-3))
    starts = (
        [y.mean(), rise, rise, 2 * rise],
        [y.mean(), rise, -rise, 0.1],
        [y.mean(), 0.1, rise, 0.1],
    )
    fits = [scipy.optimize.least_squares(lambda v: powers @ cubic(v) - y, s, xtol=1e-12, ftol=1e-12)
            for s in starts]  # fmt: skip
    return cubic(min(fits, key=lambda f: f.cost).x)


def apply_map(fitted: Map, predicted: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Mapped forecasts; those outside the map's range count as its nearest end."""
    x = np.clip(np.asarray(predicted, np.float64), fitted.low, fitted.high)
    return np.polynomial.polynomial.polyval(x, fitted.coefficients)
