"""Leakage audits of prepared datasets, runs and raw files: what to audit, the gate, the reports."""

import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np

from qoejax.data import audit, load, schema, table
from qoejax.data.audit import rawcells
from qoejax.data.audit.findings import LEAK, MARGIN, Finding
from qoejax.run import build, files, model, pages, tables
from qoejax.run.errors import RunError

SCOPES = {
    "default": "columns that a model sees",
    "other": "columns that it does not see",
    "raw": "spelling, which reading evens out",
    "split": "rows and splits",
}


def of_dataset(
    name: str, data_dir: str, manual_dir: str, keep: Sequence[str], drop: Sequence[str]
) -> audit.Audit:
    """The prepared splits of a dataset; prepares it first where needed.

    Raises:
      DataError: no such dataset, not prepared and nothing to prepare it from, or unknown columns.
    """
    prepared = load.builder(name, data_dir or None, manual_dir or None)
    spec, train = load.table(prepared, "train")
    _, test = load.table(prepared, "test")
    return audit.audit_tables(spec, train, test, default=_seen(spec, keep, drop))


def of_run(trained: model.Model) -> audit.Audit:
    """The splits that a run trained and was tested on, with the columns that its model may see."""
    config = build.from_plain(trained.config)
    spec, train, test, _ = tables.tables(config)
    return audit.audit_tables(spec, train, test, default=_of_model(spec, config))


def of_files(
    paths: Sequence[pathlib.Path],
    *,
    dataset: str = "",
    label: str = "",
    target: str = "",
    group: Sequence[str] = (),
    default: Sequence[str] | None = None,
    keep: Sequence[str] = (),
    drop: Sequence[str] = (),
) -> audit.Audit:
    """Raw files, of a dataset's form or of any.

    Raises:
      DataError: a file or column is missing, or a file is no table.
      RunError: without ``dataset``, neither or both of ``label`` and ``target``.
    """
    raw = rawcells.read(rawcells.paths_of(paths))
    if not dataset:
        if bool(label) == bool(target):
            raise RunError("--input without --dataset needs --label=COLUMN or --target=COLUMN")
        dropped = {rawcells.find(raw, name).name for name in drop}
        seen = [name for name in raw.cells if name not in dropped]
        return audit.audit_raw(raw, label=label, target=target, group=group, default=seen)
    level = schema.find(dataset)
    rating = level.schema.rating
    if rating is not None:
        target, group = level.schema.label_column, group or rating.subject
    else:
        label = label or level.schema.label_column
    return audit.audit_raw(
        raw,
        level=level,
        label=label,
        target=target,
        group=group,
        pattern=rating.pattern if rating else "",
        default=default or _seen(schema.spec_of(level), keep, drop),
    )


def _seen(spec: table.Spec, keep: Sequence[str], drop: Sequence[str]) -> list[str]:
    config = ml_collections.ConfigDict({"data": {"keep": tuple(keep), "drop": tuple(drop)}})
    return _of_model(spec, config)


def _of_model(spec: table.Spec, config: ml_collections.ConfigDict) -> list[str]:
    return [spec.columns[j].name for j in tables.retained(config, spec)]


def default_of(trained: model.Model) -> list[str]:
    """Names of the columns that a trained model may see."""
    return _of_model(trained.spec, build.from_plain(trained.config))


def gate(found: audit.Audit, workdir: pathlib.Path, spec: table.Spec) -> dict[str, Any]:
    """Holds the best sentinel against the run's own score on its test split.

    Raises:
      RunError: the run has no evaluation, or the rows allow no score.
    """
    if found.best is None:
        raise RunError(f"no sentinel can be held against the model: {found.why}")
    summary = files.read_json(workdir / "evaluation.json", "the metrics of a finished run")
    if len(spec.label_names) > 1:
        score = summary["macro_f1"]
    else:
        service = spec.services[0]
        score = summary[service.scale][service.key]["plcc"]
    name, best = found.best
    return {
        "metric": found.metric,
        "model": score,
        "sentinel": name,
        "sentinel_score": best,
        "margin": MARGIN,
        "passed": bool(score - best >= MARGIN),
    }


def summary(what: str, found: audit.Audit, gate: dict[str, Any] | None) -> dict[str, Any]:
    """What the command prints: figures and leaks; notes are only counted."""
    scores = found.scores
    return {
        "audited": what,
        "rows": found.rows,
        "scored_rows": found.scored_rows,
        "classes": len(found.classes),
        "columns": {"default": found.default_columns, "other": found.other_columns},
        "metric": found.metric,
        "constant": scores and scores.constant,
        "chance": scores and scores.chance,
        "reference": scores and scores.reference,
        "shuffled": scores and scores.shuffled,
        "best_sentinel": found.best and dict(zip(("name", "score"), found.best, strict=True)),
        "not_scored": found.why or None,
        "leaks": {
            scope: [
                {"column": f.column, "rule": f.rule, "value": f.value}
                for f in audit.leaks(found, scope)
            ]
            for scope in SCOPES
        },
        "notes": sum(f.severity != LEAK for f in found.findings),
        "gate": gate,
    }


def full(what: str, found: audit.Audit, gate: dict[str, Any] | None) -> dict[str, Any]:
    """All of it, for audit.json."""
    scores = found.scores
    return {
        **summary(what, found, gate),
        "class_rows": found.classes,
        "cleaning": found.cleaning,
        "neighbours": scores and scores.neighbours._asdict(),
        "grain": scores and scores.grain,
        "rules": [r._asdict() for r in scores.rules] if scores else [],
        "findings": [f._asdict() for f in found.findings],
    }


def write(
    folder: pathlib.Path, what: str, found: audit.Audit, gate: dict[str, Any] | None
) -> dict[str, str]:
    """audit.json and audit.html; returns their paths.

    Raises:
      RunError: the folder cannot be written to.
    """
    folder = files.writable_folder(folder, "output")
    files.write_json(folder / "audit.json", full(what, found, gate))
    scores = found.scores
    rules = sorted(scores.rules, key=lambda r: -r.best) if scores else []
    leaking = {f.column for f in audit.leaks(found)}
    seen = set(found.default_names)
    page = pages.render(
        "audit.html", what=what, audit=found, scores=scores, gate=gate, scopes=SCOPES,
        rules=[(r, r.column in seen, r.column in leaking) for r in rules],
        counts={s: len(audit.leaks(found, s)) for s in SCOPES},
        margin=MARGIN,
    )  # fmt: skip
    files.write_bytes(folder / "audit.html", page.encode())
    return {"json": str(folder / "audit.json"), "html": str(folder / "audit.html")}


def text(found: audit.Audit, gate: dict[str, Any] | None) -> str:
    """The findings as a table for a terminal; notes on constants are counted, not listed."""
    lines = [_headline(found)]
    dull = [f for f in found.findings if f.rule == "constant"]
    shown = [f for f in found.findings if f.rule != "constant"]
    if shown:
        widths = [max(len(cell(f)) for f in shown) for cell in (_rule, _column)]
        lines += [_line(f, widths) for f in shown]
    if dull:
        lines.append(f"note  {len(dull)} columns hold (nearly) one value only")
    if gate:
        verdict = "passes" if gate["passed"] else "FAILS"
        lines.append(
            f"gate  {verdict}: model {gate['model']:.3f}, best sentinel {gate['sentinel']} "
            f"{gate['sentinel_score']:.3f}; {gate['margin']:.2f} between them are needed"
        )
    return "\n".join(lines)


def _headline(found: audit.Audit) -> str:
    if found.scores is None:
        return f"{found.rows:,} rows, {found.why}"
    name, best = found.best or ("", np.nan)
    return (
        f"{found.rows:,} rows, {found.scored_rows:,} scored; {found.metric}: constant "
        f"{found.scores.constant:.3f}, best sentinel {best:.3f} ({name}), forest on "
        f"{found.default_columns} default columns {found.scores.reference:.3f}, labels shuffled "
        f"{found.scores.shuffled:.3f}"
    )


def _rule(finding: Finding) -> str:
    return f"{finding.scope}: {finding.rule}"


def _column(finding: Finding) -> str:
    return finding.column or "–"


def _line(finding: Finding, widths: list[int]) -> str:
    limit = f" (limit {finding.limit:.3f})" if np.isfinite(finding.limit) else ""
    return (
        f"{finding.severity:<5} {_rule(finding):<{widths[0]}}  {_column(finding):<{widths[1]}}  "
        f"{finding.value:.3f}{limit}  {finding.reason}"
    )
