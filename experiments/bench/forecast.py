"""How hard the simulated tasks are: gradient boosting and persistence. One JSON line each.

    python -m experiments.bench.forecast --data_dir=runs/data

For every service and horizon of a dataset that has them: PLCC, RMSE and R2 of histogram gradient
boosting on the current second (``now_*``) and on all eight (``window_*``), of persistence of the
true score, and the skill of the windowed model over it. The last line has the macro-F1 of the
classes. scikit-learn's defaults but for the size of a tree; one seed.
"""

from typing import Any

import numpy as np
from absl import flags

from experiments import cli
from experiments.bench import common

_DATASET = flags.DEFINE_string("dataset", "simulated_iot/small", "NAME or NAME/CONFIG.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where prepared datasets live (TFDS' default).")
_ITERATIONS = flags.DEFINE_integer("iterations", 80, "Trees, of each class.", lower_bound=1)


def current(x: np.ndarray) -> np.ndarray:
    """Features [N,F] of the last second of each window [N,T,F]."""
    return x[:, -1]


def window(x: np.ndarray) -> np.ndarray:
    """Last second, mean of 3, mean, extremes; and the rates of every second of the window."""
    views = [x[:, -1], x[:, -3:].mean(1), x.mean(1), x.min(1), x.max(1), x[:, :, 0], x[:, :, 1]]
    return np.concatenate(views, axis=1)


def _judge(target: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    from qoejax.qoe import scales

    return {
        "plcc": scales.plcc(target, predicted),
        "rmse": scales.rmse(target, predicted),
        "r2": scales.skill(target, predicted, np.full(len(target), target.mean())),
    }


def main() -> dict[str, Any]:
    """Prints one line for each service and horizon, and returns the classes' figures."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.metrics import f1_score

    from qoejax.data import load, table
    from qoejax.qoe import scales

    prepared = load.builder(_DATASET.value, _DATA_DIR.value or None)
    (spec, train), (_, test) = (load.table(prepared, name) for name in ("train", "test"))
    kw = {
        "max_iter": _ITERATIONS.value, "max_leaf_nodes": 12, "min_samples_leaf": 40,
        "random_state": 0,
    }  # fmt: skip
    views = {"now": current, "window": window}
    seen = {name: (view(train.x), view(test.x)) for name, view in views.items()}
    for q, (service, now) in enumerate(zip(spec.services, table.persistence(spec), strict=True)):
        target, row = test.mos[:, q], {"service": service.key, "scale": service.scale}
        forecasts = {
            name: HistGradientBoostingRegressor(**kw).fit(x, train.mos[:, q]).predict(x_test)
            for name, (x, x_test) in seen.items()
        }
        for name, predicted in forecasts.items():
            row |= {f"{name}_{k}": v for k, v in _judge(target, predicted).items()}
        if now is not None:
            last = test.mos[:, now]
            row |= {f"persistence_{k}": v for k, v in _judge(target, last).items()}
            row["skill"] = scales.skill(target, forecasts["window"], last)
        common.emit({"bench": "forecast", "dataset": spec.dataset, **row})
    classes = {}
    for name, (x, x_test) in seen.items():
        found = HistGradientBoostingClassifier(**kw).fit(x, train.label).predict(x_test)
        classes[f"{name}_macro_f1"] = f1_score(test.label, found, average="macro")
    return {"bench": "forecast", "dataset": spec.dataset, **classes}


if __name__ == "__main__":
    cli.run(main)
