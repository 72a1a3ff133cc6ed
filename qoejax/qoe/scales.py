"""MOS scales: ordinal bins on [1, 5] (JAX), and how forecasts are judged (NumPy, float64, host).

A MOS head predicts logits over M ordinal bins whose centres are evenly spaced from 1 to 5. Its mean
is the forecast, its spread the uncertainty of that forecast, its quantiles an interval. The second
half holds the figures of ITU-T P.1401 that compare forecasts with targets, on all rows at once.
"""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
import scipy.stats
from jaxtyping import Array, Float

LOW = 1.0
"""Worst opinion of the absolute category rating scale (ITU-T P.800, annex B)."""
HIGH = 5.0
"""Best opinion of the same scale."""


def centres(bins: int) -> Float[Array, " M"]:
    """Centres of ``bins`` ordinal bins, evenly spaced over [1, 5], ends included.

    Raises:
        ValueError: if ``bins`` is below 2, where no spacing exists.
    """
    if bins < 2:
        raise ValueError(f"MOS bins: expected at least 2, got {bins}")
    return jnp.linspace(LOW, HIGH, bins, dtype=jnp.float32)


def two_hot(mos: Float[Array, "..."], bins: int) -> Float[Array, "... M"]:
    """Target probabilities whose mean is ``mos`` and that touch at most two neighbouring bins.

    Args:
        mos: opinion scores; values outside [1, 5] count as the nearest end.
        bins: M, at least 2.

    Returns:
        Non-negative weights that sum to one over the last axis.
    """
    grid = centres(bins)
    step = (HIGH - LOW) / (bins - 1)
    clipped = jnp.clip(mos, LOW, HIGH)[..., None]
    distance = jnp.abs(clipped - jnp.broadcast_to(grid, (*clipped.shape[:-1], bins))) / step
    return jnp.maximum(1.0 - distance, 0.0)


def mean(logits: Float[Array, "... M"]) -> Float[Array, "..."]:
    """Expected MOS in [1, 5] of bin logits; the softmax over the last axis is taken inside."""
    probabilities = jax.nn.softmax(logits, axis=-1)
    return probabilities @ centres(logits.shape[-1]).astype(logits.dtype)


def spread(logits: Float[Array, "... M"]) -> Float[Array, "..."]:
    """Standard deviation, in MOS, of the opinion that bin logits describe; softmax inside."""
    probabilities = jax.nn.softmax(logits, axis=-1)
    grid = centres(logits.shape[-1]).astype(logits.dtype)
    gap = jnp.broadcast_to(grid, logits.shape) - mean(logits)[..., None]
    variance = jnp.sum(probabilities * jnp.square(gap), axis=-1)
    # The floor keeps the gradient finite where all mass sits in one bin.
    return jnp.sqrt(jnp.maximum(variance, 1e-12))


def quantile(logits: Float[Array, "... M"], level: float) -> Float[Array, "..."]:
    """MOS below which a share ``level`` of the described opinion lies; softmax inside.

    A bin's probability is spread evenly over its cell: up to half a step to either side of its
    centre, within [1, 5].

    Args:
        logits: bin logits.
        level: in [0, 1], for example 0.1 and 0.9 for the ends of an 80 % interval.

    Raises:
        ValueError: if ``level`` is outside [0, 1].
    """
    if not 0.0 <= level <= 1.0:
        raise ValueError(f"quantile level: expected a value in [0, 1], got {level}")
    bins = logits.shape[-1]
    grid = centres(bins)
    edges = jnp.concatenate([grid[:1], (grid[1:] + grid[:-1]) / 2.0, grid[-1:]])
    probabilities = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
    above = jnp.cumsum(probabilities, axis=-1)
    cell = jnp.minimum(jnp.sum(above < level, axis=-1), bins - 1)
    mass = jnp.take_along_axis(probabilities, cell[..., None], axis=-1)[..., 0]
    upto = jnp.take_along_axis(above, cell[..., None], axis=-1)[..., 0]
    share = jnp.clip(1.0 - (upto - level) / jnp.maximum(mass, 1e-12), 0.0, 1.0)
    return (edges[cell] + share * (edges[cell + 1] - edges[cell])).astype(logits.dtype)


def _error(target: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    if target.size == 0:
        raise ValueError("MOS figures: expected at least one target, got none")
    return np.asarray(target, np.float64) - np.asarray(predicted, np.float64)


def plcc(target: Float[np.ndarray, " N"], predicted: Float[np.ndarray, " N"]) -> float:
    """Pearson linear correlation (ITU-T P.1401); NaN where either side is constant."""
    _error(target, predicted)
    if np.ptp(target) == 0 or np.ptp(predicted) == 0:
        return float("nan")
    a, b = (np.asarray(v, np.float64) - np.mean(v, dtype=np.float64) for v in (target, predicted))
    return float(np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b)))


def srocc(target: Float[np.ndarray, " N"], predicted: Float[np.ndarray, " N"]) -> float:
    """Spearman rank correlation, ties at their mean rank; NaN where either side is constant."""
    return plcc(scipy.stats.rankdata(target), scipy.stats.rankdata(predicted))


def rmse(
    target: Float[np.ndarray, " N"], predicted: Float[np.ndarray, " N"], dof: int = 1
) -> float:
    """Root mean square error, sum of squares over N - dof (ITU-T P.1401).

    Args:
        target: opinion scores.
        predicted: forecasts.
        dof: 1, or 4 where forecasts went through a fitted third-order map.

    Raises:
        ValueError: if N is not above ``dof``.
    """
    error = _error(target, predicted)
    if error.size <= dof:
        raise ValueError(f"RMSE with dof={dof}: expected more than {dof} targets, got {error.size}")
    return float(np.sqrt(np.sum(error**2) / (error.size - dof)))


def rmse_star(
    target: Float[np.ndarray, " N"],
    predicted: Float[np.ndarray, " N"],
    half_width: Float[np.ndarray, " N"],
    dof: int = 1,
) -> float:
    """RMSE* (ITU-T P.1401): only what exceeds the 95 % interval of the target counts as error.

    Args:
        target: opinion scores.
        predicted: forecasts.
        half_width: half width of each target's 95 % confidence interval, see ``panel_half_width``.
        dof: as in ``rmse``.
    """
    excess = np.maximum(np.abs(_error(target, predicted)) - half_width, 0.0)
    return rmse(excess, np.zeros_like(excess), dof)


def outlier_ratio(
    target: Float[np.ndarray, " N"],
    predicted: Float[np.ndarray, " N"],
    half_width: Float[np.ndarray, " N"],
) -> float:
    """Share of forecasts outside the 95 % confidence interval of their target (ITU-T P.1401)."""
    return float(np.mean(np.abs(_error(target, predicted)) > half_width))


def mae(target: Float[np.ndarray, " N"], predicted: Float[np.ndarray, " N"]) -> float:
    """Mean absolute error."""
    return float(np.mean(np.abs(_error(target, predicted))))


def skill(
    target: Float[np.ndarray, " N"],
    predicted: Float[np.ndarray, " N"],
    reference: Float[np.ndarray, " N"],
) -> float:
    """1 - MSE / MSE of a reference forecast: 1 is perfect, 0 no better, negative worse.

    NaN where the reference makes no error, since nothing can be gained on it.
    """
    baseline = np.mean(_error(target, reference) ** 2)
    gained = np.mean(_error(target, predicted) ** 2)
    return float(1.0 - gained / baseline) if baseline > 0 else float("nan")


def panel_half_width(
    mos: Float[np.ndarray, " N"], raters: int = 24, diversity: float = 0.20
) -> Float[np.ndarray, " N"]:
    """Half width of the 95 % interval that a panel's MOS would have, for targets without ratings.

    The SOS hypothesis (Hoßfeld, Schatz, Egger, QoMEX 2011) gives a panel's variance as
    ``diversity * (-m^2 + 6 m - 5)``; Student's t turns it into an interval (ITU-T P.1401).

    Args:
        mos: true scores in [1, 5].
        raters: size of the panel, at least 2.
        diversity: how much people disagree, in [0, 1]; 0.20 was measured on game scores.
    """
    m = np.clip(np.asarray(mos, np.float64), LOW, HIGH)
    variance = diversity * np.maximum(-(m**2) + 6.0 * m - 5.0, 0.0)
    return float(scipy.special.stdtrit(raters - 1, 0.975)) * np.sqrt(variance / raters)
