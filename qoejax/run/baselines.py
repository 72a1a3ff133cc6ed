"""The hybrid and what it is compared with, each tuned with the same number of trials.

A contender is tuned on a part of the training rows that is kept from it, fitted again on all of
them once a seed, and only then judged on the test rows. All see the same features. Nets are trained
centrally by the update that the variant ``centralised`` trains with.
"""

import functools
import inspect
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Int

from qoejax.data import table
from qoejax.fed.evaluate import make_evaluator
from qoejax.objectives import metrics
from qoejax.qoe import scales
from qoejax.run import algorithm, build, estimators, outputs, participate, tables
from qoejax.run.choices import choose
from qoejax.run.errors import RunError
from qoejax.run.estimators import Draw, log_uniform, one_of
from qoejax.run.study import student as interval
from qoejax.types import Cohort, Examples

TASKS = ("class", "mos")


class Said(NamedTuple):
    """What a contender says of N rows; None of a task that is not its own."""

    probability: np.ndarray | None  # [N, C]
    mos: np.ndarray | None  # [N, Q], in the head's range


class Problem(NamedTuple):
    """What is learned from, and how."""

    config: ml_collections.ConfigDict
    spec: table.Spec
    rows: Examples


Predict = Callable[[Examples], Said]


class Contender(NamedTuple):
    """``fit(problem, settings, seed) -> predict``, and what a trial draws of the settings.

    ``seeded(settings)`` says whether fits with other seeds may differ.
    """

    fit: Callable[[Problem, Mapping[str, Any], int], Predict]
    space: Mapping[str, Draw]
    seeded: Callable[[Mapping[str, Any]], bool] = lambda settings: True


def _fit_net(
    problem: Problem,
    settings: Mapping[str, Any],
    seed: int,
    *,
    model: Mapping[str, Any],
    tasks: Sequence[str] = TASKS,
    records: int = 0,
    half: bool = False,
) -> Predict:
    """A net; ``settings`` are keys of the config, ``tasks`` what it is trained for.

    It sees the last ``records`` of each window, or all with 0. With ``half`` it has about half its
    parameters.
    """
    config = build.from_plain(build.plain_config(problem.config))
    own = dict(config.model) if config.model.net == model["net"] else {}
    config.model = {**own, **model}
    config.update_from_flattened_dict(settings)
    if half:
        config.model.update(narrow(dict(config.model)))
    rows = problem.rows._replace(x=problem.rows.x[:, -records:])  # -0 is the first: all
    counts = np.bincount(rows.label, minlength=len(problem.spec.label_names))
    if "class" not in tasks:
        rows = rows._replace(label=np.full_like(rows.label, -1))
    if "mos" not in tasks:
        config.loss.mos_weight = 0.0
    objective = build.objective(config, problem.spec, counts)
    params = train_net(config, objective, rows, seed)
    predictor = make_evaluator(objective.predict, config.evaluation.batch)

    def predict(rows: Examples) -> Said:
        out = jax.device_get(predictor(params, jnp.asarray(rows.x[:, -records:])))
        probability, mos = outputs.probabilities(out)
        return Said(probability if "class" in tasks else None, mos if "mos" in tasks else None)

    return predict


def narrow(model: Mapping[str, Any]) -> dict[str, int]:
    """Sizes by which the hybrid ``model`` has about half its parameters, as multiples of heads."""
    defaults = inspect.signature(build.NETS["qoenet"]).parameters
    full = {key: defaults[key].default for key in ("heads", "width", "mlp", "hidden")}
    full |= {key: size for key, size in model.items() if key in full}
    step = 2 * full.pop("heads")
    return {key: max(1, round(size / math.sqrt(2) / step)) * step for key, size in full.items()}


def train_net(config: ml_collections.ConfigDict, objective: Any, rows: Examples, seed: int) -> Any:
    """Parameters after ``fed.rounds`` rounds of one client that holds all rows."""
    config = build.from_plain(build.plain_config(config))
    config.fed.algorithm = "centralised"
    update = algorithm.client_update(config, objective.loss_fn)
    schedule, key = algorithm.schedule(config), jax.random.key(seed)
    count = np.array([len(rows.label)])
    staged = jax.tree.map(lambda leaf: jnp.asarray(_rounded_up(leaf)), rows)
    steps = int(participate.local_steps(config, count)[0])
    none, rows_held, work = (jnp.int32(v) for v in (0, count[0], steps))
    client = Cohort(none, none, rows_held, work, jnp.float32(1))

    # Donated and compiled once, for every seed: rows, key and the rate of a round are traced.
    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def a_round(params: Any, state: Any, rows: Examples, key: jax.Array, number: Any) -> Any:
        own = jax.random.fold_in(key, number)
        delta, state, _ = update.update(params, state, rows, client, own, schedule(number))
        return jax.tree.map(jnp.add, params, delta), state

    params = objective.init(jax.random.fold_in(key, config.fed.rounds), staged.x[:1])
    state = update.init(params)
    for number in range(config.fed.rounds):
        params, state = a_round(params, state, staged, key, jnp.int32(number))
    return jax.block_until_ready(params)


def _rounded_up(leaf: np.ndarray) -> np.ndarray:
    """Rows, and zeros up to a power of two: parts of a dataset share a compiled program."""
    more = (1 << (len(leaf) - 1).bit_length()) - len(leaf)
    return np.concatenate([leaf, np.zeros((more, *leaf.shape[1:]), leaf.dtype)])


def _fit_classifier(
    problem: Problem, settings: Mapping[str, Any], seed: int, *, name: str
) -> Predict:
    classes = len(problem.spec.label_names)
    which = estimators.CLASSIFIERS[name]
    probability = estimators.classifier(which, problem.rows, classes, settings, seed)
    return lambda rows: Said(probability(rows), None)


def _fit_regressors(
    problem: Problem, settings: Mapping[str, Any], seed: int, *, name: str
) -> Predict:
    mos = estimators.regressors(estimators.REGRESSORS[name], problem.rows, settings, seed)
    return lambda rows: Said(None, mos(rows))


def _fit_persistence(problem: Problem, settings: Mapping[str, Any], seed: int) -> Predict:
    """The true score now, which no passive observer has; a service without one is NaN."""
    del settings, seed
    now = table.persistence(problem.spec)

    def predict(rows: Examples) -> Said:
        none = np.full(len(rows.label), np.nan)
        columns = [none if q is None else np.asarray(rows.mos)[:, q] for q in now]
        return Said(None, np.stack(columns, axis=1) if columns else None)

    return predict


TRAINING: dict[str, Draw] = {
    "client.lr": log_uniform(1e-3, 1e-2),
    "client.weight_decay": one_of(0.01, 0.1, 0.3),
    "model.dropout": one_of(0.0, 0.1, 0.3),
    "loss.class_weight": one_of("none", "sqrt"),
    "loss.label_smoothing": one_of(0.0, 0.1),
}
"""What a trial of a net draws, beside its own sizes."""

WIDE: dict[str, Draw] = {"model.width": one_of(64, 128, 256), "model.depth": one_of(1, 2, 3)}
ATTENDING: dict[str, Draw] = {"model.width": one_of(32, 64), "model.depth": one_of(1, 2)}
HYBRID: dict[str, Draw] = {
    "model.embed": one_of("piecewise", "periodic"), "model.members": one_of(1, 8, 16)
}  # fmt: skip

NETS: dict[str, tuple[dict[str, Any], dict[str, Draw]]] = {
    "qoenet": ({"net": "qoenet"}, HYBRID),
    "qoenet_no_convolution": ({"net": "qoenet", "stem": "tokens", "pool": "mean"}, HYBRID),
    "qoenet_no_attention": ({"net": "qoenet", "depth": 0}, HYBRID),
    "linear": ({"net": "linear"}, {}),
    "mlp": ({"net": "mlp"}, WIDE | {"model.embed": one_of("none", "piecewise", "periodic")}),
    "tabm": ({"net": "tabm"}, WIDE | {"model.embed": one_of("piecewise", "periodic")}),
    "cnn": ({"net": "cnn"}, {"model.hidden": one_of(64, 128)}),
    "gru": ({"net": "gru"}, {"model.hidden": one_of(32, 64, 128)}),
    "lstm": ({"net": "lstm"}, {"model.hidden": one_of(32, 64, 128)}),
    "cnn_lstm": ({"net": "cnn_lstm"}, {"model.hidden": one_of(32, 64, 128)}),
    "transformer": ({"net": "transformer"}, ATTENDING),
    "ft_transformer": ({"net": "ft_transformer"}, ATTENDING),
}
"""Keys of ``config.model`` that make a net, and what a trial draws of its own."""


def _net(name: str, **options: Any) -> Contender:
    model, own = NETS[name]
    space = {
        key: draw for key, draw in TRAINING.items() if name != "linear" or key != "model.dropout"
    }
    return Contender(functools.partial(_fit_net, model=model, **options), space | own)


def _fit_separate(
    problem: Problem, settings: Mapping[str, Any], seed: int, *, half: bool = False
) -> Predict:
    """Two single-task twins, which a decision would join by the product of what they say."""
    fit = functools.partial(_fit_net, problem, settings, seed, model={"net": "qoenet"}, half=half)
    one, other = (fit(tasks=(task,)) for task in TASKS)
    return lambda rows: Said(one(rows).probability, other(rows).mos)


CONTENDERS: dict[str, Contender] = {
    **{name: _net(name) for name in NETS},
    "qoenet_class_only": _net("qoenet", tasks=("class",)),
    "qoenet_mos_only": _net("qoenet", tasks=("mos",)),
    "qoenet_last_record": _net("qoenet", records=1),
    "qoenet_separate": Contender(_fit_separate, TRAINING | HYBRID),
    "qoenet_separate_half": Contender(
        functools.partial(_fit_separate, half=True), TRAINING | HYBRID
    ),
    **{
        name: Contender(functools.partial(_fit_classifier, name=name), one.space, one.seeded)
        for name, one in estimators.CLASSIFIERS.items()
    },
    **{
        name: Contender(functools.partial(_fit_regressors, name=name), one.space)
        for name, one in estimators.REGRESSORS.items()
    },
    "persistence": Contender(_fit_persistence, {}, lambda settings: False),
}
"""By name."""


def judge(said: Said, rows: Examples, spec: table.Spec) -> dict[str, float]:
    """Macro-F1 and accuracy; by service RMSE, PLCC, and skill over persistence if there is one."""
    out: dict[str, float] = {}
    if said.probability is not None:
        benign = spec.label_names.index(spec.benign)
        found = metrics.classification(said.probability, rows.label, benign=benign)
        out |= {key: found[key] for key in ("macro_f1", "accuracy")}
    if said.mos is None:
        return out
    for q, (service, now) in enumerate(zip(spec.services, table.persistence(spec), strict=True)):
        rated = rows.mos_mask[:, q] & np.isfinite(said.mos[:, q])
        if rated.sum() < 3:
            continue
        true, mos = rows.mos[rated, q], said.mos[rated, q]
        out[f"rmse/{service.key}"] = float(np.sqrt(np.mean(np.square(true - mos))))
        out[f"r2/{service.key}"] = scales.skill(true, mos, np.full(len(true), true.mean()))
        if now is not None:
            out[f"skill/{service.key}"] = scales.skill(true, mos, rows.mos[rated, now])
    return out


def value(scores: Mapping[str, float]) -> float:
    """What tuning maximises: macro-F1 and the services' mean R2, those that are there, added."""
    r2 = [score for key, score in scores.items() if key.startswith("r2/")]
    return scores.get("macro_f1", 0.0) + (float(np.mean(r2)) if r2 else 0.0)


def tuned(
    contender: Contender, problem: Problem, trials: int, share: float, seed: int
) -> tuple[dict[str, Any], float]:
    """The settings of the best of ``trials`` on a ``share`` of the training rows, and its value.

    The first trial is the contender as it is: of nets, as the config has it. Where it is the only
    one there is nothing to choose, and the value is NaN.
    """
    if not contender.space or trials == 1:
        return {}, float("nan")
    count = round(share * len(problem.rows.label))
    order = np.random.default_rng((seed, 5)).permutation(len(problem.rows.label))
    judged, fitted = (
        jax.tree.map(lambda leaf, part=part: leaf[np.sort(part)], problem.rows)
        for part in (order[:count], order[count:])
    )
    rng, results = np.random.default_rng((seed, 6)), []
    for trial in range(trials):
        settings = {key: draw(rng) for key, draw in contender.space.items()} if trial else {}
        predict = contender.fit(problem._replace(rows=fitted), settings, seed)
        results.append((value(judge(predict(judged), judged, problem.spec)), settings))
    best, settings = max(results, key=lambda result: result[0])
    return settings, best


def cross_validated(
    contender: Contender, problem: Problem, settings: Mapping[str, Any], folds: int, seed: int
) -> dict[str, float]:
    """Mean figures over folds of the training rows, each judged by a fit on the others.

    Folds are stratified, and the same for every contender; ``seed`` draws them and fits.
    """
    fold = folds_of(problem.rows.label, folds, np.random.default_rng((seed, 8)))
    scores = []
    for f in range(folds):
        fitted, judged = (
            jax.tree.map(lambda leaf, part=part: leaf[part], problem.rows)
            for part in (fold != f, fold == f)
        )
        predict = contender.fit(problem._replace(rows=fitted), settings, seed)
        scores.append(judge(predict(judged), judged, problem.spec))
    return {key: float(np.mean([s[key] for s in scores])) for key in scores[0]}


def folds_of(
    label: Int[np.ndarray, " N"], folds: int, rng: np.random.Generator
) -> Int[np.ndarray, " N"]:
    """A fold for each row, at random, of equal sizes and with equal shares of each class."""
    order = rng.permutation(len(label))
    order = order[np.argsort(label[order], kind="stable")]
    fold = np.empty(len(label), np.int64)
    fold[order] = np.arange(len(label)) % folds
    return fold


def compare(
    config: ml_collections.ConfigDict,
    names: Sequence[str],
    *,
    trials: int,
    seeds: int,
    share: float = 0.2,
    folds: int = 0,
    report: Callable[[dict[str, Any]], None] = lambda row: None,
) -> list[dict[str, Any]]:
    """One row a contender: its settings, and mean and interval over seeds of each figure.

    Args:
      config: Of the data, and of what trials do not draw.
      names: Of ``CONTENDERS``.
      trials: Settings that each contender tries.
      seeds: Fits on all training rows.
      share: Of the training rows, on which trials are judged.
      folds: If any, figures are means over so many folds of the training rows, other ones for each
        seed; test rows then play no part, so that a config can be chosen by them.
      report: Is given each row as soon as it is there.

    Raises:
      RunError: an unknown name, a bad number, or a library that is not installed.
    """
    if trials < 1 or seeds < 1 or not 0 < share < 1 or folds < 0 or folds == 1:
        raise RunError(
            f"trials {trials}, seeds {seeds}, share {share}, folds {folds}: expected 1 or more "
            "trials and seeds, a share between 0 and 1, and 0 or at least 2 folds"
        )
    chosen = {name: choose(CONTENDERS, name, "contenders") for name in names}
    build.check(config)
    data = build.data(config)
    problem = Problem(config, data.spec, data.train)
    rows = []
    for name, contender in chosen.items():
        start = time.perf_counter()
        settings, best = tuned(contender, problem, trials, share, tables.seed(config))
        middle = time.perf_counter()
        scores = [
            cross_validated(contender, problem, settings, folds, seed)
            if folds
            else judge(contender.fit(problem, settings, seed)(data.test), data.test, data.spec)
            for seed in range(seeds)
        ]
        spent = time.perf_counter() - middle
        figures = {key: interval([s[key] for s in scores]) for key in scores[0]}
        rows.append(
            {"name": name, "settings": settings, "validation": best, "figures": figures,
             "tuning_seconds": middle - start, "fit_seconds": spent / seeds}
        )  # fmt: skip
        report(rows[-1])
    return rows


def markdown(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """The rows as a table, best macro-F1 first, then those without one."""
    keys = list(dict.fromkeys(key for row in rows for key in row["figures"]))
    keys = [key for key in keys if not key.startswith("r2/")]
    order = sorted(rows, key=lambda row: -row["figures"].get("macro_f1", (-1.0, 0.0))[0])
    lines = [f"# {title}", "", f"| contender | {' | '.join(keys)} | s a fit |"]
    lines.append("|---" * (len(keys) + 2) + "|")
    for row in order:
        cells = [
            "–" if key not in row["figures"] else "{:.3f} ± {:.3f}".format(*row["figures"][key])
            for key in keys
        ]
        lines.append(f"| {row['name']} | {' | '.join(cells)} | {row['fit_seconds']:.1f} |")
    return "\n".join([*lines, ""])
