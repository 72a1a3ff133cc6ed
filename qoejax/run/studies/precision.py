"""Detection against everything else, each tuned with the same number of trials."""

import importlib.util
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from qoejax.objectives import metrics
from qoejax.run import baselines, estimators, plots
from qoejax.run.baselines import Said
from qoejax.run.studies import draw, fits, pairs
from qoejax.run.studies.fits import Task
from qoejax.run.studies.pairs import Gap
from qoejax.run.study import FAILS, HOLDS, UNTESTED, Context, Outcome, scaled

RIVALS = (
    "lightgbm", "random_forest", "mlp", "gru", "xgboost", "tabm", "transformer", "cnn_lstm",
    "ft_transformer", "cnn", "lstm", "linear",
)  # fmt: skip
"""Less work leaves out the last of these first."""

OVER_TIME = ("gru", "transformer", "cnn_lstm", "lstm")
"""Of a single record they would make a sequence of its features, which have no order."""

LEAST_RIVALS = 4
BEST = 2
"""So many rivals are fitted with every seed: the best in each figure, by the test rows even."""

FEW = 1
"""Seeds of the other rivals."""

FIGURES: tuple[pairs.Figure, ...] = (pairs.macro_f1, pairs.precision_at_recall)
"""In the order of ``Duel``."""

TRIALS = 2
SHARE = 2 / 3


class Duel(NamedTuple):
    """A dataset's best rival in each figure, and what the hybrid is ahead by."""

    f1_rival: str
    f1: Gap
    precision_rival: str
    precision: Gap

    @property
    def won(self) -> bool:
        """Ahead in both, all intervals above 0."""
        return self.f1.above and self.precision.above


def judge(duels: Mapping[str, Duel]) -> tuple[str, str]:
    """Two of three datasets, and two thirds of those compared; one alone cannot show it."""
    won = [name for name, duel in duels.items() if duel.won]
    text = "; ".join(
        f"{name}: macro-F1 over {d.f1_rival} {pairs.text(d.f1)}, precision at recall 0.95 over "
        f"{d.precision_rival} {pairs.text(d.precision)}"
        for name, d in duels.items()
    )
    text = f"ahead on {len(won)} of {len(duels)}. {text}"
    if len(won) < math.ceil(SHARE * len(duels)):
        return FAILS, text
    if len(won) < 2:
        return UNTESTED, f"a win on one dataset is not two of three; {text}"
    return HOLDS, text


def rivals(scale: float, window: int) -> tuple[str, ...]:
    """The contenders that a scale pays for, on windows of so many records."""
    fit = [name for name in RIVALS if window > 1 or name not in OVER_TIME]
    return tuple(fit[: scaled(scale, len(fit), LEAST_RIVALS)])


def trials(scale: float) -> int:
    """Settings that each contender tries; one is the contender as it comes."""
    return scaled(scale, TRIALS)


def study(context: Context) -> Outcome:
    """See ``claims.CLAIMS``."""
    duels, rows = {}, []
    for name in fits.prepared(context):
        if name.startswith("human_qoe/"):
            continue
        duels[name], found = _compare(context, fits.task(context, name))
        rows += found
    found = {
        name: {"macro-F1": duel.f1, "precision at recall 0.95": duel.precision}
        for name, duel in duels.items()
    }
    plots.save(draw.gaps(found, "hybrid ahead of the best"), context.folder / "precision.png")
    return Outcome(*judge(duels), rows, ["precision.png"])


def _compare(context: Context, task: Task) -> tuple[Duel, list[dict[str, Any]]]:
    said, rows = {}, []
    names = ["qoenet", *rivals(context.scale, task.data.spec.window)]
    missing = {name: lacking for name in names if (lacking := _lacking(name))}
    names, count = [name for name in names if name not in missing], trials(context.scale)
    fits.tuned_ahead(context, task, names, count)
    settings = {name: fits.tuned(context, task, name, count) for name in names}
    few = context._replace(seeds=min(FEW, context.seeds))
    fits.ahead(context, task, [(n, few.seeds, settings[n]) for n in names])
    first = {n: fits.all_seeds(few, task, n, settings[n]) for n in names if n != "qoenet"}
    others = best(*(_means(figure, task, first) for figure in FIGURES))
    fits.ahead(context, task, [(n, context.seeds, settings[n]) for n in ("qoenet", *others)])
    for name in names:
        every = name in ("qoenet", *others)
        said[name] = fits.all_seeds(context if every else few, task, name, settings[name])
        rows.append(_row(task, name, said[name], settings[name]))
    for name, lacking in missing.items():
        rows.append({"dataset": task.name, "model": name, "note": f"{lacking} not installed"})
    ahead: list[Any] = []
    for figure in FIGURES:
        mean = _means(figure, task, {name: said[name] for name in others})
        rival = max(mean, key=mean.__getitem__)
        ahead += [rival, pairs.gap(figure, task, said["qoenet"], said[rival])]
    return Duel(*ahead), rows


def _means(
    figure: pairs.Figure, task: Task, said: Mapping[str, Sequence[Said]]
) -> dict[str, float]:
    """A figure over the seeds of each contender."""
    return {name: pairs.spread(figure, task, each)[0] for name, each in said.items()}


def best(*figures: Mapping[str, float]) -> list[str]:
    """The ``BEST`` names by each figure."""
    names = [sorted(each, key=each.__getitem__, reverse=True)[:BEST] for each in figures]
    return list(dict.fromkeys(itertools.chain(*names)))


def _lacking(name: str) -> str:
    """The library that a contender wants and that is not there, or ""."""
    if name not in estimators.CLASSIFIERS:
        return ""
    library = estimators.CLASSIFIERS[name].module.partition(".")[0]
    return "" if importlib.util.find_spec(library) else library


def _row(task: Task, name: str, seeds: list[Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    spec, test = task.data.spec, task.data.test
    benign = spec.label_names.index(spec.benign)
    each = [metrics.classification(s.probability, test.label, benign=benign) for s in seeds]
    row: dict[str, Any] = {"dataset": task.name, "model": name}
    for key, label in (("macro_f1", "macro-F1"), ("precision", "precision"), ("recall", "recall")):
        row[label] = list(baselines.interval([one[key] for one in each]))
    row["precision at recall 0.95"] = pairs.spread(pairs.precision_at_recall, task, seeds)
    ahead = fits.services(spec)
    if ahead and seeds[0].mos is not None:
        row["RMSE"] = pairs.spread(pairs.rmse(ahead), task, seeds)
        row["PLCC"] = pairs.spread(pairs.plcc(ahead), task, seeds)
    return row | {"settings": ", ".join(f"{k} {v}" for k, v in settings.items()) or "as it is"}
