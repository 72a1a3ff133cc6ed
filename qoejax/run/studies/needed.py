"""Whether convolution, attention and the window are needed: each left out in turn."""

from collections.abc import Mapping

from qoejax.run import plots
from qoejax.run.studies import draw, fits, pairs
from qoejax.run.studies.pairs import Gap
from qoejax.run.study import FAILS, HOLDS, Context, Outcome, scaled

ABLATIONS = {
    "qoenet_no_convolution": "without convolution",
    "qoenet_no_attention": "without attention over tokens",
    "qoenet_last_record": "one record (T = 1)",
    "mlp": "MLP",
}
"""Less work leaves out the last of these first; the claim names the first two."""

SEEDS = 3
"""At most."""

PART = 0.5
"""Of the work of a fit elsewhere: with a token a feature a step costs ten times as much."""


def judge(gaps: Mapping[str, Mapping[str, Gap]]) -> tuple[str, str]:
    """Holds if everything left out is missed in every figure, all intervals above 0."""
    kept = [
        f"{name} in {figure}: {pairs.text(found)}"
        for name, each in gaps.items()
        for figure, found in each.items()
        if not found.above
    ]
    if not kept:
        return HOLDS, f"all {len(gaps)} lose clearly, in macro-F1 and in RMSE"
    return FAILS, f"no clear loss of {'; '.join(kept)}"


def left_out(scale: float) -> list[str]:
    """The ablations that a scale pays for."""
    return list(ABLATIONS)[: scaled(scale, len(ABLATIONS), 2)]


def study(context: Context) -> Outcome:
    """See ``claims.CLAIMS``."""
    seeds = min(SEEDS, context.seeds)
    names = ("qoenet", *left_out(context.scale))
    context = context._replace(seeds=seeds, scale=PART * context.scale)
    task = fits.task(context, fits.SIMULATED)
    rmse = pairs.rmse(fits.services(task.data.spec))
    fits.ahead(context, task, [(name, context.seeds, {}) for name in names])
    said = {name: fits.all_seeds(context, task, name) for name in names}
    ours, gaps = said["qoenet"], {}
    for name in names[1:]:
        gaps[ABLATIONS[name]] = {
            "macro-F1": pairs.gap(pairs.macro_f1, task, ours, said[name]),
            "RMSE": pairs.gap(rmse, task, said[name], ours),  # of an error, less is better
        }
    rows = [
        {
            "model": ABLATIONS.get(name, "hybrid"),
            "macro-F1": pairs.spread(pairs.macro_f1, task, each),
            "RMSE": pairs.spread(rmse, task, each),
            **{
                f"hybrid ahead in {key}": pairs.text(found)
                for key, found in gaps.get(ABLATIONS.get(name, ""), {}).items()
            },
        }
        for name, each in said.items()
    ]
    plots.save(draw.gaps(gaps, "hybrid ahead"), context.folder / "ablations.png")
    return Outcome(*judge(gaps), rows, ["ablations.png"])
