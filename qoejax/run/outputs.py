"""What a network's outputs mean: probabilities, scores on their own scales, columns of verdicts.

NumPy and JAX; needs no network, so an exported model is read by the same code as a trained one.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.special

from qoejax.data import table as tables
from qoejax.qoe import decide, scales
from qoejax.run import calibration

# G.107's best narrow-band connection: what a user loses at most when blocked unduly.
NOMINAL_MOS = 4.41


def probabilities(out: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Class probabilities [N,C] and mean MOS [N,Q] of a network's outputs."""
    probability = scipy.special.softmax(np.asarray(out["logits"]), axis=-1)
    return probability, np.asarray(scales.mean(jnp.asarray(out["mos"])))


def to_head(spec: tables.Spec, scores: np.ndarray) -> np.ndarray:
    """Scores [N,Q] of each service's own scale, in the range of the head's bins."""
    stretched = scales.LOW + (scales.HIGH - scales.LOW) * scores
    return np.where(_machine(spec), stretched, scores)


def from_head(spec: tables.Spec, scores: np.ndarray) -> np.ndarray:
    """Inverse of ``to_head``."""
    return np.where(_machine(spec), (scores - scales.LOW) / (scales.HIGH - scales.LOW), scores)


def _machine(spec: tables.Spec) -> np.ndarray:
    return np.array([s.scale == tables.QOME for s in spec.services], bool)


def columns(
    spec: tables.Spec,
    mos_mean: np.ndarray,
    out: dict[str, Any],
    costs: decide.Costs,
    fitted: calibration.Calibration | None = None,
) -> dict[str, np.ndarray]:
    """Verdicts of the outputs ``{"logits": [N,C], "mos": [N,Q,M]}``, one array a column.

    Columns of scores (``mos_SERVICE``, ``qome_SERVICE``), with the 80 % interval, are there only
    when training rows were rated on them (``mos_mean`` [Q] above 0); the action then weighs the
    worst MOS, else ``NOMINAL_MOS``. Where the dataset has one class only, there is no class and no
    action. With ``fitted``, probabilities are at its temperature, ``class_set`` has the classes of
    the conformal set, most probable first, joined by ``|``, and intervals are those that hold the
    score of a share ``1 - alpha`` of the rows.
    """
    probability, mos = probabilities(out)
    if fitted is not None:
        probability = calibration.probabilities(fitted, out["logits"])
    names = np.array(spec.label_names)
    best = probability.argmax(-1)
    p_attack = 1 - probability[:, spec.label_names.index(spec.benign)]
    table: dict[str, np.ndarray] = {}
    if len(names) > 1:
        table |= {
            "class": names[best],
            "probability": probability.max(-1).astype(np.float32),
            "p_attack": p_attack.astype(np.float32),
        }
    if fitted is not None and fitted.thresholds:
        table["class_set"] = _joined(
            calibration.class_sets(fitted, out["logits"]), probability, names
        )
    low, high = _interval(out["mos"], fitted)
    # A service that no training row rated has a head that has learned nothing.
    services = {q: s for q, s in enumerate(spec.services) if mos_mean[q] > 0}
    for name, scores in (("", mos), ("_low", low), ("_high", high)):
        own = from_head(spec, scores[:, : len(spec.services)])
        table |= {s.label + name: own[:, q].astype(np.float32) for q, s in services.items()}
    if len(names) == 1:
        return table
    rated = [q for q, service in services.items() if service.scale == tables.MOS]
    worst = mos[:, rated].min(-1) if rated else np.full(len(best), NOMINAL_MOS)
    chosen = decide.action(jnp.asarray(p_attack), jnp.asarray(worst, jnp.float32), costs)
    table["action"] = np.array(decide.ACTIONS)[np.asarray(chosen)]
    return table


def _interval(mos: Any, fitted: calibration.Calibration | None) -> tuple[np.ndarray, np.ndarray]:
    """Ends [N,Q] of the scores' intervals, in the head's range."""
    if fitted is not None:
        return calibration.intervals(fitted, mos)
    low, high = (np.asarray(scales.quantile(jnp.asarray(mos), level)) for level in (0.1, 0.9))
    return low, high


def _joined(inside: np.ndarray, probability: np.ndarray, names: np.ndarray) -> np.ndarray:
    order = np.argsort(-probability, axis=1, kind="stable")
    pairs = zip(order, inside, strict=True)
    return np.array(["|".join(names[[c for c in row if keep[c]]]) for row, keep in pairs])
