"""Whether a rule that should fail does nearly as well as the hybrid."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from qoejax.data.audit.findings import MARGIN
from qoejax.run import audit, plots
from qoejax.run.studies import draw, fits, pairs
from qoejax.run.study import FAILS, HOLDS, Context, Outcome, once


class Found(NamedTuple):
    """Macro-F1 on a dataset's test rows: the hybrid, rules that should fail, and the floor."""

    hybrid: float
    sentinels: Mapping[str, float]
    shuffled: float  # the hybrid, its training labels permuted
    chance: float

    @property
    def best(self) -> str:
        """The sentinel that does best."""
        return max(self.sentinels, key=self.sentinels.__getitem__)

    @property
    def sound(self) -> bool:
        """All sentinels a margin below the hybrid, and nothing learnt from permuted labels."""
        below = self.hybrid - self.sentinels[self.best] >= MARGIN
        return below and self.shuffled <= self.chance + MARGIN


def judge(found: Mapping[str, Found]) -> tuple[str, str]:
    """Holds if it is sound on every dataset."""
    text = "; ".join(
        f"{name}: hybrid {f.hybrid:.3f}, best sentinel {f.sentinels[f.best]:.3f} ({f.best}), "
        f"labels shuffled {f.shuffled:.3f}, chance {f.chance:.3f}"
        for name, f in found.items()
    )
    return HOLDS if all(f.sound for f in found.values()) else FAILS, text


def study(context: Context) -> Outcome:
    """See ``claims.CLAIMS``."""
    found, rows, shown = {}, [], {}
    for name in fits.prepared(context):
        if name.startswith("human_qoe/"):
            continue
        task = fits.task(context, name)
        found[name] = one = _try(context, task)
        leaks = _leaks(context, task)
        row = {"dataset": name, "hybrid": one.hybrid, **one.sentinels,
               "labels shuffled": one.shuffled, "chance": one.chance, **leaks}  # fmt: skip
        rows.append(row)
        for key in ("hybrid", *one.sentinels, "labels shuffled", "chance"):
            shown[f"{name}: {key}"] = (row[key], 0.0)
    plots.save(draw.bars(shown, "macro-F1"), context.folder / "sentinels.png")
    return Outcome(*judge(found), rows, ["sentinels.png"])


def _try(context: Context, task: fits.Task) -> Found:
    fits.ahead(context, task, [("qoenet", context.seeds, {}), ("qoenet_shuffled", 1, {})])
    hybrid = pairs.spread(pairs.macro_f1, task, fits.all_seeds(context, task, "qoenet"))[0]
    stump = pairs.value(pairs.macro_f1, task, fits.said(context, task, "stump", 0))
    shuffled = pairs.value(pairs.macro_f1, task, fits.said(context, task, "qoenet_shuffled", 0))
    audited = once(context.folder, {"audit": task.config.data.name}, lambda: _audit(context, task))
    sentinels = {"stump": stump, **audited["sentinels"]}
    return Found(hybrid, sentinels, shuffled, audited["chance"])


def _audit(context: Context, task: fits.Task) -> dict[str, Any]:
    """Sentinels of the audit, on all rows of the dataset."""
    scores = audit.of_dataset(task.config.data.name, context.data_dir, "", (), ()).scores
    if scores is None:
        return {"sentinels": {}, "chance": 0.0}
    column = max(scores.rules, key=lambda rule: rule.best)
    sentinels = {"best column alone": column.best, "nearly equal row": scores.neighbours.twin_score}
    if np.isfinite(scores.grain):
        sentinels["window size"] = scores.grain
    return {"sentinels": sentinels, "chance": scores.chance}


def _leaks(context: Context, task: fits.Task) -> dict[str, float]:
    """What leaky columns would add to a forest's macro-F1, where the dataset has any."""
    leaky = tuple(c.name for c in task.data.spec.columns if c.leaky)
    if not leaky:
        return {}
    scores = []
    for keep in ((), leaky):
        made = fits.task(context, task.name, data={"keep": keep, "features": 0})
        scores.append(pairs.value(pairs.macro_f1, made, fits.said(context, made, "stump", 0)))
        forest = fits.said(context, made, "random_forest", 0)
        scores.append(pairs.value(pairs.macro_f1, made, forest))
    return {"leaky columns add, stump": scores[2] - scores[0],
            "leaky columns add, forest": scores[3] - scores[1]}  # fmt: skip
