"""Attacks and sites that were not trained on: the hybrid beside gradient boosting."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from qoejax.objectives import metrics
from qoejax.run import plots
from qoejax.run.baselines import Said
from qoejax.run.studies import draw, fits
from qoejax.run.studies.fits import SIMULATED, Task
from qoejax.run.study import FAILS, HOLDS, Context, Outcome, over_seeds, scaled

BOOSTING = "lightgbm"
CAPACITY = "unseen capacity"
LEAST, MOST = 2, 4
SEEDS = 2
"""What is averaged over are hold-outs; two fits of each are enough."""


class Two(NamedTuple):
    """A hold-out's false positive rate at 95 % recall and macro-F1, attack against benign."""

    fpr: float
    f1: float


def judge(ours: Mapping[str, Two], theirs: Mapping[str, Two]) -> tuple[str, str]:
    """Not worse than boosting in either figure, on average over hold-outs."""
    fpr = over_seeds([theirs[k].fpr - ours[k].fpr for k in ours])
    f1 = over_seeds([ours[k].f1 - theirs[k].f1 for k in ours])
    text = (
        f"over {len(ours)} hold-outs: false positive rate at 95 % recall lower by {fpr[0]:+.3f} "
        f"({fpr[1]:+.3f} to {fpr[2]:+.3f}), macro-F1 higher by {f1[0]:+.3f} ({f1[1]:+.3f} to "
        f"{f1[2]:+.3f})"
    )
    return HOLDS if fpr[0] >= 0 and f1[0] >= 0 else FAILS, text


def study(context: Context) -> Outcome:
    """See ``claims.CLAIMS``."""
    few = context._replace(seeds=min(SEEDS, context.seeds), scale=context.scale / 2)
    ours, theirs, rows = {}, {}, []
    for name in chosen(context, _attacks(context)):
        task = _task(few, name)
        each = {}
        fits.ahead(few, task, [(model, few.seeds, {}) for model in ("qoenet", BOOSTING)])
        for model in ("qoenet", BOOSTING):
            said = fits.all_seeds(few, task, model)
            each[model] = Two(*np.mean([_figures(task, name, s) for s in said], axis=0))
        ours[name], theirs[name] = each["qoenet"], each[BOOSTING]
        rows.append(
            {"held out": name,
             **{f"{model}: {k}": float(getattr(two, f)) for model, two in each.items()
                for f, k in (("fpr", "FPR at 95 % recall"), ("f1", "macro-F1"))}}
        )  # fmt: skip
    shown = {
        f"{name}: {model}": (two[name].fpr, 0.0)
        for name in ours
        for model, two in (("hybrid", ours), (BOOSTING, theirs))
    }
    figure = draw.bars(shown, "false positive rate at 95 % recall, attack held out")
    plots.save(figure, context.folder / "holdouts.png")
    return Outcome(*judge(ours, theirs), rows, ["holdouts.png"])


def chosen(context: Context, attacks: Sequence[str]) -> list[str]:
    """As many hold-outs as the scale pays for, new sites second."""
    names = [attacks[0], CAPACITY, *attacks[1:]]
    return names[: scaled(context.scale, MOST, LEAST)]


def _attacks(context: Context) -> list[str]:
    spec = fits.task(context, SIMULATED).data.spec
    return [name for name in spec.label_names if name != spec.benign]


def _task(context: Context, name: str) -> Task:
    if name == CAPACITY:
        dataset = "simulated_iot/unseen_capacity"
        return fits.task(context, SIMULATED, data={"name": dataset})
    return fits.task(context, SIMULATED, data={"split": "leave_out", "leave_out": (name,)})


def _figures(task: Task, name: str, said: Said) -> tuple[float, float]:
    """FPR at 95 % recall, and macro-F1 of the two, on benign rows and those held out."""
    spec, label = task.data.spec, task.data.test.label
    benign = spec.label_names.index(spec.benign)
    rows = np.ones(len(label), bool)
    if name != CAPACITY:
        rows = np.isin(label, [benign, spec.label_names.index(name)])
    probability = np.asarray(said.probability, np.float64)[rows]
    attack = label[rows] != benign
    found = metrics.rates_at_recall(np.delete(probability, benign, axis=1).sum(1), attack)
    if found is None:
        raise ValueError(f"{name}: no benign row, or no attack, to judge")
    said_attack = probability.argmax(1) != benign
    matrix = np.bincount(2 * attack + said_attack, minlength=4).reshape(2, 2)
    return found[1], metrics.from_confusion(matrix)["macro_f1"]
