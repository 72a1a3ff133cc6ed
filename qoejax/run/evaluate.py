"""Metrics of a trained model, on its test split or on rows of a file."""

import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from qoejax.data import load, table
from qoejax.data import rated as ratings
from qoejax.data.errors import DataError
from qoejax.objectives import metrics
from qoejax.qoe import scales
from qoejax.run import build, calibration, coverage, model, outputs, tables
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


def quick(
    predict: Any, params: Any, stacked: bool, rows: Examples, spec: table.Spec
) -> dict[str, float]:
    """A few numbers for the convergence curves; never used to choose anything.

    With one model per client (``stacked``) the mean over clients is given.
    """
    models = unstack(params) if stacked else [params]
    scores = [_score(predict(params, rows.x), rows, spec) for params in models]
    shared = [k for k in scores[0] if all(k in s for s in scores)]
    return {k: float(np.mean([s[k] for s in scores])) for k in shared}


def _score(out: dict[str, Any], rows: Examples, spec: table.Spec) -> dict[str, float]:
    probability, mos = outputs.probabilities(out)
    s = metrics.classification(probability, rows.label, benign=spec.label_names.index(spec.benign))
    several = len(spec.label_names) > 1
    scores = {k: s[k] for k in ("accuracy", "macro_f1")} if several else {}
    if rows.mos_mask.any():
        figures = metrics.mos(mos[rows.mos_mask], rows.mos[rows.mos_mask])
        scores["mos_rmse"] = figures["rmse"]
        if figures["plcc"] is not None:  # equal scores correlate with nothing
            scores["mos_plcc"] = figures["plcc"]
    return scores


def unstack(tree: Any) -> list[Any]:
    """Pytree with leading axis P to P pytrees."""
    count = jax.tree.leaves(tree)[0].shape[0]
    return [jax.tree.map(lambda a, i=i: a[i], tree) for i in range(count)]


def evaluate_model(
    trained: model.Model,
    rows: Examples,
    half_width: np.ndarray | None = None,
    predict: Any = None,
    owner: np.ndarray | None = None,
) -> Result:
    """All metrics of DESIGN's ``evaluate`` on rows that are already scaled.

    ``half_width`` [N] is of the scores' 95 % intervals, where the data has them. A stacked
    (local-only) model is scored client by client: the summary holds the mean over clients, and the
    spread under ``clients``; arrays are those of the median client. ``predict`` is a predictor of
    such a model that is compiled already; ``owner`` [N] is the client of each row, -1 for none, by
    which the coverage of a calibrated model is shown.
    """
    return _judge(trained, _outputs(trained, rows, predict), rows, half_width, owner)


def _outputs(trained: model.Model, rows: Examples, predict: Any = None) -> list[dict[str, Any]]:
    """What the network says of the rows; one entry per client where each has its own model."""
    predict = predict or trained.predictor()
    models = unstack(trained.params) if trained.stacked else [trained.params]
    return [jax.device_get(predict(params, rows.x)) for params in models]


def _judge(
    trained: model.Model,
    outputs: list[dict[str, Any]],
    rows: Examples,
    half_width: np.ndarray | None = None,
    owner: np.ndarray | None = None,
) -> Result:
    results = [_result(trained, out, rows, half_width, owner) for out in outputs]
    if not trained.stacked:
        return results[0]
    figure, values = _spread(results, trained.spec)
    median = results[int(np.argsort(values)[len(values) // 2])]
    means = {
        k: float(np.mean([r.summary[k] for r in results]))
        for k, v in median.summary.items()
        if isinstance(v, float)
    }
    clients = {figure: values, "worst": values.min(), "best": values.max()}
    return median._replace(summary={**median.summary, **means, "clients": clients})


def own_rows(trained: model.Model, rows: Examples, owner: np.ndarray) -> dict[str, Any]:
    """What each client gets of its model on the test rows of its own sites.

    Args:
      trained: One model for all, or one for each client.
      rows: Scaled test rows.
      owner: Client of every row, -1 for none.

    Returns:
      ``accuracy``, ``macro_f1`` (over the classes that occur) and, where rated, ``mos_plcc`` and
      ``mos_rmse``: one number a client (None without rows), and means over clients with rows. And
      ``pooled``: all figures of the rows of all clients together, each row by its owner's model
      (None without rows).
    """
    predict, spec = trained.predictor(), trained.spec
    clients = range(int(owner.max(initial=-1)) + 1)
    shared = None if trained.stacked else jax.device_get(predict(trained.params, rows.x))
    models = unstack(trained.params) if trained.stacked else []
    scores: list[dict[str, float] | None] = []
    parts = []
    for i in clients:
        mine = np.flatnonzero(owner == i)
        # All rows through the one compiled predictor: a size of its own would compile for each.
        out = jax.device_get(predict(models[i], rows.x)) if shared is None else shared
        said, own = jax.tree.map(lambda leaf, mine=mine: np.asarray(leaf)[mine], (out, rows))
        scores.append(_score(said, own, spec) if len(mine) else None)
        parts.append((said, own))
    names = sorted({name for s in scores if s is not None for name in s})
    each = {name: [None if s is None else s.get(name) for s in scores] for name in names}
    means = {
        name: float(np.mean([v for v in values if v is not None])) for name, values in each.items()
    }
    pooled = None
    if np.any(owner >= 0):
        said, own = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
        pooled = _result(trained, said, own, None).summary
    return {"mean": means, "clients": each, "pooled": pooled}


def _spread(results: list[Result], spec: table.Spec) -> tuple[str, np.ndarray]:
    """The figure by which clients' own models are compared, and its values."""
    if len(spec.label_names) > 1:
        return "macro_f1", np.array([r.summary["macro_f1"] for r in results])
    service = spec.services[0]
    scores = [r.summary[service.scale][service.key] for r in results]
    return "skill_over_mean", np.array([s["skill_over_mean"] for s in scores])


def _classes(trained: model.Model, probability: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    """Class figures, and those of the commonest class; None where there is one class only."""
    names = trained.spec.label_names
    benign = names.index(trained.spec.benign)
    summary = metrics.classification(probability, label, benign=benign, names=names)
    majority = int(np.argmax(trained.label_counts))
    constant = np.eye(len(names))[np.full(len(label), majority)]
    baseline = metrics.classification(constant, label, benign=benign)
    summary["majority_class"] = {k: baseline[k] for k in ("accuracy", "macro_f1")}
    if len(names) > 1:
        return summary
    return {
        **dict.fromkeys(summary),
        "majority_class": dict.fromkeys(summary["majority_class"]),
        "one_class": f"all rows are of class {names[0]!r}: there is nothing to tell apart",
    }


def _result(
    trained: model.Model,
    out: dict[str, Any],
    rows: Examples,
    half_width: np.ndarray | None,
    owner: np.ndarray | None = None,
) -> Result:
    probability, mos = outputs.probabilities(out)
    spec = trained.spec
    label = np.asarray(rows.label)
    summary: dict[str, Any] = {"rows": len(label), **_classes(trained, probability, label)}
    summary["unseen"] = _unseen(trained, probability, label) or None
    fitted = trained.calibration
    summary["uncertainty"] = fitted and coverage.judge(fitted, spec, out, rows, owner)
    services = len(spec.services)
    mask = np.asarray(rows.mos_mask)[:, :services]
    true, mean, mos = (
        outputs.from_head(spec, np.asarray(scores)[..., :services])
        for scores in (rows.mos, trained.mos_mean, mos)
    )
    for scale in (table.MOS, table.QOME):
        summary[scale] = {
            service.key: _scores(spec, q, mos, true, mask, mean, half_width)
            for q, service in enumerate(spec.services)
            if service.scale == scale and mask[:, q].any()
        } or None
    return Result(summary, label, probability, true, mask, mos)


def _unseen(trained: model.Model, probability: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    """Attacks that no training row showed: how many of their rows are taken for some attack."""
    names = trained.spec.label_names
    benign = names.index(trained.spec.benign)
    alarm = probability.argmax(-1) != benign
    unseen = np.flatnonzero(np.asarray(trained.label_counts) == 0)
    return {
        names[c]: {"rows": int(own.sum()), "taken_for_an_attack": float(alarm[own].mean())}
        for c in unseen
        if c != benign and (own := label == c).any()
    }


def _scores(
    spec: table.Spec,
    q: int,
    predicted: np.ndarray,
    true: np.ndarray,
    mask: np.ndarray,
    mean: np.ndarray,
    half_width: np.ndarray | None = None,
) -> dict[str, Any]:
    """P.1401 figures of service ``q``.

    ``skill`` is over persistence, the same service's score now, on the ``skill_rows`` rows that
    have one. ``skill_over_mean`` is 0 for the training rows' mean score, whose own error is
    ``rmse_of_mean``. ``on_source_scale`` has the errors in the points of the scale that people
    used, where that is not 1 to 5.
    """
    now = table.persistence(spec)[q]
    rated = mask[:, q]
    target, forecast = true[rated, q], predicted[rated, q]
    constant = np.full(len(target), mean[q])
    width = None if half_width is None else half_width[rated]
    figures = metrics.mos(forecast, target, half_width=width) | {
        "skill_over_mean": scales.skill(target, forecast, constant),
        "rmse_of_mean": scales.rmse(target, constant) if len(target) > 1 else None,
    }
    if now is not None and (known := mask[rated, now]).any():
        paired = metrics.mos(forecast[known], target[known], reference=true[rated, now][known])
        figures["missing"].pop("skill", None)
        figures["missing"] |= {k: why for k, why in paired["missing"].items() if k == "skill"}
        figures |= {"skill": paired["skill"], "skill_rows": paired["n"]}
    if spec.human and (ends := ratings.scale(spec)) != (scales.LOW, scales.HIGH):
        stretch = (ends[1] - ends[0]) / (scales.HIGH - scales.LOW)
        errors = {k: figures[k] and figures[k] * stretch for k in ("rmse", "mae", "rmse_of_mean")}
        figures["on_source_scale"] = {"low": ends[0], "high": ends[1], **errors}
    return figures


def split_rows(trained: model.Model) -> tuple[Examples, np.ndarray | None]:
    """The test split of the model's own dataset, cleaned and scaled; its scores' half widths."""
    rows = tables.held_out(build.from_plain(trained.config))
    width = ratings.half_width(trained.spec, rows)
    return build.examples(trained.spec, trained.stats, rows), width


def on_test_split(trained: model.Model) -> Result:
    """All metrics on the test split of the model's own dataset."""
    rows = tables.held_out(build.from_plain(trained.config))
    fitted, width = trained.calibration, ratings.half_width(trained.spec, rows)
    owner = None if fitted is None else calibration.owner(fitted, rows.group)
    examples = build.examples(trained.spec, trained.stats, rows)
    return evaluate_model(trained, examples, width, owner=owner)


def other_rows(trained: model.Model, dataset: str, data_dir: str = "") -> Examples:
    """The test split of another dataset, for a model of the shared view.

    Raises:
      RunError: the model is of another view.
      DataError: the dataset is not prepared, or lacks what the model sees.
    """
    config = build.from_plain(trained.config)
    other = tables.other_rows(config, trained.spec, dataset, data_dir)
    return build.examples(trained.spec, trained.stats, other)


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
    if trained.config["data"].get("view"):
        raise RunError("a model of the shared view reads no raw files: expected no --input")
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

    Where people rated, all rows count, and those without a score only as rows.

    Raises:
      RunError: another dataset than the model's, no labels or scores, or an unreadable file.
    """
    if dataset != trained.spec.dataset:
        raise RunError(
            f"--dataset={dataset}, but this model was trained on {trained.spec.dataset}: "
            "expected the same dataset and config"
        )
    rows, report, _ = raw_rows(trained, path)
    if trained.spec.human:
        return _evaluate_rated(trained, rows, report)
    labelled = rows.label >= 0
    if not labelled.any():
        raise RunError(f"input {path} has no label column or no known label; predict needs none")
    rows = table.take(rows, np.flatnonzero(labelled))
    keep, _ = tables.clean(build.from_plain(trained.config), trained.spec, rows)
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


def _evaluate_rated(
    trained: model.Model, rows: table.Table, report: dict[str, Any]
) -> dict[str, Any]:
    """As ``evaluate_file``; RMSE* is there only where the file has the interval's column."""
    if not rows.mos_mask.any():
        raise RunError(f"input {report['path']} has no score in any row; predict needs none")
    width = ratings.half_width(trained.spec, rows)
    if trained.spec.interval in report["absent_columns"]:
        width = None
    examples = build.examples(trained.spec, trained.stats, rows)
    result = _judge(trained, _outputs(trained, examples), examples, width)
    return {"input": report["path"], "read": report, **result.summary}
