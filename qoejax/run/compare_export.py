"""An exported model beside the one that it came from, on the run's own test split."""

import pathlib
from typing import Any

import numpy as np

from qoejax.run import artefact, build, evaluate, model, tables


def on_test_split(trained: model.Model, folder: pathlib.Path) -> dict[str, Any]:
    """Figures of both, the largest difference of their outputs, and how often verdicts agree.

    Raises:
      RunError: the artefact cannot be loaded.
      DataError: the run's dataset is no longer prepared.
    """
    rows = tables.held_out(build.from_plain(trained.config))
    examples = build.examples(trained.spec, trained.stats, rows)
    ours = trained.predictor()(trained.params, examples.x)
    theirs = artefact.Runner(artefact.load(folder))(rows.x)
    gaps = {k: float(np.abs(np.asarray(ours[k]) - theirs[k]).max()) for k in theirs}
    same = np.asarray(ours["logits"]).argmax(-1) == theirs["logits"].argmax(-1)
    figures = {
        name: evaluate.evaluate_model(trained, examples, predict=lambda _p, _x, out=out: out)
        for name, out in (("model", ours), ("artefact", theirs))
    }
    return {
        "rows": len(rows.label),
        "same_class": float(same.mean()),
        "largest_gap": gaps,
        **{name: _short(result.summary) for name, result in figures.items()},
    }


def _short(summary: dict[str, Any]) -> dict[str, Any]:
    mos = {k: {"plcc": v["plcc"], "rmse": v["rmse"]} for k, v in (summary["mos"] or {}).items()}
    return {k: summary[k] for k in ("accuracy", "macro_f1", "ece")} | {"mos": mos or None}
