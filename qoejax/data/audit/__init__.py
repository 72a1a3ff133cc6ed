"""Leakage audit: what data give away before any model is trained. NumPy and SciPy only.

``frame`` says what is audited, ``sentinels``, ``windows``, ``order`` and ``neighbours`` measure,
``forest`` is the reference they are held against, ``findings`` judges. ``rawcells``, ``spelling``
and ``rawfindings`` do the same for files as they are spelt. See docs/splits-and-leaks.md.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from qoejax.data import split, table
from qoejax.data.audit import findings, rawcells, rawfindings
from qoejax.data.audit import frame as frames
from qoejax.data.audit.findings import LEAK, LEAST_ROWS, Finding, Scores
from qoejax.data.audit.frame import Column, Frame, Target
from qoejax.data.errors import DataError
from qoejax.data.schema import Level, plain

__all__ = ["Audit", "Finding", "audit_frame", "audit_raw", "audit_tables", "leaks"]

MOST_ROWS = 20_000
"""Rows that sentinels and the reference see: a random sample where there are more."""


LEAST_OF_CLASS = 20
"""Two classes must have as many different rows for a score to mean anything."""


class Audit(NamedTuple):
    """All that was found. ``scores`` is None where the rows do not allow any (``why`` says so)."""

    rows: int
    scored_rows: int
    classes: dict[str, int]
    metric: str
    default_names: tuple[str, ...]
    other_columns: int
    cleaning: dict[str, int | float]
    scores: Scores | None
    why: str
    best: tuple[str, float] | None
    findings: tuple[Finding, ...]

    @property
    def default_columns(self) -> int:
        """Number of columns that a model sees."""
        return len(self.default_names)


def leaks(audit: Audit, *scopes: str) -> list[Finding]:
    """The findings beyond their limit, in some scopes or in all."""
    return [f for f in audit.findings if f.severity == LEAK and (not scopes or f.scope in scopes)]


def audit_tables(
    spec: table.Spec,
    train: table.Table,
    test: table.Table,
    *,
    default: Collection[str],
    seed: int = 0,
) -> Audit:
    """Audits two sides of a split, each without its duplicates and conflicts.

    Args:
      spec: what the tables mean.
      train: rows to learn from.
      test: rows to try.
      default: names of the columns that a model sees.
      seed: of samples and of the reference.

    Raises:
      DataError: a side has no row with a known target, or no column is left.
    """
    rows = len(train.label) + len(test.label)
    equal: dict[str, int | float] = dict.fromkeys(("duplicates", "conflict_rows"), 0)
    if not spec.human:
        train, test = (_clean_table(spec, side, default, equal) for side in (train, test))
    made = _thinned(frames.of_tables(spec, train, test, default), seed)
    return audit_frame(made, rows=rows, cleaning=equal, more=findings.constants(made), seed=seed)


def _clean_table(
    spec: table.Spec, rows: table.Table, default: Collection[str], equal: dict[str, int | float]
) -> table.Table:
    columns = [j for j, c in enumerate(spec.columns) if c.name in default]
    flat = np.ascontiguousarray(rows.x[:, :, columns]).reshape(len(rows.label), -1)
    kept, report = split.clean(flat, rows.label)
    for name in equal:
        equal[name] += getattr(report, name)
    return table.take(rows, kept)


def audit_raw(
    raw: rawcells.Raw,
    *,
    level: Level | None = None,
    label: str = "",
    target: str = "",
    group: Sequence[str] = (),
    pattern: str = "",
    default: Sequence[str] | None = None,
    seed: int = 0,
) -> Audit:
    """Audits files as they lie: every column as spelt, the default ones as a model sees them.

    Args:
      raw: the cells of the files.
      level: the dataset's form, if it has one.
      label: column of the classes; or
      target: column of the scores.
      group: columns that together name who must not stand on both sides, such as a person.
      pattern: regular expression for the part of that name that counts, "" for all of it.
      default: columns that a model sees; all if None.
      seed: of samples and of the reference.

    Raises:
      DataError: a named column is not there, or no row has a target.
    """
    goal, rows = _target(raw, level, label, target)
    owner = rawcells.owners(raw, group, pattern)[rows] if group else None
    aside = [rawcells.find(raw, name).name for name in (label, target, *group) if name]
    raw = rawcells.take(raw, rows, aside)
    columns = rawcells.columns(raw, level, default)
    whole = Frame(tuple(columns), goal, (), np.zeros(0, np.int64))
    found = rawfindings.judge(raw, columns, _declared(level, columns), goal)
    found += findings.constants(whole)
    kept, equal = _cleaned(columns, goal)
    made = frames.make_frame(
        frames.take(columns, kept),
        goal._replace(value=goal.value[kept]),
        group=None if owner is None else owner[kept],
        by_group=bool(group),
    )
    made = _thinned(made, seed)
    return audit_frame(made, rows=len(raw.file), cleaning=equal, more=found, seed=seed)


def audit_frame(
    frame: Frame,
    *,
    rows: int,
    cleaning: dict[str, int | float],
    more: Sequence[Finding] = (),
    seed: int = 0,
) -> Audit:
    """Scores and judges a frame; ``more`` are findings made elsewhere."""
    why = _unscorable(frame)
    scores = None if why else findings.measure(frame, seed=seed)
    found = [*more, *(findings.judge(frame, scores) if scores else [])]
    names = frame.target.names
    counts = np.bincount(frame.target.value, minlength=len(names)).tolist() if names else []
    return Audit(
        rows=rows,
        scored_rows=frame.rows,
        classes=dict(zip(names, counts, strict=True)),
        metric=frame.target.metric,
        default_names=tuple(c.name for c in frame.default),
        other_columns=len(frame.columns) - len(frame.default),
        cleaning=cleaning,
        scores=scores,
        why=why,
        best=scores.best(frame) if scores else None,
        findings=tuple(findings.ranked(found)),
    )


def _unscorable(frame: Frame) -> str:
    """Why no rule can be scored on these rows, or ""."""
    _, counts = np.unique(frame.target.value, return_counts=True)
    if len(counts) < 2:
        return "all rows have the same target, so no rule can be scored on them"
    if frame.rows < LEAST_ROWS:
        return f"{frame.rows} different rows are too few to score a rule on ({LEAST_ROWS} needed)"
    if frame.target.names and np.sort(counts)[-2] < LEAST_OF_CLASS:
        return f"only one class has {LEAST_OF_CLASS} different rows: no rule can be scored on them"
    if any(not len(train) or not len(test) for train, test in frame.sides):
        return "all rows share one group, so none can be kept apart"
    return ""


def _target(
    raw: rawcells.Raw, level: Level | None, label: str, target: str
) -> tuple[Target, Int64[np.ndarray, " rows"]]:
    """The target of the rows that have one, and those rows."""
    if target:
        scores = rawcells.scores(raw, target)
        rows = np.flatnonzero(np.isfinite(scores))
        return frames.score_target(scores[rows]), rows
    codes, names = rawcells.labels(raw, label, level)
    rows = np.flatnonzero(codes >= 0)
    if not len(rows):
        raise DataError(f"{raw.paths[0]}: column {label!r} is blank; expected class names.")
    return frames.class_target(codes[rows], names), rows


def _declared(level: Level | None, columns: Sequence[Column]) -> dict[str, str]:
    """What a schema says that a column holds, where that can be checked cell by cell."""
    if level is None:
        return {}
    kinds = {
        plain(c.name): "time" if c.name in level.schema.clocks else "number"
        for c in level.schema.columns
        if c.kind == table.NUMERIC
    }
    return {c.name: kinds[plain(c.name)] for c in columns if plain(c.name) in kinds}


def _cleaned(
    columns: Sequence[Column], target: Target
) -> tuple[Int64[np.ndarray, " kept"], dict[str, int | float]]:
    """Rows left when duplicates and conflicts go; where people rated, equal rows are opinions."""
    flat = frames.content(columns)
    if not target.names:
        repeats = int((split.first_equal(flat) != np.arange(len(flat))).sum())
        return np.arange(len(flat)), {"rows_like_an_earlier_one": repeats}
    kept, report = split.clean(flat, target.value)
    names = ("duplicates", "conflict_rows", "conflict_groups", "accuracy_ceiling")
    return kept, {name: getattr(report, name) for name in names}


def _thinned(frame: Frame, seed: int) -> Frame:
    """At most ``MOST_ROWS`` rows, drawn at random; sides keep their rows."""
    if frame.rows <= MOST_ROWS:
        return frame
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(frame.rows, MOST_ROWS, replace=False))
    place = np.full(frame.rows, -1)
    place[rows] = np.arange(MOST_ROWS)
    sides = [tuple(place[part][place[part] >= 0] for part in side) for side in frame.sides]
    return Frame(
        frames.take(frame.columns, rows),
        frame.target._replace(value=frame.target.value[rows]),
        tuple((train, test) for train, test in sides),
        frame.group[rows],
    )
