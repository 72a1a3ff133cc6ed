"""What the members of a sweep came to: means over seeds with 95 % intervals; table and figure."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.stats

from qoejax.run import files, pages, plots
from qoejax.run.writer import read_rows

Members = Mapping[str, tuple[Mapping[str, Any], int, pathlib.Path]]
"""By name: the values of the swept keys, the seed, and the folder of a finished member."""

FIGURES = ("macro_f1", "accuracy")
SCORES = ("plcc", "rmse")
"""Of every service, on its own scale."""

CURVES = (
    ("macro_f1", "test macro-F1"),
    ("mos_plcc", "test MOS PLCC"),
    ("mos_rmse", "test MOS RMSE"),
)
"""What is plotted: the first of these that every member has."""


def interval(values: Any) -> dict[str, Any]:
    """Mean of n values along the first axis, and its 95 % interval by Student's t.

    Returns:
      ``mean``, ``low``, ``high`` and ``n``; the bounds are None for a single value.
    """
    values = np.asarray(values, float)
    n, mean = len(values), values.mean(0)
    if n < 2:
        return {"mean": mean, "low": None, "high": None, "n": n}
    half = scipy.stats.t.ppf(0.975, n - 1) * values.std(0, ddof=1) / np.sqrt(n)
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": n}


def figures(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of ``evaluation.json`` that a table shows; those that are null are left out."""
    found = {name: evaluation.get(name) for name in FIGURES}
    for scale in ("mos", "qome"):
        for service, scores in (evaluation.get(scale) or {}).items():
            found |= {f"{scale}.{service}.{name}": scores.get(name) for name in SCORES}
    return {name: float(value) for name, value in found.items() if value is not None}


def write(workdir: pathlib.Path, members: Members) -> list[dict[str, Any]]:
    """``sweep.md`` and ``plots/sweep.png`` in ``workdir``.

    Returns:
      A row a setting: ``over``, the seeds, by figure its ``interval``, and each member's figures.
    """
    settings: dict[str, list[tuple[str, int, pathlib.Path]]] = {}
    values: dict[str, dict[str, Any]] = {}
    for name, (own, seed, folder) in members.items():
        label = ", ".join(f"{key} {value}" for key, value in own.items()) or "as configured"
        settings.setdefault(label, []).append((name, seed, folder))
        values[label] = dict(own)
    rows = [_row(values[label], chosen) for label, chosen in settings.items()]
    files.write_bytes(workdir / "sweep.md", _table(list(settings), rows).encode())
    curves = _curves({label: [f for *_, f in chosen] for label, chosen in settings.items()})
    if curves:
        plots.save(plots.sweep(curves), workdir / "plots" / "sweep.png")
    return rows


def _row(over: dict[str, Any], chosen: list[tuple[str, int, pathlib.Path]]) -> dict[str, Any]:
    each = {
        name: figures(files.read_json(folder / "evaluation.json", "the figures of a member"))
        for name, _, folder in chosen
    }
    shared = [k for k in next(iter(each.values())) if all(k in own for own in each.values())]
    return {
        "over": over,
        "seeds": [seed for _, seed, _ in chosen],
        "figures": {k: interval([own[k] for own in each.values()]) for k in shared},
        "members": each,
    }


def _table(labels: list[str], rows: list[dict[str, Any]]) -> str:
    """Markdown: settings down, figures across, each as mean and interval."""
    names = list(dict.fromkeys(name for row in rows for name in row["figures"]))
    lines = [["setting", "seeds", *names], ["---"] * (2 + len(names))]
    for label, row in zip(labels, rows, strict=True):
        cells = [_cell(row["figures"].get(name)) for name in names]
        lines.append([label, str(len(row["seeds"])), *cells])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"Means over seeds on the test split [95 % interval, Student's t]\n\n{text}\n"


def _cell(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return pages.number(None)
    mean, low, high = (
        pages.number(None if figure[k] is None else float(figure[k]))
        for k in ("mean", "low", "high")
    )
    return mean if figure["low"] is None else f"{mean} [{low}, {high}]"


def _curves(settings: dict[str, list[pathlib.Path]]) -> dict[str, Any]:
    tested = {
        label: [
            [row for row in read_rows(folder / "metrics.jsonl") if "test" in row]
            for folder in folders
        ]
        for label, folders in settings.items()
    }
    everything = [row["test"] for runs in tested.values() for run in runs for row in run]
    shown = [(k, text) for k, text in CURVES if all(k in test for test in everything)]
    if not shown or not everything:
        return {}
    key, text = shown[0]
    curves = {}
    for label, runs in tested.items():
        shape = interval([[row["test"][key] for row in run] for run in runs])
        bounds = None if shape["low"] is None else np.stack([shape["low"], shape["high"]])
        curves[label] = (text, [row["round"] for row in runs[0]], shape["mean"], bounds)
    return curves
