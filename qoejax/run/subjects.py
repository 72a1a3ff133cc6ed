"""Forecasts of people's scores, and how they compare, on rows that belong to subjects. Host."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qoejax.data import preprocess
from qoejax.data.table import CATEGORICAL
from qoejax.fed.evaluate import make_evaluator
from qoejax.qoe import scales
from qoejax.run import build


def ours(config: Any, spec: Any, train: Any, test: Any, seeds: int) -> np.ndarray:
    """Forecasts [seeds, N] for the rows of ``test`` after training on ``train``."""
    stats = build.statistics(config, spec, train)
    rows = jax.tree.map(jnp.asarray, build.examples(spec, stats, train))
    x = build.examples(spec, stats, test).x
    count = len(train.label)
    objective = build.objective(config, spec, np.array([count]))
    one = (np.zeros(1, np.int32), np.array([count], np.int32))
    engine = build.make_engine(config, objective.loss_fn, *one)
    predict = make_evaluator(objective.predict, config.evaluation.batch)
    out = []
    for seed in range(seeds):
        key = jax.random.key(seed)
        state = engine.init(objective.init(jax.random.fold_in(key, 0), rows.x[:1]))
        again = jax.random.fold_in(key, 1)
        state, _ = engine.block(state, engine.place(rows), again, config.fed.rounds)
        out.append(scales.mean(jnp.asarray(predict(state.params, x)["mos"]))[:, 0])
    return np.array(out, np.float64)


def trees(spec: Any, train: Any, test: Any) -> dict[str, np.ndarray]:
    """Forecasts [1, N] of the tree ensembles for the rows of ``test``."""
    from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor

    columns = preprocess.retained(spec)
    kinds = [spec.columns[j].kind == CATEGORICAL for j in columns]
    models = {
        "hgb": HistGradientBoostingRegressor(random_state=0, categorical_features=kinds),
        "forest": RandomForestRegressor(300, min_samples_leaf=5, random_state=0),
    }
    fit, ask = train.x[:, 0, columns], test.x[:, 0, columns]
    return {k: m.fit(fit, train.mos[:, 0]).predict(ask)[None] for k, m in models.items()}


def folds(group: np.ndarray, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows to train on and rows to forecast, ``count`` times; subjects stay whole."""
    from sklearn.model_selection import GroupKFold

    return list(GroupKFold(count).split(group, groups=group))


def weighted(
    weight: np.ndarray, true: np.ndarray, forecast: np.ndarray, half_width: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Figures [R] of rows that count ``weight`` [R,N] times; sums of squares are over N."""
    w = weight / weight.sum(1, keepdims=True)
    a, b = (v - (w @ v)[:, None] for v in (true, forecast))
    spread = np.sqrt((w * a * a).sum(1) * (w * b * b).sum(1))
    error = np.abs(true - forecast)
    with np.errstate(invalid="ignore", divide="ignore"):
        out = {"plcc": (w * a * b).sum(1) / spread, "rmse": np.sqrt(w @ error**2)}
    if half_width is not None:
        out["rmse_star"] = np.sqrt(w @ np.maximum(error - half_width, 0) ** 2)
    return out


def differences(
    forecasts: dict[str, np.ndarray],
    true: np.ndarray,
    group: np.ndarray,
    half_width: np.ndarray | None,
    resamples: int,
) -> dict[str, Any]:
    """Ours minus each other, a figure's mean over our seeds, with intervals over subjects."""
    _, subject = np.unique(group, return_inverse=True)
    count = int(subject.max()) + 1
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(count, np.full(count, 1 / count), resamples)[:, subject]
    weight = np.concatenate([np.ones((1, len(true))), drawn])  # first the rows as they are

    def mean(rows: np.ndarray) -> dict[str, np.ndarray]:
        each = [weighted(weight, true, p, half_width) for p in rows]
        return {k: np.mean([e[k] for e in each], 0) for k in each[0]}

    own, out = mean(forecasts["ours"]), {}
    for name, rows in forecasts.items():
        if name not in ("ours", "mean"):
            gap = {k: own[k] - v for k, v in mean(rows).items()}
            out[name] = {
                k: {"value": g[0], "interval": np.nanquantile(g[1:], (0.025, 0.975))}
                for k, g in gap.items()
            }
    return out
