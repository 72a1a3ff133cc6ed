"""One net for both tasks against a net for each: of its size, and of its size in sum."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from qoejax import trees
from qoejax.run import build, plots
from qoejax.run.baselines import Said, narrow
from qoejax.run.studies import draw, fits, pairs
from qoejax.run.studies.fits import Task
from qoejax.run.studies.pairs import Gap, Weighted
from qoejax.run.study import FAILS, HOLDS, Context, Outcome

POINTS, SHARE = 0.005, 0.02
"""What still counts as not worse: of macro-F1, and of RMSE as a share of it."""

WHOLE = 0.25
"""Scale below which twins of the joint net's own size are left out: those half of it, which cost
together what it costs, are the harder pair."""

SEEDS = 3
"""At most: five nets are fitted with each."""

OTHER = {"class": "mos", "mos": "class"}


class Pair(NamedTuple):
    """The joint net against two twins: macro-F1, and logarithm of RMSE (theirs over ours)."""

    f1: Gap
    error: Gap

    @property
    def not_worse(self) -> bool:
        """Both within the margins at the lower ends of the intervals."""
        return self.f1.least >= -POINTS and self.error.least >= -math.log1p(SHARE)

    @property
    def better(self) -> bool:
        """One of the two, all intervals above 0."""
        return self.f1.above or self.error.above


def judge(found: Mapping[str, Pair]) -> tuple[str, str]:
    """Not worse and somewhere better against every pair; no gain is a finding of its own."""
    text = "; ".join(
        f"against {name}: macro-F1 {pairs.text(p.f1)}, log RMSE {pairs.text(p.error)}"
        for name, p in found.items()
    )
    if all(p.not_worse and p.better for p in found.values()):
        return HOLDS, text
    if all(p.not_worse for p in found.values()):
        return FAILS, f"not worse, but no clear gain: {text}"
    return FAILS, text


def study(context: Context) -> Outcome:
    """See ``claims.CLAIMS``."""
    context = context._replace(seeds=min(SEEDS, context.seeds))
    task = fits.task(context, fits.SIMULATED)
    ahead = fits.services(task.data.spec)
    sizes: dict[str, dict[str, Any]] = {"twins of its size": {}, "twins half its size": half(task)}
    if context.scale < WHOLE:
        del sizes["twins of its size"]
    twins = [(f"qoenet_{own}_only", size) for size in sizes.values() for own in OTHER]
    fits.ahead(context, task, [(n, context.seeds, size) for n, size in (("qoenet", {}), *twins)])
    ours = fits.all_seeds(context, task, "qoenet")
    found, rows = {}, [_row(task, "joint", _parameters(task, {}, ""), ours, ours, ahead)]
    for name, size in sizes.items():
        classes = fits.all_seeds(context, task, "qoenet_class_only", size)
        scores = fits.all_seeds(context, task, "qoenet_mos_only", size)
        found[name] = Pair(
            pairs.gap(pairs.macro_f1, task, ours, classes),
            pairs.gap_of(
                [_log_error(s, task, ahead) for s in scores],
                [_log_error(s, task, ahead) for s in ours],
                task.block,
            ),
        )
        count = sum(_parameters(task, size, own) for own in OTHER)
        rows.append(_row(task, name, count, classes, scores, ahead))
    shown = {name: {"macro-F1": p.f1, "log RMSE": p.error} for name, p in found.items()}
    plots.save(draw.gaps(shown, "joint ahead"), context.folder / "joint.png")
    return Outcome(*judge(found), rows, ["joint.png"])


def _row(
    task: Task, name: str, count: int, classes: list[Said], scores: list[Said], ahead: list[int]
) -> dict[str, Any]:
    return {
        "model": name, "parameters": count,
        "macro-F1": pairs.spread(pairs.macro_f1, task, classes),
        "RMSE": pairs.spread(pairs.rmse(ahead), task, scores),
    }  # fmt: skip


def _log_error(said: Said, task: Task, ahead: list[int]) -> Weighted:
    of = pairs.rmse(ahead)(said, task)
    return lambda weights: np.log(of(weights))


def half(task: Task) -> dict[str, int]:
    """Sizes of twins that together have about as many parameters as the joint net."""
    return {f"model.{key}": size for key, size in narrow(dict(task.config.model)).items()}


def _parameters(task: Task, sizes: Mapping[str, int], own: str) -> int:
    """Parameters of the hybrid at these sizes, without the head that is not its ``own`` task's."""
    config = build.from_plain(build.plain_config(task.config))
    config.update_from_flattened_dict(sizes)
    counts = np.bincount(task.data.train.label, minlength=len(task.data.spec.label_names))
    objective = build.objective(config, task.data.spec, counts)
    x = jax.ShapeDtypeStruct((1, *task.data.train.x.shape[1:]), np.float32)
    shapes = jax.eval_shape(objective.init, jax.random.key(0), x)
    gone = f"/heads/{OTHER[own]}/" if own else "\0"
    return sum(int(leaf.size) for name, leaf in trees.named_leaves(shapes) if gone not in name)
