"""The MOS head against people's own scores, beside tree ensembles and P.1203. One JSON line each.

    python -m experiments.bench.human_scores --manual_dir=DIR --data_dir=D

Every dataset gives two lines. ``folds``: cross-validation by subject on all rows; a row's forecast
comes from models that saw no row of its subject, and figures are of all rows together.
``held_out``: trained on the train split, judged on the test split; the first seed is the run of
``experiments.train --config=configs/human_qoe.py:NAME``.

``ours`` is the mean over seeds, ``sd`` their spread. The others see the same columns:
scikit-learn's ``hgb`` (histogram gradient boosting, as it comes) and ``forest`` (300 trees of 5
rows a leaf at least), and ``standard``, the score of ITU-T P.1203 mode 0 where the data has it.
``ours_minus`` are differences of the paired figures with a 95 % interval from resampled subjects.
All in MOS points; ``source`` is the factor to the points of the scale that people used.
"""

from typing import Any

import numpy as np
from absl import flags

from experiments import cli
from experiments.bench import common

_DATASETS = flags.DEFINE_list(
    "datasets", ["cloud_gaming", "poqemon", "vlc", "p1203"], "Configs of human_qoe."
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where prepared datasets live.")
_MANUAL_DIR = flags.DEFINE_string("manual_dir", None, "Folder of the files, to prepare from.")
_SEEDS = flags.DEFINE_integer("seeds", 5, "Trained networks a fold.", lower_bound=1)
_FOLDS = flags.DEFINE_integer("folds", 5, "Folds of the cross-validation.", lower_bound=2)
_RESAMPLES = flags.DEFINE_integer("resamples", 2000, "Of the subjects.", lower_bound=100)
_ROUNDS = flags.DEFINE_integer("rounds", 0, "Training rounds, 0 for the config's own.")

STANDARD = "p1203_mode0_O46"


def everyone(config: Any, spec: Any, train: Any, test: Any) -> dict[str, np.ndarray]:
    """Forecasts for the rows of ``test``, by who makes them."""
    from qoejax.run import subjects

    constant = np.full((1, len(test.label)), train.mos[:, 0].mean())
    out = {
        "ours": subjects.ours(config, spec, train, test, _SEEDS.value),
        **subjects.trees(spec, train, test),
    }
    names = [c.name for c in spec.columns]
    if STANDARD in names:
        out["standard"] = test.x[:, 0, names.index(STANDARD)].astype(np.float64)[None]
    return out | {"mean": constant}


def line(
    spec: Any, rows: Any, forecasts: dict[str, np.ndarray], half_width: np.ndarray | None
) -> dict[str, Any]:
    """The figures of one comparison."""
    from qoejax.data import rated
    from qoejax.objectives import metrics
    from qoejax.run import subjects

    true, out = rows.mos[:, 0].astype(np.float64), {}
    for name, each in forecasts.items():
        scores = [metrics.mos(p, true, half_width=half_width) for p in each]
        out[name] = {
            k: float(np.mean([s[k] for s in scores]))
            for k in ("plcc", "srocc", "rmse", "rmse_star", "mae")
            if scores[0][k] is not None
        }
        if len(scores) > 1:
            out[name]["sd"] = {k: float(np.std([s[k] for s in scores], ddof=1)) for k in out[name]}
    low, high = rated.scale(spec)
    return {
        "rows": len(true),
        "subjects": len(np.unique(rows.group)),
        "source": (high - low) / 4,
        **out,
        "ours_minus": subjects.differences(
            forecasts, true, rows.group, half_width, _RESAMPLES.value
        ),
    }


def compare(name: str) -> dict[str, Any]:
    """Both lines of a dataset; returns the margin over gradient boosting in the folds."""
    from configs import human_qoe
    from qoejax.data import load, rated, table
    from qoejax.run import subjects

    config = human_qoe.get_config(name)
    config.fed.rounds = _ROUNDS.value or config.fed.rounds
    built = load.builder(config.data.name, _DATA_DIR.value, _MANUAL_DIR.value)
    spec, train = load.table(built, "train")
    test = load.table(built, "test")[1]
    facts = {"bench": "human_scores", "dataset": name, "seeds": _SEEDS.value}
    both = table.concatenate([train, test])
    parts, order = [], []
    for fit, ask in subjects.folds(both.group, _FOLDS.value):
        parts.append(everyone(config, spec, table.take(both, fit), table.take(both, ask)))
        order.append(ask)
    rows = table.take(both, np.concatenate(order))
    forecasts = {k: np.concatenate([p[k] for p in parts], 1) for k in parts[0]}
    cv = line(spec, rows, forecasts, rated.half_width(spec, rows))
    common.emit(facts | {"protocol": "folds", "folds": _FOLDS.value, **cv})
    held = line(spec, test, everyone(config, spec, train, test), rated.half_width(spec, test))
    common.emit(facts | {"protocol": "held_out", "train_rows": len(train.label), **held})
    return {k: cv["ours_minus"]["hgb"]["plcc"][k] for k in ("value", "interval")}


def main() -> dict[str, Any]:
    """Prints the lines; the last sums up."""
    margins = {name: compare(name) for name in _DATASETS.value}
    return {"bench": "human_scores", "plcc_over_hgb": margins}


if __name__ == "__main__":
    cli.run(main)
