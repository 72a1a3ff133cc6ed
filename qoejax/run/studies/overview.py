"""The performance results of all models in one figure: classes above, scores below."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from qoejax.run import plots

PANELS = {
    "macro-F1": "macro-F1", "precision": "macro precision", "recall": "macro recall",
    "RMSE": "RMSE of scores", "PLCC": "PLCC of scores",
}  # fmt: skip
"""Columns of rows, and what they are called in the figure."""

OURS = ("qoenet", "ours")


def draw(rows: Sequence[Mapping[str, Any]], path: pathlib.Path) -> bool:
    """Draws what rows with ``dataset`` and ``model`` hold of ``PANELS``, as [mean, half width].

    Returns:
      Whether there was anything to draw.
    """
    values: dict[tuple[str, str, str], Sequence[float]] = {}
    for row in rows:
        for key in PANELS:
            if isinstance(row.get(key), list | tuple):
                values.setdefault((row["dataset"], row["model"], key), row[key])
    if not values:
        return False
    datasets = list(dict.fromkeys(d for d, _, _ in values))
    models = list(dict.fromkeys(m for _, m, _ in values))
    height = 1.2 + 0.26 * len(models)
    figure, grid = plt.subplots(
        len(datasets), len(PANELS), figsize=(13, height * len(datasets)), dpi=110, squeeze=False,
        layout="constrained", sharey="row",
    )  # fmt: skip
    for axes_row, dataset in zip(grid, datasets, strict=True):
        here = [m for m in models if any((dataset, m, key) in values for key in PANELS)]
        for axes, key in zip(axes_row, PANELS, strict=True):
            known = [(i, m) for i, m in enumerate(here) if (dataset, m, key) in values]
            axes.set_yticks(range(len(here)), here, fontsize=8)
            axes.set_ylim(len(here) - 0.4, -0.6)
            axes.set_title(PANELS[key], fontsize=9)
            axes.grid(axis="x", alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
            if not known:
                axes.text(
                    0.5, 0.5, "no scores", transform=axes.transAxes, ha="center", color="grey"
                )
                axes.set_xticks([])
                continue
            colour = [plots.ORANGE if m in OURS else plots.BLUE for _, m in known]
            mean, half = np.array([values[dataset, m, key] for _, m in known], float).T
            y = [i for i, _ in known]
            axes.hlines(y, mean - half, mean + half, colors=colour, lw=2, alpha=0.5)
            axes.scatter(mean, y, c=colour, s=24, zorder=3)
        axes_row[0].set_ylabel(dataset, fontsize=9, labelpad=12)
    plots.save(figure, path)
    return True
