"""Forecasts of experience: against persistence, boosting and a GRU, and against people's scores."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qoejax.data import load, rated, table
from qoejax.data.table import MOS
from qoejax.run import build, plots, subjects
from qoejax.run.baselines import Said
from qoejax.run.studies import draw, fits, pairs
from qoejax.run.studies.pairs import Gap
from qoejax.run.study import FAILS, HOLDS, Context, Outcome, once, scaled

NAMES = {"qoenet": "hybrid", "boosting_ahead": "histogram boosting", "gru": "GRU"}
HUMAN = "human_qoe/"
MARGIN = 0.02
"""Of PLCC, by which people's scores may be forecast worse than by boosting."""

FOLDS = 5


def judge(
    skills: Mapping[int, float], boosting: Gap, people: Mapping[str, float]
) -> tuple[str, str]:
    """Skill above 0 at every horizon, error below boosting's, people's scores within the margin.

    Args:
      skills: Over persistence, by horizon in seconds.
      boosting: Its RMSE minus the hybrid's.
      people: PLCC minus boosting's, by dataset; empty where none is prepared.
    """
    worst = min(skills, key=skills.__getitem__)
    behind = [name for name, gap in people.items() if gap < -MARGIN]
    ahead = ", ".join(f"{gap:+.3f} on {name}" for name, gap in people.items())
    parts = [
        f"least skill {skills[worst]:+.3f} at {worst} s",
        f"RMSE of boosting minus the hybrid's {pairs.text(boosting)}",
        f"PLCC of people's scores over boosting's: {ahead}" if people
        else "no people's scores are prepared",
    ]  # fmt: skip
    passed = skills[worst] > 0 and boosting.above and not behind
    return HOLDS if passed else FAILS, "; ".join(parts)


def study(context: Context) -> Outcome:
    """See ``claims.CLAIMS``."""
    task = fits.task(context, fits.SIMULATED)
    spec = task.data.spec
    fits.ahead(context, task, [(name, context.seeds, {}) for name in NAMES])
    said = {name: fits.all_seeds(context, task, name) for name in NAMES}
    ahead = fits.services(spec)
    rows = [_row(task, name, each, ahead) for name, each in said.items()]
    rows.append(_persistence(context, task, ahead))
    horizons = sorted({spec.services[q].horizon_s or 0 for q in ahead})
    skills = {h: pairs.spread(pairs.skill(_at(spec, h)), task, said["qoenet"])[0] for h in horizons}
    boosting = pairs.gap(pairs.rmse(ahead), task, said["boosting_ahead"], said["qoenet"])
    people = {}
    for name in fits.prepared(context):
        if name.startswith(HUMAN):
            found = _people(context, name)
            people[name] = found["gap"]["value"]
            rows += found["rows"]
    plots.save(draw.by_horizon(_curves(task, said, horizons)), context.folder / "horizons.png")
    return Outcome(*judge(skills, boosting, people), rows, ["horizons.png"])


def _at(spec: table.Spec, horizon: int) -> list[int]:
    return [q for q in fits.services(spec, 1) if spec.services[q].horizon_s == horizon]


def _row(task: fits.Task, name: str, seeds: Sequence[Said], ahead: list[int]) -> dict[str, Any]:
    rated_by_people = fits.services(task.data.spec, scale=MOS)
    return {
        "dataset": task.name, "model": name,
        "RMSE": pairs.spread(pairs.rmse(ahead), task, seeds),
        "RMSE*": pairs.spread(pairs.rmse_star(rated_by_people), task, seeds),
        "PLCC": pairs.spread(pairs.plcc(ahead), task, seeds),
        "skill": pairs.spread(pairs.skill(ahead), task, seeds),
    }  # fmt: skip


def _persistence(context: Context, task: fits.Task, ahead: list[int]) -> dict[str, Any]:
    said = fits.said(context, task, "persistence", 0)
    return _row(task, "persistence", [said], ahead)


def _curves(
    task: fits.Task, said: Mapping[str, Sequence[Said]], horizons: Sequence[int]
) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, figure in (("RMSE", pairs.rmse), ("PLCC", pairs.plcc), ("skill", pairs.skill)):
        out[key] = {}
        for name, seeds in said.items():
            each = [pairs.spread(figure(_at(task.data.spec, h)), task, seeds) for h in horizons]
            out[key][NAMES[name]] = (horizons, [e[0] for e in each], [e[1] for e in each])
    return out


def _people(context: Context, name: str) -> dict[str, Any]:
    """Rows of the hybrid's head and of boosting on people's scores, and their gap in PLCC."""
    config = fits.config(context, name)
    # These are a few hundred rows: rounds are what there is to save.
    config.fed.rounds = scaled(context.scale, config.fed.rounds, fits.LEAST_ROUNDS)
    work = {"people": name, "seeds": context.seeds, "config": build.plain_config(config)}

    def compute() -> dict[str, Any]:
        built = load.builder(name, context.data_dir or None)
        spec, train = load.table(built, "train")
        both = table.concatenate([train, load.table(built, "test")[1]])
        parts, order = [], []
        for fit, ask in subjects.folds(both.group, FOLDS):
            sides = table.take(both, fit), table.take(both, ask)
            ours = subjects.ours(config, spec, *sides, context.seeds)
            parts.append({"ours": ours, **subjects.trees(spec, *sides)})
            order.append(ask)
        rows = table.take(both, np.concatenate(order))
        forecasts = {k: np.concatenate([p[k] for p in parts], 1) for k in parts[0]}
        true = rows.mos[:, 0].astype(np.float64)
        half = rated.half_width(spec, rows)
        gaps = subjects.differences(forecasts, true, rows.group, half, 1000)
        one = np.ones((1, len(true)))
        figures = {
            k: [{f: float(v[0]) for f, v in subjects.weighted(one, true, p, half).items()}
                for p in each]
            for k, each in forecasts.items()
        }  # fmt: skip
        return {"gap": gaps["hgb"]["plcc"], "figures": figures}

    kept = once(context.folder, work, compute)
    rows = []
    for model, each in kept["figures"].items():
        row: dict[str, Any] = {"dataset": name, "model": model}
        for key, label in (("rmse", "RMSE"), ("rmse_star", "RMSE*"), ("plcc", "PLCC")):
            if key in each[0]:
                row[label] = list(pairs.baselines.interval([one[key] for one in each]))
        rows.append(row)
    return {"gap": kept["gap"], "rows": rows}
