"""What clients' kept-back rows say of a trained model: temperature, thresholds, margins.

Only sums leave a client: three numbers for each temperature that is asked, and histograms of
scores. NumPy and JAX; needs no network, so that an exported model is read by the same code.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Bool, Float

from qoejax.data.aside import Aside
from qoejax.objectives import calibration, conformal
from qoejax.qoe import scales
from qoejax.run.choices import choose
from qoejax.run.errors import RunError
from qoejax.types import Examples

WIDEST = scales.HIGH - scales.LOW
"""Margin that makes an interval the whole scale."""

CLASS_EDGES = conformal.class_edges()
MOS_EDGES = np.linspace(-WIDEST, WIDEST, 8001)


class Calibration(NamedTuple):
    """What is added to a model.

    Attributes:
      alpha: Share of rows whose set, or whose interval of a service, may miss the truth.
      method: Of ``conformal.METHODS``.
      temperature: Divides the logits; 1 where there is one class only.
      thresholds: [C], largest score of a class that is in a set; none where there is one class.
      margins: [Q], added to both ends of an interval, in the head's range; None for a service
        that no kept-back row was rated on.
      rows: Kept back for the temperature, and for thresholds and margins.
      together: Rows of a run that was kept back as a whole.
      clients: Natural groups of each client, where clients are such groups.
    """

    alpha: float
    method: str
    temperature: float
    thresholds: tuple[float, ...]
    margins: tuple[float | None, ...]
    rows: tuple[int, int]
    together: int
    clients: tuple[tuple[int, ...], ...] = ()


def check(config: Any) -> None:
    """Refuses what cannot be calibrated.

    Raises:
      RunError: names the key, its value and what was expected.
    """
    c = config.calibration
    choose(conformal.METHODS, c.method, "calibration.method")
    for key, good, expected in (
        ("share", 0 <= c.share < 1, "at least 0, less than 1"),
        ("alpha", 0 < c.alpha < 1, "more than 0, less than 1"),
        ("together", c.together >= 1, "1 or more"),
    ):
        if not good:
            raise RunError(f"config.calibration.{key} is {c[key]}: expected {expected}")
    if c.share and config.privacy.mechanism != "none":
        raise RunError(
            f"config.calibration.share is {c.share}, but its sums carry no noise and "
            f"config.privacy.mechanism is {config.privacy.mechanism!r}: expected 0 or 'none'"
        )


def fit(
    said: dict[str, Any],
    rows: Examples,
    clients: Sequence[Aside],
    *,
    alpha: float,
    method: str,
    per_class: bool,
    together: int = 1,
) -> Calibration:
    """Fits to what was kept back.

    Args:
      said: The model's outputs on ``rows``: "logits" [N,C] and "mos" [N,Q,M].
      rows: Kept-back rows of all clients.
      clients: Which of ``rows`` are whose.
      alpha: See ``Calibration``.
      method: See ``Calibration``.
      per_class: A threshold for each class, from its own rows.
      together: See ``Calibration``.

    Raises:
      ValueError: no labelled row for the temperature.
    """
    logits, label = np.asarray(said["logits"], np.float64), np.asarray(rows.label)
    temperature, thresholds = 1.0, ()
    if logits.shape[1] > 1:

        def ask(at: float) -> calibration.Sums:
            own = (client.temperature for client in clients)
            return calibration.add(calibration.nll(logits[i], label[i], at) for i in own)

        temperature = calibration.fit(ask)
        scores = _scores(method, temperature, said["logits"])[1]
        own = (client.conformal for client in clients)
        counts = np.sum([_by_class(scores[i], label[i]) for i in own], axis=0)
        counts = counts if per_class else np.broadcast_to(counts.sum(0), counts.shape)
        found = [conformal.quantile_of_counts(c, CLASS_EDGES, alpha) for c in counts]
        thresholds = tuple(min(q, conformal.CAP) for q in found)
    count = [sum(len(client[part]) for client in clients) for part in (0, 1)]
    margins = _margins(said["mos"], rows, clients, alpha)
    return Calibration(
        alpha, method, temperature, thresholds, margins, (count[0], count[1]), together
    )


def _scores(method: str, temperature: float, logits: Any) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and scores [N,C]."""
    logits = np.asarray(logits, np.float32)
    probability = scipy.special.softmax(logits.astype(np.float64) / temperature, axis=1)
    return probability, conformal.METHODS[method](probability, conformal.uniform(logits))


def _by_class(scores: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Histograms [C,E] of one client's scores of the true class."""
    classes = range(scores.shape[1])
    return np.stack([conformal.histogram(scores[label == c, c], CLASS_EDGES) for c in classes])


def _margins(
    bins: Any, rows: Examples, clients: Sequence[Aside], alpha: float
) -> tuple[float | None, ...]:
    low, high = _quantiles(bins, alpha)
    target, rated = np.asarray(rows.mos, np.float64), np.asarray(rows.mos_mask)
    scores = conformal.cqr(low, high, np.clip(target, scales.LOW, scales.HIGH))
    out: list[float | None] = []
    for q in range(rated.shape[1]):
        own = (client.conformal[rated[client.conformal, q]] for client in clients)
        counts = np.sum([conformal.histogram(scores[i, q], MOS_EDGES) for i in own], axis=0)
        found = conformal.quantile_of_counts(counts, MOS_EDGES, alpha)
        out.append(min(found, WIDEST) if counts.sum() else None)
    return tuple(out)


def _quantiles(bins: Any, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Predicted quantiles [N,Q] at alpha / 2 and 1 - alpha / 2."""
    low, high = (scales.quantile(jnp.asarray(bins), a) for a in (alpha / 2, 1 - alpha / 2))
    return np.asarray(low, np.float64), np.asarray(high, np.float64)


def probabilities(fitted: Calibration, logits: Any) -> Float[np.ndarray, "N C"]:
    """Class probabilities at the fitted temperature."""
    return scipy.special.softmax(np.asarray(logits, np.float64) / fitted.temperature, axis=1)


def class_sets(fitted: Calibration, logits: Any) -> Bool[np.ndarray, "N C"]:
    """Which classes are in each row's set; the most probable one always is."""
    probability, scores = _scores(fitted.method, fitted.temperature, logits)
    return conformal.sets(scores, np.asarray(fitted.thresholds), probability)


def intervals(fitted: Calibration, bins: Any) -> tuple[np.ndarray, np.ndarray]:
    """Ends [N,Q] of the scores' intervals, in the head's range; without a margin, as predicted.

    A margin below 0 cannot turn an interval inside out: the predicted median is always in.
    """
    low, high = _quantiles(bins, fitted.alpha)
    middle = np.asarray(scales.quantile(jnp.asarray(bins), 0.5), np.float64)
    margin = np.array([0.0 if m is None else m for m in fitted.margins])
    low, high = np.minimum(low - margin, middle), np.maximum(high + margin, middle)
    return np.maximum(low, scales.LOW), np.minimum(high, scales.HIGH)


def owner(fitted: Calibration, group: np.ndarray) -> np.ndarray | None:
    """The client of each row's natural group, -1 for none; None where clients are not groups."""
    if not fitted.clients:
        return None
    of = {g: client for client, groups in enumerate(fitted.clients) for g in groups}
    return np.array([of.get(g, -1) for g in np.asarray(group).tolist()], np.int32)


def from_json(facts: dict[str, Any] | None) -> Calibration | None:
    """Inverse of ``Calibration._asdict``, after JSON.

    Raises:
      RunError: fields or values are not those of a calibration.
    """
    if facts is None:
        return None
    try:
        read: dict[str, Callable[[Any], Any]] = {
            "alpha": float, "method": str, "temperature": float,
            "thresholds": lambda v: tuple(map(float, v)),
            "margins": lambda v: tuple(None if m is None else float(m) for m in v),
            "rows": lambda v: (int(v[0]), int(v[1])), "together": int,
            "clients": lambda v: tuple(tuple(map(int, groups)) for groups in v),
        }  # fmt: skip
        out = Calibration(**{key: convert(facts[key]) for key, convert in read.items()})
    except (KeyError, TypeError, ValueError, IndexError) as e:
        raise RunError(f"a model's calibration cannot be read: {type(e).__name__} {e}") from e
    choose(conformal.METHODS, out.method, "calibration.method")
    return out
