"""How often a calibrated model's sets and intervals hold the truth: by class, by client."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qoejax.data import table
from qoejax.objectives import calibration as temperatures
from qoejax.objectives import metrics
from qoejax.run import calibration, outputs
from qoejax.run.calibration import Calibration
from qoejax.types import Examples


def judge(
    fitted: Calibration,
    spec: table.Spec,
    said: dict[str, Any],
    rows: Examples,
    owner: np.ndarray | None = None,
) -> dict[str, Any]:
    """Figures on labelled or rated rows.

    Args:
      fitted: Of the model.
      spec: Of the dataset.
      said: The model's outputs on ``rows``.
      rows: Scaled.
      owner: Client of every row, -1 for none.

    Returns:
      "alpha", "method", "temperature", "rows" (kept back); "ece" and "nll" (mean, nats), "before"
      and "after" the temperature; "sets": "coverage", "size", "rows", "per_class" by name, and
      "clients", one entry each (None without rows); "intervals": for each service that is rated
      "coverage", "width" (on its own scale), "rows" and "clients". Parts that the rows cannot give
      are None.
    """
    head = {k: getattr(fitted, k) for k in ("alpha", "method", "temperature", "rows", "together")}
    return head | _classes(fitted, spec, said, rows, owner) | {
        "intervals": _intervals(fitted, spec, said, rows, owner) or None
    }  # fmt: skip


def _by_client(
    figures: Callable[[np.ndarray], dict[str, Any]], owner: np.ndarray | None, index: np.ndarray
) -> list[dict[str, Any] | None] | None:
    """``figures`` of each client's rows among ``index``."""
    if owner is None:
        return None
    mine = [index[owner[index] == i] for i in range(int(owner.max(initial=-1)) + 1)]
    return [figures(rows) if len(rows) else None for rows in mine]


def _classes(
    fitted: Calibration,
    spec: table.Spec,
    said: dict[str, Any],
    rows: Examples,
    owner: np.ndarray | None,
) -> dict[str, Any]:
    label = np.asarray(rows.label)
    known = np.flatnonzero(label >= 0)
    if not fitted.thresholds or not len(known):
        return dict.fromkeys(("ece", "nll", "sets"))
    logits = np.asarray(said["logits"], np.float64)
    inside = calibration.class_sets(fitted, logits)
    covered, size = inside[np.arange(len(label)), label], inside.sum(1)

    def figures(index: np.ndarray) -> dict[str, Any]:
        return {"coverage": covered[index].mean(), "size": size[index].mean(), "rows": len(index)}

    before, after = outputs.probabilities(said)[0], calibration.probabilities(fitted, logits)
    sums = [temperatures.nll(logits, label, t) for t in (1.0, fitted.temperature)]
    return {
        "ece": {
            "before": metrics.ece(before[known], label[known]),
            "after": metrics.ece(after[known], label[known]),
        },
        "nll": {"before": sums[0].loss / len(known), "after": sums[1].loss / len(known)},
        "sets": figures(known) | {
            "per_class": {
                name: figures(own) for c, name in enumerate(spec.label_names)
                if len(own := np.flatnonzero(label == c))
            },
            "clients": _by_client(figures, owner, known),
        },
    }  # fmt: skip


def _intervals(
    fitted: Calibration,
    spec: table.Spec,
    said: dict[str, Any],
    rows: Examples,
    owner: np.ndarray | None,
) -> dict[str, Any]:
    services = len(spec.services)
    low, high = calibration.intervals(fitted, said["mos"])
    target = np.asarray(rows.mos, np.float64)
    inside = (low <= target) & (target <= high)
    low, high = (outputs.from_head(spec, ends[:, :services]) for ends in (low, high))
    width = high - low
    out = {}
    for q, service in enumerate(spec.services):
        rated = np.flatnonzero(np.asarray(rows.mos_mask)[:, q])
        if not len(rated) or fitted.margins[q] is None:
            continue

        def figures(index: np.ndarray, q: int = q) -> dict[str, Any]:
            return {
                "coverage": inside[index, q].mean(),
                "width": width[index, q].mean(),
                "rows": len(index),
            }

        out[service.label] = figures(rated) | {"clients": _by_client(figures, owner, rated)}
    return out
