"""Figures of a run. Each function draws on a new figure and returns it; ``save_all`` writes PNGs.

Colours are chosen to read on white and in the dark report alike; every figure has its own white
background, so a PNG stands alone.
"""

import pathlib
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from qoejax.data.table import MOS, Service

BLUE, ORANGE, GREEN, RED, GREY = "#2f6db3", "#d9822b", "#3c8d53", "#b8423f", "#7a7f87"


def _new(width: float = 7.0, height: float = 4.2) -> tuple[Figure, Any]:
    figure, axes = plt.subplots(figsize=(width, height), dpi=120, layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def convergence(rows: list[dict[str, Any]]) -> Figure:
    """Training loss and accuracy on the test split, by round."""
    figure, axes = _new()
    rounds = [r["round"] for r in rows]
    axes.plot(rounds, [r["loss"] for r in rows], color=GREY, label="training loss")
    axes.set(xlabel="round", ylabel="training loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    right = axes.twinx()
    tested = [r for r in rows if "test" in r]
    for name, label, colour in (
        ("macro_f1", "test macro-F1", BLUE),
        ("accuracy", "test accuracy", ORANGE),
        ("mos_plcc", "test MOS PLCC", GREEN),
    ):
        points = [(r["round"], r["test"][name]) for r in tested if name in r["test"]]
        if points:
            right.plot(*zip(*points, strict=True), marker="o", ms=3.5, color=colour, label=label)
    right.set(ylim=(0, 1.02), ylabel="score")
    handles = [a.get_legend_handles_labels() for a in (axes, right)]
    right.legend(
        handles[0][0] + handles[1][0], handles[0][1] + handles[1][1], loc="center right",
        frameon=False,
    )  # fmt: skip
    return figure


def confusion(matrix: np.ndarray, names: tuple[str, ...]) -> Figure:
    """Confusion matrix [C,C] (rows are the truth), as shares of each row."""
    count = len(names)
    size = max(4.5, 0.42 * count + 2.2)
    figure, axes = _new(size + 0.8, size)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(count), names, rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(count), names, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true")
    if count <= 16:
        for i in range(count):
            for j in range(count):
                if share[i, j] >= 0.005:
                    axes.text(
                        j, i, f"{share[i, j]:.2f}", ha="center", va="center", fontsize=7,
                        color="white" if share[i, j] > 0.55 else "black",
                    )  # fmt: skip
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    return figure


def per_class(report: dict[str, dict[str, float]]) -> Figure:
    """Recall and precision of every class, with its number of test rows."""
    names = list(report)
    figure, axes = _new(7.0, max(3.0, 0.3 * len(names) + 1.4))
    y = np.arange(len(names))
    axes.barh(y - 0.2, [report[n]["recall"] or 0 for n in names], 0.38, color=BLUE, label="recall")
    axes.barh(
        y + 0.2, [report[n]["precision"] or 0 for n in names], 0.38, color=ORANGE,
        label="precision",
    )  # fmt: skip
    axes.set_yticks(y, [f"{n} ({int(report[n]['support'])})" for n in names], fontsize=8)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.02), xlabel="score (rows of the class in brackets)")
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2)
    return figure


def partition(table: np.ndarray, names: tuple[str, ...]) -> Figure:
    """Who holds what: rows of each class [K,C] at every client, stacked."""
    figure, axes = _new(7.5, 4.2)
    colours = plt.get_cmap("tab20")(np.arange(len(names)) % 20)
    x, bottom = np.arange(len(table)), np.zeros(len(table))
    for c, name in enumerate(names):
        axes.bar(x, table[:, c], 0.9, bottom=bottom, color=colours[c], label=name)
        bottom += table[:, c]
    axes.set(xlabel="client", ylabel="training rows", xlim=(-0.6, len(table) - 0.4))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if len(names) <= 20:
        axes.legend(fontsize=7, frameon=False, bbox_to_anchor=(1.0, 1.0), loc="upper left")
    return figure


def scores(pairs: dict[Service, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """True against predicted scores [N] of the services of one scale, as densities.

    A row for each name, a column for each horizon; the diagonal is perfect.
    """
    names = list(dict.fromkeys(service.name for service in pairs))
    horizons = sorted({service.horizon_s or 0 for service in pairs})
    label, ends = ("MOS", (1, 5)) if next(iter(pairs)).scale == MOS else ("QoME", (0, 1))
    size, dpi = (2.1, 90) if len(pairs) > 1 else (4.2, 120)
    figure, grid = plt.subplots(
        len(names), len(horizons), squeeze=False, sharex=True, sharey=True, dpi=dpi,
        figsize=(1.1 + size * len(horizons), 0.8 + size * len(names)), layout="constrained",
    )  # fmt: skip
    for axes in grid.flat:
        axes.set_axis_off()
    for service, (true, predicted) in pairs.items():
        row, column = names.index(service.name), horizons.index(service.horizon_s or 0)
        axes = grid[row, column]
        axes.set_axis_on()
        axes.hexbin(
            true, predicted, gridsize=30, extent=ends * 2, mincnt=1, bins="log", cmap="viridis"
        )
        axes.plot(ends, ends, color=RED, lw=1)
        axes.set(xlim=ends, ylim=ends, title=service.key if len(pairs) > 1 else "")
        axes.title.set_fontsize(9)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(f"true {label}", fontsize=10)
    figure.supylabel(f"predicted {label}", fontsize=10)
    return figure


def horizons(figures: dict[Service, dict[str, Any]]) -> Figure:
    """PLCC, and skill over persistence, of each service against the horizon of its forecast.

    Args:
        figures: "plcc" and "skill" (either may be None) of services with a horizon above 0.
    """
    figure, panels = plt.subplots(1, 2, figsize=(9.0, 3.8), dpi=120, layout="constrained")
    names = list(dict.fromkeys(service.name for service in figures))
    for axes, key in zip(panels, ("plcc", "skill"), strict=True):
        for i, name in enumerate(names):
            points = sorted(
                (service.horizon_s or 0, values[key])
                for service, values in figures.items()
                if service.name == name and values[key] is not None
            )
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", ms=4, color=f"C{i}", label=name)
        axes.set(xlabel="horizon, s", xticks=sorted({s.horizon_s or 0 for s in figures}))
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set(ylabel="PLCC", ylim=(0, 1))
    panels[1].axhline(0, color=GREY, lw=1, ls="--")
    # One second ahead persistence may win by far; what matters is where the curve crosses 0.
    panels[1].set(ylabel="skill over persistence", ylim=(-1, 1))
    panels[0].legend(frameon=False, fontsize=8)
    return figure


def reliability(probability: np.ndarray, label: np.ndarray, bins: int = 15) -> Figure:
    """Accuracy against confidence of the predicted class, [N,C] and [N]; below, how many rows."""
    confidence, right = probability.max(-1), probability.argmax(-1) == label
    slot = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(slot, minlength=bins)
    with np.errstate(invalid="ignore"):
        accuracy = np.bincount(slot, right, bins) / count
    centre = (np.arange(bins) + 0.5) / bins
    figure, (top, low) = plt.subplots(
        2, 1, figsize=(5.2, 4.8), dpi=120, layout="constrained", sharex=True, height_ratios=(3, 1)
    )
    top.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--")
    top.bar(centre, np.nan_to_num(accuracy), 0.9 / bins, color=BLUE)
    top.set(ylabel="accuracy", ylim=(0, 1.02), xlim=(0, 1))
    low.bar(centre, count, 0.9 / bins, color=GREY)
    low.set(xlabel="confidence", ylabel="rows")
    for axes in (top, low):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def wire(rows: list[dict[str, Any]]) -> Figure:
    """Seconds in each primitive and bytes of every wired round."""
    wired = [r for r in rows if "wire" in r]
    rounds = [r["round"] for r in wired]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.0, 3.8), dpi=120, layout="constrained")
    names = sorted({k for r in wired for k in r["wire"]["seconds"]})
    series = [[1e3 * r["wire"]["seconds"].get(n, 0.0) for r in wired] for n in names]
    colours = plt.get_cmap("tab10")(np.arange(len(names)) % 10)
    left.stackplot(rounds, series, labels=names, colors=colours)
    left.set(xlabel="round", ylabel="milliseconds of cryptography, all clients")
    left.legend(fontsize=7, frameon=False, loc="upper left", ncols=2)
    left.set_ylim(0, 1.35 * max(1e-9, float(np.sum(series, 0).max())))
    right.plot(rounds, [r["wire"]["bytes_up"] / 1e6 for r in wired], color=BLUE, lw=3, label="up")
    right.plot(
        rounds, [r["wire"]["bytes_down"] / 1e6 for r in wired], color=ORANGE, ls="--", label="down"
    )
    right.set(xlabel="round", ylabel="megabytes, all clients")
    top = max(max(r["wire"]["bytes_up"], r["wire"]["bytes_down"]) for r in wired) / 1e6
    right.set_ylim(0, 1.2 * top)
    right.legend(frameon=False, loc="lower right")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def attack_grid(grid: dict[str, Any]) -> Figure:
    """Macro-F1 of every rule (rows) under every attack (columns), as a heat map."""
    rules, names = list(grid["needs"]), grid["attacks"]
    score = {(c["rule"], c["attack"]): c["macro_f1"] for c in grid["cells"]}
    table = np.array([[score.get((r, a), np.nan) for a in names] for r in rules])
    figure, axes = _new(0.72 * len(names) + 3.2, 0.42 * len(rules) + 1.9)
    axes.set_facecolor("#e4e5e8")
    image = axes.imshow(table, cmap="RdYlGn", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", fontsize=8)
    axes.set_yticks(range(len(rules)), rules, fontsize=8)
    for i, j in np.ndindex(table.shape):
        if not np.isnan(table[i, j]):
            axes.text(j, i, f"{table[i, j]:.2f}", ha="center", va="center", fontsize=7)
    for i, rule in enumerate(rules):
        if np.isnan(table[i]).all():
            axes.text(
                (len(names) - 1) / 2, i, f"needs {grid['needs'][rule]} clients, has "
                f"{grid['clients']}", ha="center", va="center", fontsize=8, color=GREY,
            )  # fmt: skip
    axes.set_title(f"{grid['malicious']} of {grid['clients']} clients malicious", fontsize=9)
    figure.colorbar(image, ax=axes, shrink=0.8, label="test macro-F1")
    return figure


def worst_cases(grid: dict[str, Any], band: float = 0.03) -> Figure:
    """For every rule: macro-F1 undisturbed, under each attack, and under the worst, by name.

    The band ends ``band`` below the undisturbed score of the first rule, the mean.
    """
    own = {
        rule: {c["attack"]: c["macro_f1"] for c in grid["cells"] if c["rule"] == rule}
        for rule in grid["needs"]
    }
    own = {rule: scores for rule, scores in own.items() if scores}
    figure, axes = _new(7.4, 0.36 * len(own) + 1.6)
    clean = next(iter(own.values()))["none"]
    axes.axvspan(
        clean - band,
        clean,
        color=GREEN,
        alpha=0.18,
        lw=0,
        label=f"within {band} of the mean, undisturbed",
    )
    for i, scores in enumerate(own.values()):
        worst = min(scores, key=scores.__getitem__)
        axes.plot([scores[worst], scores["none"]], [i, i], color=GREY, lw=1, zorder=1)
        others = [v for k, v in scores.items() if k not in ("none", worst)]
        axes.scatter(
            others, [i] * len(others), s=14, color=BLUE, alpha=0.6, label="" if i else "an attack"
        )
        axes.scatter([scores[worst]], [i], s=26, color=RED, label="" if i else "the worst attack")
        axes.scatter([scores["none"]], [i], s=26, color=GREEN, label="" if i else "no attack")
        axes.annotate(
            worst, (scores[worst], i), xytext=(-5, 0), textcoords="offset points", ha="right",
            va="center", fontsize=7, color=RED,
        )  # fmt: skip
    axes.set_yticks(range(len(own)), list(own), fontsize=8)
    axes.invert_yaxis()
    axes.set(xlim=(-0.2, 1), xlabel="test macro-F1")
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.set_title(f"{grid['malicious']} of {grid['clients']} clients malicious", fontsize=9)
    axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def coverage(found: dict[str, Any], promised: float) -> Figure:
    """Coverage of each client's rows, and accuracy against confidence before and after scaling.

    ``found`` are figures of ``coverage.judge`` and "curves": lists of confidence, accuracy, rows.
    """
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9.0, 3.8), dpi=120, layout="constrained", width_ratios=(3, 2)
    )
    series = {"classes": found["sets"], **(found["intervals"] or {})}
    for i, (name, one) in enumerate(series.items()):
        each = sorted(c["coverage"] for c in one["clients"] or [one] if c is not None)
        style = {"color": BLUE, "lw": 2, "zorder": 3} if i == 0 else {"color": GREY, "lw": 0.8}
        label = name if i == 0 else "a service's interval" if i == 1 else None
        left.plot(range(1, len(each) + 1), each, marker="o", ms=3, label=label, **style)
    left.axhline(promised, color=RED, lw=1, ls="--", label="promised over all rows")
    left.set(xlabel="clients, from the least covered", ylabel="share of rows whose truth is held")
    left.set_ylim(top=1.005)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.legend(frameon=False, fontsize=8, loc="lower right")
    right.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--")
    for when, colour, curve in zip(
        ("before", "after"), (ORANGE, BLUE), found["curves"], strict=True
    ):
        confidence, accuracy, _ = zip(*curve, strict=True)
        text = f"{when}: ECE {found['ece'][when]:.3f}"
        right.plot(confidence, accuracy, marker="o", ms=4, color=colour, label=text)
    right.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    right.legend(frameon=False, fontsize=8, loc="upper left")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def sweep(curves: dict[str, tuple[str, list[int], np.ndarray, np.ndarray | None]]) -> Figure:
    """A score on the test split by round, for each setting: mean over seeds and 95 % interval.

    ``curves`` hold, by setting, the score's name, the rounds [R], means [R], and bounds [2,R] or
    None at a single seed.
    """
    figure, axes = _new()
    for setting, (name, rounds, mean, bounds) in curves.items():
        (line,) = axes.plot(rounds, mean, marker="o", ms=3.5, label=setting)
        if bounds is not None:
            axes.fill_between(rounds, *bounds, color=line.get_color(), alpha=0.18, lw=0)
        axes.set(xlabel="round", ylabel=name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def phases(rows: list[dict[str, Any]], auc: list[float]) -> Figure:
    """Gain of joint decisions over damage and prevalence, a column for each detector quality.

    Args:
        rows: of ``decisions.compare``, blur by blur.
        auc: of the detector at each blur.
    """
    rivals = {"cost_bayes": "cost-sensitive Bayes", "separate_product": "separate models, product"}
    blurs, prevalences, damages = (
        list(dict.fromkeys(row[name] for row in rows)) for name in ("blur", "prevalence", "damage")
    )
    figure, grid = plt.subplots(
        len(rivals), len(blurs), figsize=(3.3 * len(blurs) + 1, 6.2), dpi=120, squeeze=False,
        sharex=True, sharey=True, layout="constrained",
    )  # fmt: skip
    most = max(abs(row[f"over {rival}"]) for rival in rivals for row in rows)
    shape = (len(blurs), len(prevalences), len(damages))
    image = None
    for line, (rival, title) in zip(grid, rivals.items(), strict=True):
        gain = np.reshape([row[f"over {rival}"] for row in rows], shape)
        low = np.reshape([row[f"over {rival}, low"] for row in rows], shape)
        for b, axes in enumerate(line):
            image = axes.imshow(gain[b], cmap="RdBu", vmin=-most, vmax=most, origin="lower")
            for p, d in np.ndindex(*shape[1:]):
                sure = low[b, p, d] > 0
                colour = "white" if abs(gain[b, p, d]) > 0.6 * most else "black"
                axes.text(
                    d, p, f"{gain[b, p, d]:+.3f}", ha="center", va="center", fontsize=8,
                    color=colour, weight="bold" if sure else "normal",
                )  # fmt: skip
            axes.set_xticks(range(len(damages)), [f"{d:g}" for d in damages])
            axes.set_yticks(range(len(prevalences)), [f"{100 * p:g} %" for p in prevalences])
            axes.set_title(f"over {title}\nAUC of detection {auc[b]:.3f}", fontsize=9)
    figure.suptitle("Gain of joint decisions; bold: 95 % interval above 0", fontsize=11)
    figure.supxlabel("damage of an admitted attack, MOS points", fontsize=10)
    figure.supylabel("share of sources compromised", fontsize=10)
    assert image is not None
    figure.colorbar(image, ax=grid, label="gain of joint, MOS points per source", shrink=0.7)
    return figure


def save(figure: Figure, path: pathlib.Path) -> None:
    """Writes a PNG and frees the figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, facecolor="white")
    plt.close(figure)
