"""Figures that several studies draw. Each function returns a new figure."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from qoejax.run import plots
from qoejax.run.studies.pairs import Gap


def gaps(found: Mapping[str, Mapping[str, Gap]], title: str = "ahead") -> Figure:
    """Paired differences: by what is compared (rows) and by figure (panels); 0 is no difference.

    Thick bars are intervals over seeds, thin ones over test rows.
    """
    names = list(found)
    keys = list(dict.fromkeys(key for each in found.values() for key in each))
    figure, panels = plt.subplots(
        1, len(keys), figsize=(1.8 + 3.4 * len(keys), 1.3 + 0.36 * len(names)), dpi=120,
        squeeze=False, sharey=True, layout="constrained",
    )  # fmt: skip
    for axes, key in zip(panels[0], keys, strict=True):
        for i, name in enumerate(names):
            if key not in found[name]:
                continue
            gap = found[name][key]
            colour = plots.GREEN if gap.above else plots.RED if gap.most < 0 else plots.GREY
            axes.plot([gap.low, gap.high], [i, i], color=colour, lw=5, alpha=0.35)
            axes.plot([gap.block_low, gap.block_high], [i, i], color=colour, lw=1.5)
            axes.scatter([gap.mean], [i], color=colour, s=26, zorder=3)
        ends = [v for n in names if key in found[n] for v in _shown(found[n][key])]
        low, high = min([0.0, *ends]), max([0.0, *ends])
        margin = 0.08 * (high - low) or 0.01
        axes.set_xlim(low - margin, high + margin)  # intervals of two seeds would hide all else
        axes.axvline(0, color="black", lw=0.8)
        axes.set_xlabel(f"{key}: {title}")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_yticks(range(len(names)), names, fontsize=9)
    panels[0][0].set_ylim(len(names) - 0.5, -0.5)
    return figure


def _shown(gap: Gap) -> list[float]:
    reach = 3 * max(abs(gap.block_low), abs(gap.block_high), abs(gap.mean))
    return [gap.block_low, gap.block_high, float(np.clip(gap.low, -reach, reach)),
            float(np.clip(gap.high, -reach, reach))]  # fmt: skip


def by_horizon(
    curves: Mapping[str, Mapping[str, tuple[Sequence[int], Sequence[float], Sequence[float]]]],
) -> Figure:
    """By panel and model: horizons, means and half widths of 95 % intervals."""
    figure, panels = plt.subplots(
        1, len(curves), figsize=(4.4 * len(curves), 3.6), dpi=120, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axes, (key, models) in zip(panels[0], curves.items(), strict=True):
        for model, (x, mean, half) in models.items():
            axes.errorbar(x, mean, yerr=half, marker="o", ms=4, capsize=2, label=model)
        axes.set(xlabel="horizon, s", ylabel=key)
        axes.set_xticks(sorted({v for x, _, _ in models.values() for v in x}))
        axes.spines[["top", "right"]].set_visible(False)
        if key == "skill":
            axes.axhline(0, color=plots.GREY, lw=1, ls="--")
    panels[0][0].legend(frameon=False, fontsize=8)
    return figure


def bars(
    values: Mapping[str, Sequence[float]], label: str, line: tuple[float, str] | None = None
) -> Figure:
    """Horizontal bars of [mean, half width]; ``line`` is a limit with its name."""
    names = list(values)
    figure, axes = plt.subplots(
        figsize=(7.2, 1.2 + 0.3 * len(names)), dpi=120, layout="constrained"
    )
    mean, half = np.array([values[n] for n in names], float).T
    axes.barh(range(len(names)), mean, xerr=half, color=plots.BLUE, height=0.6)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    if line is not None:
        axes.axvline(line[0], color=plots.RED, lw=1, ls="--", label=line[1])
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure
