"""plots/*.png and report.html: a run on one self-contained page, phone-ready, dark and light."""

import base64
import json
import pathlib
from collections import Counter
from typing import Any

import numpy as np

from qoejax.data.table import MOS, QOME, Service
from qoejax.run import files, logpage, pages, plots
from qoejax.run.evaluate import Result
from qoejax.run.writer import read_rows

CAPTIONS = {
    "convergence": "Convergence: training loss, and scores on the test split.",
    "confusion": "Confusion matrix on the test split, by true class.",
    "per_class": "Recall and precision of every class.",
    "partition": "Who holds what: training rows of each class at every client.",
    "mos": "MOS predicted against true; one row a service, one column a horizon.",
    "qome": "QoME (machines) predicted against true; one row a service, one column a horizon.",
    "horizons": "How far ahead: correlation, and skill over persistence (0 is no better).",
    "reliability": "Reliability: accuracy against confidence (all on the diagonal is calibrated).",
    "wire": "The wire: time in each primitive, and bytes, by round.",
}


def draw(
    folder: pathlib.Path,
    rows: list[dict[str, Any]],
    result: Result,
    data: dict[str, Any],
    services: tuple[Service, ...],
) -> dict[str, pathlib.Path]:
    """Writes every figure that the run has numbers for; returns their paths by caption key."""
    names = tuple(data["labels"])
    several = len(names) > 1
    matrix = np.zeros((len(names), len(names)), int)
    np.add.at(matrix, (result.label, result.probability.argmax(-1)), 1)
    figures = {
        "convergence": plots.convergence(rows) if rows else None,
        "confusion": plots.confusion(matrix, names) if several else None,
        "per_class": plots.per_class(result.summary["per_class"]) if several else None,
        "partition": plots.partition(np.asarray(data["clients"]["per_class"]), names),
        "reliability": plots.reliability(result.probability, result.label) if several else None,
        "wire": plots.wire(rows) if any("wire" in r for r in rows) else None,
    }
    figures |= _experience(result, services)
    paths = {}
    for name, figure in figures.items():
        if figure is not None:
            paths[name] = folder / f"{name}.png"
            plots.save(figure, paths[name])
    return paths


def _experience(result: Result, services: tuple[Service, ...]) -> dict[str, Any]:
    """Figures of the scores: one a scale, and one over horizons where there are several."""
    figures, ahead = {}, {}
    for scale in (MOS, QOME):
        pairs = {}
        for q, service in enumerate(services):
            seen = result.mos_mask[:, q]
            if service.scale == scale and seen.any():
                pairs[service] = (result.mos_true[seen, q], result.mos_predicted[seen, q])
                if service.horizon_s:
                    ahead[service] = result.summary[scale][service.key]
        if pairs:
            figures[scale] = plots.scores(pairs)
    if len({service.horizon_s for service in ahead}) > 1:
        figures["horizons"] = plots.horizons(ahead)
    return figures


def _figure(name: str, path: pathlib.Path) -> dict[str, str]:
    encoded = base64.b64encode(path.read_bytes()).decode()
    return {"name": name, "caption": CAPTIONS[name], "src": f"data:image/png;base64,{encoded}"}


def wire_totals(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Sums over the wired rounds, or None when nothing went over the wire.

    ``client`` is what a round cost one client on average; ``share`` the part of the rounds' time in
    which nothing but the wire went on.
    """
    wired = [r["wire"] for r in rows if "wire" in r]
    if not wired:
        return None
    seconds, rejected = Counter(), Counter()
    for w in wired:
        seconds.update(w["seconds"])
        rejected.update(w["rejected"])
    total = sum(r["seconds"] for r in rows if "wire" in r)
    return {
        "client": {
            name: float(np.mean([w["client"][name] for w in wired])) for name in wired[0]["client"]
        },
        "clients_s": sum(w["clients_s"] for w in wired),
        "masked": "clipped" in wired[0],
        "server_s": sum(w["server_s"] for w in wired),
        "updates": sum(w["accepted"] for w in wired),
        "rejected": dict(rejected),
        "bytes_up": sum(w["bytes_up"] for w in wired),
        "bytes_down": sum(w["bytes_down"] for w in wired),
        "seconds": dict(seconds),
        "share": sum(w["wait_s"] for w in wired) / total if total else None,
    }


def write(
    workdir: pathlib.Path, result: Result, data: dict[str, Any], services: tuple[Service, ...]
) -> pathlib.Path:
    """Draws the plots and writes the page; returns its path."""
    rows = read_rows(workdir / "metrics.jsonl")
    paths = draw(workdir / "plots", rows, result, data, services)
    manifest = files.read_json(workdir / "manifest.json", "the manifest of a run")
    page = pages.render(
        "report.html",
        summary=result.summary,
        data=data,
        manifest=manifest,
        config=json.dumps(manifest["config"], indent=1),
        wire=wire_totals(rows),
        log=logpage.write(workdir),
        rounds=rows[-1]["round"] if rows else 0,
        figures=[_figure(name, path) for name, path in paths.items()],
    )
    path = workdir / "report.html"
    files.write_bytes(path, page.encode())
    return path
