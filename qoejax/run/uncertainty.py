"""The study of uncertainty: coverage by client, calibration, and attacks that nobody has seen.

The hybrid is trained on what clients did not keep back, on the rows of all in one place: federated
training would give another model of the same form, and the calibration is of any model. Pass
condition: for every dataset and seed, the share of test rows that class sets and each service's
interval hold is at least ``conformal.floor``: the level that valid ones fall below by chance once
in a hundred studies, all checks taken together (Bonferroni), a run of neighbouring rows counted as
one. Test rows come from the same sources as those kept back; nothing is promised where they do not,
nor for any one client or class, which are reported.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import scipy.special

from qoejax.data import load
from qoejax.data.errors import DataError
from qoejax.fed.evaluate import make_evaluator
from qoejax.objectives import conformal, metrics, unknown
from qoejax.run import baselines, build, calibrate, estimators, evaluate, model, plots
from qoejax.run.studies import fits
from qoejax.run.study import (
    FAILS,
    HOLDS,
    Context,
    Outcome,
    either,
    once,
    scaled,
    seeds_of,
    side_by_side,
)

ALPHA = 0.1
LEVEL = 0.01
"""Chance that a study of valid sets fails."""
SEEDS = 3
"""Fits at most: each draws other rows to keep back."""
POOR = 0.85
"""Coverage below which a client is counted as poorly served."""


class Setting(NamedTuple):
    """How a dataset is learned here.

    ``together`` are neighbouring rows that depend on each other, of training and of test rows;
    ``attacks`` of its attacks are left out in turn, at most.
    """

    rounds: int
    batch: int
    together: int
    data: Mapping[str, Any]
    clients: Mapping[str, Any]


DATASETS = {
    # Ten windows of an episode, which overlap.
    "simulated_iot/small": Setting(
        8, 128, 10, {"features": 20}, {"partition": "natural", "count": 20}
    ),
    "ton_iot/10class": Setting(
        12, 128, 1, {"max_rows": 12_000}, {"partition": "natural", "count": 20}
    ),
}
"""The first can be simulated anywhere; others take part where they are prepared."""


def study(context: Context) -> Outcome:
    """See the module; resumable, and scaled by seeds, epochs and attacks left out."""
    rows: list[dict[str, Any]] = []
    checks: list[tuple[str, float, int, int]] = []
    figures = []
    for name, setting in DATASETS.items():
        if name not in context.configs or not _there(name, context.data_dir):
            continue
        seeds, attacks = range(seeds_of(context, SEEDS)), _attacks(context, name)
        jobs = [(_coverage, name, setting, seed) for seed in seeds]
        jobs += [(_unseen, name, setting, attack) for attack in attacks]
        side_by_side(context, either, jobs)
        found = [_coverage(context, name, setting, seed) for seed in seeds]
        unseen = {attack: _unseen(context, name, setting, attack) for attack in attacks}
        rows += _rows(name, found, unseen)
        for one in found:
            checks += _checks(name, setting, one)
        path = context.folder / f"coverage-{name.replace('/', '-')}.png"
        plots.save(plots.coverage(found[0], 1 - ALPHA), path)
        figures.append(path.name)
    verdict, reason = judged(checks)
    return Outcome(verdict, f"{reason}; {_clients(rows)}", rows, tuple(figures))


def judged(checks: Sequence[tuple[str, float, int, int]]) -> tuple[str, str]:
    """Verdict and reason of (what, coverage, independent rows kept back, and of the test).

    A coverage may be below 1 - alpha by what chance explains at ``LEVEL`` over all checks.
    """
    level = LEVEL / len(checks)
    short = [
        (what, coverage, floor)
        for what, coverage, kept, test in checks
        if coverage < (floor := conformal.floor(kept, test, ALPHA, level))
    ]
    lowest = min(checks, key=lambda check: check[1])
    reason = (
        f"{len(checks) - len(short)} of {len(checks)} sets and intervals hold at least "
        f"{1 - ALPHA:.0%} of the test rows within chance, the lowest {lowest[0]} with "
        f"{lowest[1]:.3f}"
    )
    if short:
        what, coverage, floor = min(short, key=lambda s: s[1] - s[2])
        return FAILS, f"{reason}; {what} holds {coverage:.3f}, expected {floor:.3f} or more"
    return HOLDS, reason


def _there(name: str, data_dir: str) -> bool:
    """Whether a dataset is prepared, or could be simulated."""
    try:
        load.builder(name, data_dir or None)
    except DataError:
        return False
    return True


def _config(
    name: str, setting: Setting, context: Context, seed: int = 0
) -> ml_collections.ConfigDict:
    """The hybrid, small: what is judged is what it says of its errors, not how few they are."""
    c = fits.config(context, name, data=setting.data, clients=setting.clients)
    c.seed = seed
    c.model.update(width=32, depth=1, mlp=64)
    c.fed.update(algorithm="fedavg", rounds=scaled(context.scale, setting.rounds, 2))
    c.client.update(batch=setting.batch, lr=0.003)
    c.perf.client_axis = "turn"
    c.calibration.update(share=0.2, alpha=ALPHA, method="aps", together=setting.together)
    return c


def _trained(
    config: ml_collections.ConfigDict, data: build.Data, population: build.Population
) -> tuple[model.Model, Any]:
    """A model of the rows that were not kept back, and its predictor."""
    counts = np.bincount(data.train.label, minlength=len(data.spec.label_names))
    objective = build.objective(config, data.spec, counts)
    params = baselines.train_net(config, objective, population.examples, config.seed)
    trained = model.Model(
        data.spec, data.stats, build.plain_config(config), counts, build.mos_mean(data.train),
        params, False,
    )  # fmt: skip
    return trained, _padded(make_evaluator(objective.predict, config.evaluation.batch))


def _padded(predict: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """``predict`` that is compiled for few numbers of rows, whichever attack is left out."""

    def run(params: Any, x: np.ndarray) -> Any:
        fill = [(0, -len(x) % 4096), *[(0, 0)] * (x.ndim - 1)]
        out = jax.device_get(predict(params, jnp.asarray(np.pad(x, fill))))
        return jax.tree.map(lambda leaf: leaf[: len(x)], out)

    return run


def _coverage(context: Context, name: str, setting: Setting, seed: int) -> dict[str, Any]:
    """Figures of one fit: those of ``coverage.judge``, macro-F1, and the reliability curve."""
    config = _config(name, setting, context, seed)
    work = {"study": "coverage", "config": build.plain_config(config) | {"data": _named(config)}}

    def compute() -> dict[str, Any]:
        data = build.data(config)
        population = build.population(config, data)
        trained, predict = _trained(config, data, population)
        natural = config.clients.partition == "natural"
        trained = calibrate.of_run(trained, population, data, predict)
        owner = build.owners(population, data) if natural else None
        said = predict(trained.params, data.test.x)
        result = evaluate.evaluate_model(
            trained, data.test, predict=lambda params, x: said, owner=owner
        )
        found, logits = result.summary["uncertainty"], said["logits"]
        curves = [_curve(logits / t, data.test.label) for t in (1.0, found["temperature"])]
        return found | {"macro_f1": result.summary["macro_f1"], "curves": curves}

    return once(context.folder / "work", work, compute)


def _curve(logits: np.ndarray, label: np.ndarray, bins: int = 10) -> list[list[float]]:
    """Mean confidence, accuracy and rows of each bin of confidence that has rows."""
    probability = scipy.special.softmax(logits, axis=1)
    confidence, right = probability.max(1), probability.argmax(1) == label
    cell = np.minimum((confidence * bins).astype(int), bins - 1)
    own = [cell == i for i in range(bins)]
    return [
        [float(confidence[i].mean()), float(right[i].mean()), float(i.sum())]
        for i in own
        if i.any()
    ]


def _named(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Data of a unit of work, wherever they lie."""
    return {k: v for k, v in build.plain_config(config)["data"].items() if "dir" not in k}


def _checks(
    name: str, setting: Setting, found: Mapping[str, Any]
) -> list[tuple[str, float, int, int]]:
    """What must be covered, and how many runs of rows speak for it."""
    kept = found["rows"][1] // setting.together
    whole = {"classes": found["sets"], **(found["intervals"] or {})}
    return [
        (f"{what} of {name}", one["coverage"], kept, one["rows"] // setting.together)
        for what, one in whole.items()
    ]


def _attacks(context: Context, name: str) -> list[str]:
    """Those that are left out in turn."""
    spec, _ = load.table(load.builder(name, context.data_dir or None), "test")
    attacks = [label for label in spec.label_names if label != spec.benign]
    return attacks[: scaled(context.scale, len(attacks))]


def _unseen(context: Context, name: str, setting: Setting, attack: str) -> dict[str, float]:
    """AUROC of each score of each contender, of an attack that was left out; kept."""
    config = _config(name, setting, context)
    config.data.split, config.data.leave_out = "leave_out", (attack,)
    config.calibration.share = 0.0
    work = {"study": "unseen", "config": build.plain_config(config) | {"data": _named(config)}}
    return once(context.folder / "work", work, functools.partial(_rejected, config))


def _rejected(config: ml_collections.ConfigDict) -> dict[str, float]:
    """How well scores part rows of the unseen attack from test rows of known classes."""
    data = build.data(config)
    absent = data.spec.label_names.index(config.data.leave_out[0])
    new = data.test.label == absent
    # As many rows whichever attack is left out, so that one compilation serves all.
    count = min(config.data.max_rows or 10_000, len(data.train.label))
    chosen = np.random.default_rng((config.seed, 13)).permutation(len(data.train.label))[:count]
    rows = jax.tree.map(lambda leaf: leaf[np.sort(chosen)], data.train)
    whole = build.Population(rows, np.zeros(1, np.int32), np.array([count], np.int32), [])
    trained, predict = _trained(config, data, whole)
    logits = predict(trained.params, data.test.x)["logits"]
    trees = estimators.classifier(
        estimators.CLASSIFIERS["lightgbm"], rows, len(data.spec.label_names), {}, config.seed
    )
    with np.errstate(divide="ignore"):
        said = {"hybrid": logits, "lightgbm": np.log(trees(data.test))}
    found = {
        f"{who}/{name}": metrics.auroc(score(z), new)
        for who, z in said.items()
        for name, score in unknown.SCORES.items()
        if (who, name) != ("lightgbm", "energy")  # trees have no logits of their own
    }
    return {name: area for name, area in found.items() if area is not None}


def _rows(
    name: str, found: Sequence[Mapping[str, Any]], unseen: Mapping[str, Mapping[str, float]]
) -> list[dict[str, Any]]:
    """The study's table: one figure a row, mean over seeds or over attacks left out."""

    def row(figure: str, values: Sequence[float], **more: Any) -> dict[str, Any]:
        return {
            "dataset": name, "figure": figure, "mean": float(np.mean(values)),
            "lowest": float(np.min(values)), "highest": float(np.max(values)),
            "width": None, "clients below 0.85": None, "worst client": None, **more,
        }  # fmt: skip

    out = [row("macro-F1", [f["macro_f1"] for f in found])]
    out += [row(f"ECE {when}", [f["ece"][when] for f in found]) for when in ("before", "after")]
    out += [row("temperature", [f["temperature"] for f in found])]
    out += [row("classes in a set", [f["sets"]["size"] for f in found])]
    parts = {"classes": [f["sets"] for f in found]}
    parts |= {k: [f["intervals"][k] for f in found] for k in (found[0]["intervals"] or {})}
    for what, each_fit in parts.items():
        each = [c["coverage"] for f in each_fit for c in (f["clients"] or []) if c is not None]
        more = {"clients below 0.85": f"{np.mean(np.array(each) < POOR):.0%}",
                "worst client": min(each)} if each else {}  # fmt: skip
        if what != "classes":
            more["width"] = float(np.mean([f["width"] for f in each_fit]))
        out.append(row(f"coverage, {what}", [f["coverage"] for f in each_fit], **more))
    for score in next(iter(unseen.values())):
        values = [by[score] for by in unseen.values()]
        out.append(row(f"AUROC of {len(unseen)} unseen attacks, {score}", values))
    return out


def _clients(rows: Sequence[Mapping[str, Any]]) -> str:
    """The sentence on clients, for class sets."""
    said = [
        f"{row['clients below 0.85']} of the clients of {row['dataset']} are below {POOR}, the "
        f"worst has {row['worst client']:.3f}"
        for row in rows
        if row["figure"] == "coverage, classes" and row["worst client"] is not None
    ]
    return "; ".join(said)
