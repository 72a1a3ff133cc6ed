"""Temperature scaling: one number that makes probabilities as sure as they are right. NumPy, host.

Logits are divided by a temperature T > 0, which changes no ranking and so no decision (Guo, Pleiss,
Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, section 4.2). T minimises
the negative log-likelihood of held-out rows,

    NLL(T) = sum_i logsumexp(z_i / T) - z_i[y_i] / T,

which is convex in 1 / T. Clients that keep their rows send three sums for each T that is asked, and
the fit to the added sums is the fit to the rows of all.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.special
from jaxtyping import Float, Int

BOUNDS = (0.05, 20.0)
"""Temperatures that are considered; without bounds, rows that are all right ask for 0."""


class Sums(NamedTuple):
    """What one holder of rows says of a temperature; those of several add up, field by field.

    Attributes:
      loss: Negative log-likelihood, in nats.
      gradient: Its derivative with respect to log T.
      rows: Labelled rows.
    """

    loss: float
    gradient: float
    rows: int


def nll(
    logits: Float[np.ndarray, "N C"], label: Int[np.ndarray, " N"], temperature: float = 1.0
) -> Sums:
    """Sums of the rows with a label (0 or above) at a temperature."""
    known = label >= 0
    z, label = np.asarray(logits[known], np.float64), label[known]
    own = z[np.arange(len(label)), label]
    scaled = z / temperature
    loss = scipy.special.logsumexp(scaled, axis=1) - own / temperature
    expected = np.sum(scipy.special.softmax(scaled, axis=1) * z, axis=1)
    return Sums(float(loss.sum()), float((own - expected).sum()) / temperature, len(label))


def add(parts: Iterable[Sums]) -> Sums:
    """Sums of the rows of all."""
    loss, gradient, rows = zip(*parts, strict=True)
    return Sums(sum(loss), sum(gradient), sum(rows))


def fit(ask: Callable[[float], Sums]) -> float:
    """The temperature of the lowest NLL within ``BOUNDS``, by L-BFGS-B on log T.

    Args:
      ask: Sums at a temperature: ``nll`` of rows that are here, or ``add`` of clients' answers.

    Raises:
      ValueError: no labelled row.
    """
    rows = ask(1.0).rows
    if not rows:
        raise ValueError("temperature: expected at least one labelled row, got none")

    def objective(log: np.ndarray) -> tuple[float, np.ndarray]:
        sums = ask(float(np.exp(log[0])))
        return sums.loss / rows, np.array([sums.gradient / rows])

    bounds = [tuple(np.log(BOUNDS))]
    options = {"ftol": 1e-14, "gtol": 1e-9}
    found = scipy.optimize.minimize(
        objective, np.zeros(1), jac=True, method="L-BFGS-B", bounds=bounds, options=options
    )
    return float(np.exp(found.x[0]))
