"""Estimators that other libraries fit, as contenders of the hybrid. NumPy.

The libraries are imported when one is asked for: extra ``baselines``.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from qoejax.run.errors import RunError
from qoejax.types import Examples

Draw = Callable[[np.random.Generator], Any]
"""One setting of a random trial."""


class Estimator(NamedTuple):
    """Where a class is found, what it always gets, and what a trial may choose.

    ``samples`` are the settings below 1 by which alone a fit draws at random; without them every
    fit does.
    """

    module: str
    name: str
    fixed: Mapping[str, Any]
    space: Mapping[str, Draw]
    samples: tuple[str, ...] = ()

    def seeded(self, settings: Mapping[str, Any]) -> bool:
        """Whether fits with other seeds may differ."""
        return not self.samples or any(settings.get(name, 1.0) < 1.0 for name in self.samples)


def log_uniform(low: float, high: float) -> Draw:
    """A number whose logarithm is uniform."""
    return lambda rng: float(np.exp(rng.uniform(np.log(low), np.log(high))))


def one_of(*values: Any) -> Draw:
    """One of the values, all equally likely."""
    return lambda rng: values[int(rng.integers(len(values)))]


SAMPLES = ("subsample", "colsample_bytree")

CLASSIFIERS: dict[str, Estimator] = {
    "stump": Estimator("sklearn.tree", "DecisionTreeClassifier", {"max_depth": 1}, {}),
    "random_forest": Estimator(
        "sklearn.ensemble", "RandomForestClassifier", {"n_estimators": 300, "n_jobs": -1},
        {"max_features": one_of("sqrt", 0.2, 0.4, 0.7), "min_samples_leaf": one_of(1, 2, 4),
         "class_weight": one_of(None, "balanced", "balanced_subsample")},
    ),
    "lightgbm": Estimator(
        "lightgbm", "LGBMClassifier", {"verbose": -1, "subsample_freq": 1},
        {"n_estimators": one_of(50, 100, 200, 400), "learning_rate": log_uniform(0.01, 0.2),
         "num_leaves": one_of(7, 15, 31, 63), "min_child_samples": one_of(3, 5, 10, 20),
         "subsample": one_of(0.6, 0.8, 1.0), "colsample_bytree": one_of(0.3, 0.6, 1.0),
         "reg_lambda": log_uniform(1e-3, 10.0), "class_weight": one_of(None, "balanced")},
        SAMPLES,
    ),
    "xgboost": Estimator(
        "xgboost", "XGBClassifier", {"tree_method": "hist"},
        {"n_estimators": one_of(50, 100, 200, 400), "learning_rate": log_uniform(0.02, 0.3),
         "max_depth": one_of(3, 5, 7, 9), "min_child_weight": log_uniform(0.3, 10.0),
         "subsample": one_of(0.6, 0.8, 1.0), "colsample_bytree": one_of(0.3, 0.6, 1.0),
         "reg_lambda": log_uniform(1e-2, 10.0)},
        SAMPLES,
    ),
}  # fmt: skip
"""Of the class; by name."""

REGRESSORS: dict[str, Estimator] = {
    "histogram_boosting": Estimator(
        "sklearn.ensemble", "HistGradientBoostingRegressor", {},
        {"max_iter": one_of(60, 120, 240), "learning_rate": log_uniform(0.03, 0.2),
         "max_leaf_nodes": one_of(8, 15, 31), "min_samples_leaf": one_of(10, 20, 40),
         "l2_regularization": log_uniform(1e-3, 10.0)},
    ),
}  # fmt: skip
"""Of each service's score; by name."""


def make(estimator: Estimator, settings: Mapping[str, Any], seed: int) -> Any:
    """The estimator, not yet fitted.

    Raises:
      RunError: its library is not installed.
    """
    try:
        found = getattr(importlib.import_module(estimator.module), estimator.name)
    except ImportError as e:
        library = estimator.module.partition(".")[0]
        raise RunError(
            f"{estimator.name} needs {library}, which is not installed: "
            "expected the extra 'baselines' (pip install 'qoejax[baselines]')"
        ) from e
    return found(**estimator.fixed, **settings, random_state=seed)


def flat(x: Float[np.ndarray, "N T F"]) -> Float[np.ndarray, "N A"]:
    """What a tree sees of a window: the last record, and means and extremes of the records."""
    if x.shape[1] == 1:
        return x[:, 0]
    last = [x[:, -1], x[:, -2], x[:, -3:].mean(1)]
    return np.concatenate([*last, x.mean(1), x.min(1), x.max(1), x.std(1)], axis=1)


def classifier(
    estimator: Estimator, rows: Examples, classes: int, settings: Mapping[str, Any], seed: int
) -> Callable[[Examples], Float[np.ndarray, "N C"]]:
    """Fits on rows with a label; gives what predicts the probabilities of all ``classes``."""
    labelled = rows.label >= 0
    there, codes = np.unique(rows.label[labelled], return_inverse=True)
    fitted = make(estimator, settings, seed).fit(flat(rows.x[labelled]), codes)

    def predict(rows: Examples) -> np.ndarray:
        out = np.zeros((len(rows.label), classes))
        out[:, there] = fitted.predict_proba(flat(rows.x))
        return out

    return predict


def regressors(
    estimator: Estimator, rows: Examples, settings: Mapping[str, Any], seed: int
) -> Callable[[Examples], Float[np.ndarray, "N Q"]]:
    """Fits one a service, on the rows that are rated; an unrated service is predicted as NaN."""
    seen = flat(rows.x)
    fitted = [
        make(estimator, settings, seed).fit(seen[rated], score[rated]) if rated.any() else None
        for score, rated in zip(rows.mos.T, rows.mos_mask.T, strict=True)
    ]

    def predict(rows: Examples) -> np.ndarray:
        seen, none = flat(rows.x), np.full(len(rows.label), np.nan)
        return np.stack([none if f is None else f.predict(seen) for f in fitted], axis=1)

    return predict
