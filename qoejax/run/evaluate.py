"""Metrics of a trained model, on its test split or on rows of a file."""

import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from qoejax.data import load, table
from qoejax.data.errors import DataError
from qoejax.objectives import metrics
from qoejax.qoe import scales
from qoejax.run import build, model
from qoejax.run.errors import RunError
from qoejax.types import Examples


class Result(NamedTuple):
    """Predictions on labelled rows, and what they add up to."""

    summary: dict[str, Any]
    label: np.ndarray  # [N]
    probability: np.ndarray  # [N, C]
    mos_true: np.ndarray  # [N, Q], each service on its own scale
    mos_mask: np.ndarray  # [N, Q]
    mos_predicted: np.ndarray  # [N, Q]


def probabilities(out: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Class probabilities [N,C] and mean MOS [N,Q] of a network's outputs."""
    probability = scipy.special.softmax(np.asarray(out["logits"]), axis=-1)
    return probability, np.asarray(scales.mean(jnp.asarray(out["mos"])))


def quick(
    predict: Any, params: Any, stacked: bool, rows: Examples, spec: table.Spec
) -> dict[str, float]:
    """A few numbers for the convergence curves; never used to choose anything.

    With one model per client (``stacked``) the mean over clients is given.
    """
    models = unstack(params) if stacked else [params]
    scores = [_score(predict(params, rows.x), rows, spec) for params in models]
    return {k: float(np.mean([s[k] for s in scores])) for k in scores[0]}


def _score(out: dict[str, Any], rows: Examples, spec: table.Spec) -> dict[str, float]:
    probability, mos = probabilities(out)
    s = metrics.classification(probability, rows.label, benign=spec.label_names.index(spec.benign))
    scores = {k: s[k] for k in ("accuracy", "macro_f1")}
    if rows.mos_mask.any():
        figures = metrics.mos(mos[rows.mos_mask], rows.mos[rows.mos_mask])
        scores |= {"mos_plcc": figures["plcc"], "mos_rmse": figures["rmse"]}
    return scores


def unstack(tree: Any) -> list[Any]:
    """Pytree with leading axis P to P pytrees."""
    count = jax.tree.leaves(tree)[0].shape[0]
    return [jax.tree.map(lambda a, i=i: a[i], tree) for i in range(count)]


def evaluate_model(trained: model.Model, rows: Examples) -> Result:
    """All metrics of DESIGN's ``evaluate`` on rows that are already scaled.

    A stacked (local-only) model is scored client by client: the summary holds the mean over
    clients, and the spread under ``clients``; arrays are those of the median client.
    """
    return _judge(trained, _outputs(trained, rows), rows)


def _outputs(trained: model.Model, rows: Examples) -> list[dict[str, Any]]:
    """What the network says of the rows; one entry per client where each has its own model."""
    predict = trained.predictor()
    models = unstack(trained.params) if trained.stacked else [trained.params]
    return [jax.device_get(predict(params, rows.x)) for params in models]


def _judge(trained: model.Model, outputs: list[dict[str, Any]], rows: Examples) -> Result:
    results = [_result(trained, out, rows) for out in outputs]
    if not trained.stacked:
        return results[0]
    f1 = np.array([r.summary["macro_f1"] for r in results])
    median = results[int(np.argsort(f1)[len(f1) // 2])]
    means = {
        k: float(np.mean([r.summary[k] for r in results]))
        for k, v in median.summary.items()
        if isinstance(v, float)
    }
    clients = {"macro_f1": f1, "worst": f1.min(), "best": f1.max()}
    return median._replace(summary={**median.summary, **means, "clients": clients})


def own_rows(trained: model.Model, rows: Examples, owner: np.ndarray) -> dict[str, Any]:
    """What each client gets of its model on the test rows of its own sites.

    Args:
      trained: One model for all, or one for each client.
      rows: Scaled test rows.
      owner: Client of every row, -1 for none.

    Returns:
      ``accuracy``, ``macro_f1`` (over the classes that occur) and, where rated, ``mos_plcc`` and
      ``mos_rmse``: one number a client (None without rows), and means over clients with rows.
    """
    predict, spec = trained.predictor(), trained.spec
    clients = range(int(owner.max(initial=-1)) + 1)
    shared = None if trained.stacked else jax.device_get(predict(trained.params, rows.x))
    models = unstack(trained.params) if trained.stacked else []
    scores: list[dict[str, float] | None] = []
    for i in clients:
        mine = np.flatnonzero(owner == i)
        # All rows through the one compiled predictor: a size of its own would compile for each.
        out = jax.device_get(predict(models[i], rows.x)) if shared is None else shared
        said, own = jax.tree.map(lambda leaf, mine=mine: np.asarray(leaf)[mine], (out, rows))
        scores.append(_score(said, own, spec) if len(mine) else None)
    names = sorted({name for s in scores if s is not None for name in s})
    each = {name: [None if s is None else s.get(name) for s in scores] for name in names}
    means = {
        name: float(np.mean([v for v in values if v is not None])) for name, values in each.items()
    }
    return {"mean": means, "clients": each}


def _result(trained: model.Model, out: dict[str, Any], rows: Examples) -> Result:
    probability, mos = probabilities(out)
    spec = trained.spec
    label = np.asarray(rows.label)
    benign = spec.label_names.index(spec.benign)
    summary: dict[str, Any] = {"rows": len(label)}
    summary |= metrics.classification(probability, label, benign=benign, names=spec.label_names)
    majority = int(np.argmax(trained.label_counts))
    constant = np.eye(len(spec.label_names))[np.full(len(label), majority)]
    baseline = metrics.classification(constant, label, benign=benign)
    summary["majority_class"] = {k: baseline[k] for k in ("accuracy", "macro_f1")}
    services = len(spec.services)
    mask = np.asarray(rows.mos_mask)[:, :services]
    true, mean, mos = (
        build.from_head(spec, np.asarray(scores)[..., :services])
        for scores in (rows.mos, trained.mos_mean, mos)
    )
    for scale in (table.MOS, table.QOME):
        summary[scale] = {
            service.key: _scores(spec, q, mos, true, mask, mean)
            for q, service in enumerate(spec.services)
            if service.scale == scale and mask[:, q].any()
        } or None
    return Result(summary, label, probability, true, mask, mos)


def _scores(
    spec: table.Spec,
    q: int,
    predicted: np.ndarray,
    true: np.ndarray,
    mask: np.ndarray,
    mean: np.ndarray,
) -> dict[str, Any]:
    """P.1401 figures of service ``q``.

    ``skill`` is over persistence, the same service's score now, if the rows have that.
    ``skill_over_mean`` is 0 for the training rows' mean score.
    """
    now = table.persistence(spec)[q]
    rated = mask[:, q]
    last = true[rated, now] if now is not None and mask[rated, now].all() else None
    target, forecast = true[rated, q], predicted[rated, q]
    constant = np.full(len(target), mean[q])
    return metrics.mos(forecast, target, reference=last) | {
        "skill_over_mean": scales.skill(target, forecast, constant)
    }


def split_rows(trained: model.Model) -> Examples:
    """The test split of the model's own dataset, cleaned and scaled."""
    config = build.from_plain(trained.config)
    _, rows = load.table(build.dataset(config), "test")
    keep, _ = build.clean(config, trained.spec, rows)
    return build.examples(trained.spec, trained.stats, table.take(rows, keep))


def raw_rows(
    trained: model.Model, path: pathlib.Path
) -> tuple[table.Table, dict[str, Any], dict[str, np.ndarray]]:
    """Rows of a file in the dataset's raw form, coded as the model was trained.

    Only the columns that the model sees must be there.

    Returns:
      The rows, what was read and dropped, and columns that say which record each row is.

    Raises:
      RunError: the file is missing, or not of that form.
    """
    if not path.is_file():
        raise RunError(f"input {path} is not a file: expected one in the dataset's raw form")
    try:
        seen = {trained.stats.columns[output.column] for output in trained.stats.outputs}
        rows, report, identity = load.read_file(path, trained.spec, sorted(seen))
    except DataError as e:
        raise RunError(str(e)) from e
    if not len(rows.label):
        raise RunError(f"input {path} has no usable row")
    return rows, report._asdict(), identity


def evaluate_file(trained: model.Model, path: pathlib.Path, dataset: str) -> dict[str, Any]:
    """Metrics on a labelled file: on all its rows, and on those without duplicates and conflicts.

    Raises:
      RunError: another dataset than the model's, no labels, or an unreadable file.
    """
    if dataset != trained.spec.dataset:
        raise RunError(
            f"--dataset={dataset}, but this model was trained on {trained.spec.dataset}: "
            "expected the same dataset and config"
        )
    rows, report, _ = raw_rows(trained, path)
    labelled = rows.label >= 0
    if not labelled.any():
        raise RunError(f"input {path} has no label column or no known label; predict needs none")
    rows = table.take(rows, np.flatnonzero(labelled))
    keep, _ = build.clean(build.from_plain(trained.config), trained.spec, rows)
    examples = build.examples(trained.spec, trained.stats, rows)
    outputs = _outputs(trained, examples)
    result = _judge(trained, outputs, examples)
    kept_outputs, kept = jax.tree.map(lambda a: a[keep], (outputs, examples))
    unique = _judge(trained, kept_outputs, kept)
    keys = ("rows", "accuracy", "macro_f1", "weighted_f1", "mcc", "balanced_accuracy")
    return {
        "input": str(path),
        "read": report,
        **result.summary,
        "deduplicated": {k: unique.summary[k] for k in keys},
    }
