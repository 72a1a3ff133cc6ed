"""Raw columns to the features of a net: encode, scale, select. NumPy only.

``fit`` looks at training rows and gives ``Stats``; ``apply`` is a pure function of those and of raw
rows. Nothing else is remembered, so a saved ``Stats`` is all that a prediction needs.
"""

import json
import os
import pathlib
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int

from qoejax.data import candidates
from qoejax.data import table as tables
from qoejax.data.candidates import Candidate
from qoejax.data.errors import DataError
from qoejax.data.scaling import SCALES, VIEWS, View, look, signed_log
from qoejax.data.selection import SCORES
from qoejax.data.table import CATEGORICAL, Spec, Table

FORMAT = "qoejax preprocess 1"
_CHUNK = 8192  # rows at a time: what is in work stays in cache


class Output(NamedTuple):
    """One feature: a view of numeric column ``column``, or whether a category is in ``codes``.

    ``score`` is what selection ranked it by (nats of mutual information, or a variance).
    """

    name: str
    column: int
    score: float
    view: View | None
    codes: tuple[int, ...]


class Stats(NamedTuple):
    """All that ``apply`` needs, and what became of the columns that are not in it.

    ``columns`` are the raw columns, in order; ``sizes`` their vocabularies' sizes, 0 for numeric
    ones; ``removed`` pairs a column or feature with the reason.
    """

    dataset: str
    columns: tuple[str, ...]
    sizes: tuple[int, ...]
    outputs: tuple[Output, ...]
    removed: tuple[tuple[str, str], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Feature names, in order: ``column``, ``column|view`` or ``column=value``."""
        return tuple(output.name for output in self.outputs)

    @property
    def features(self) -> int:
        """F, the number of features."""
        return len(self.outputs)


def retained(spec: Spec, keep: Collection[str] = (), drop: Collection[str] = ()) -> list[int]:
    """Indices of the columns that may become features: those not leaky, plus keep, minus drop.

    Raises:
      DataError: a name is no column, is both kept and dropped, or none is left.
    """
    names = [c.name for c in spec.columns]
    unknown = sorted(set(drop) - set(names))
    if unknown:
        raise DataError(f"{spec.dataset} has no column {', '.join(map(repr, unknown))} to drop.")
    both = sorted(set(keep) & set(drop))
    if both:
        raise DataError(f"column {both[0]!r} is both kept and dropped; expected one of the two.")
    left = [names.index(name) for name in tables.retained(spec, keep) if name not in drop]
    if not left:
        raise DataError(f"no column of {spec.dataset} is left; expected to keep at least one.")
    return left


def fit(
    spec: Spec,
    train: Table,
    *,
    keep: Collection[str] = (),
    drop: Collection[str] = (),
    scale: str = "quantile",
    select: str = "mutual_information",
    budget: int = 0,
    max_levels: int = 32,
    min_count: int = 10,
    sample: int = 1_000_000,
    seed: int = 0,
) -> Stats:
    """Statistics of the training rows.

    A category becomes one 0/1 feature a level: of the levels seen, the ``max_levels`` most common
    with at least ``min_count`` records; the others share one feature, and absent is all zeros. A
    numeric column becomes the views that ``SCALES[scale]`` lists. Constant columns and exact
    duplicates of an earlier one go, and so do all but the ``budget`` best features by the score
    ``select`` of ``SCORES`` (ties to the earlier column; 0 keeps all). Ranges, counts and equality
    are judged on all records; moments, ranks and scores on at most ``sample`` of them, drawn by
    ``seed``.

    Raises:
      DataError: an unknown name, a value that is not finite or no code of its vocabulary, no label
        to score by, or no feature left.
    """
    for name, choice, options in (("scale", scale, SCALES), ("select", select, SCORES)):
        if choice not in options:
            raise DataError(f"{name} is {choice!r}; expected one of {', '.join(sorted(options))}.")
    sizes = tuple(len(spec.vocab[c.name]) if c.kind == CATEGORICAL else 0 for c in spec.columns)
    names = tuple(c.name for c in spec.columns)
    chosen = retained(spec, keep, drop)
    _check_width(train.x, names, spec.dataset)
    x = train.x.reshape(-1, len(names))
    label = np.repeat(train.label, train.x.shape[1])
    rows = _sampled(label, sample, seed)
    if not len(rows):
        raise DataError(f"no training row of {spec.dataset} has a known label; expected some.")
    removed = [(names[j], _absence(spec, j, drop)) for j in range(len(names)) if j not in chosen]
    kept, repeats = candidates.distinct(
        x,
        (c for j in chosen for c in candidates.of_column(spec, x, j, rows, max_levels, min_count)),
    )
    outputs = []
    for candidate in kept:
        values = candidate.values.astype(np.float64)
        score = SCORES[select](values[: len(rows)], label[rows])
        outputs += _outputs(candidate, values, score, SCALES[scale])
    outputs, cut = _best(outputs, budget)
    if not outputs:
        raise DataError(f"no column of {spec.dataset} varies in the {len(x)} training records.")
    return Stats(spec.dataset, names, sizes, tuple(outputs), (*removed, *repeats, *cut))


def apply(stats: Stats, x: Float32[np.ndarray, "N T D"]) -> Float32[np.ndarray, "N T F"]:
    """Features of raw records; pure, monotone in each number, finite for any finite input.

    Raises:
      DataError: other columns than the statistics' own, a value that is not finite, or a category
        that is no code of the vocabulary; names the column.
    """
    _check_width(x, stats.columns, stats.dataset)
    flat = x.reshape(-1, x.shape[2])
    out = np.empty((len(flat), stats.features), np.float32)
    by_column: dict[int, list[int]] = {}
    for f, output in enumerate(stats.outputs):
        by_column.setdefault(output.column, []).append(f)
    hot = {
        j: np.stack([candidates.membership(stats.outputs[f].codes, stats.sizes[j]) for f in fs])
        for j, fs in by_column.items()
        if stats.sizes[j]
    }
    for start in range(0, len(flat), _CHUNK):
        chunk = flat[start : start + _CHUNK]
        block = np.empty((stats.features, len(chunk)), np.float32)
        for j, fs in by_column.items():
            name, size = stats.columns[j], stats.sizes[j]
            if size:
                block[fs] = hot[j][:, candidates.checked_codes(chunk[:, j], name, size)]
                continue
            values = candidates.finite(chunk[:, j], name).astype(np.float64)
            logs = signed_log(values)
            for f in fs:
                view = stats.outputs[f].view
                assert view is not None, "a numeric column's features have views"
                block[f] = look(view, values, logs)
        out[start : start + _CHUNK] = block.T
    return out.reshape(*x.shape[:2], stats.features)


def save(stats: Stats, path: str | os.PathLike[str]) -> None:
    """Writes one .npz without pickles; the file is either the old one or the new one."""
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    views = [output.view for output in stats.outputs]
    text = {
        "format": FORMAT,
        "dataset": stats.dataset,
        "columns": stats.columns,
        "sizes": stats.sizes,
        "removed": stats.removed,
        "outputs": [
            (o.name, o.column, o.score, o.codes, v and (v.log, v.shift, v.scale, len(v.knots)))
            for o, v in zip(stats.outputs, views, strict=True)
        ],
    }
    none = [np.zeros(0, np.float32)]
    knots = np.concatenate(none + [v.knots for v in views if v])
    targets = np.concatenate(none + [v.targets for v in views if v])
    try:
        with open(temporary, "wb") as file:
            np.savez(file, text=np.array(json.dumps(text)), knots=knots, targets=targets)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: str | os.PathLike[str]) -> Stats:
    """The inverse of ``save``.

    Raises:
      DataError: the file is missing, damaged, or of another format.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            text = json.loads(str(archive["text"]))
            knots, targets = archive["knots"], archive["targets"]
        if text["format"] != FORMAT:
            raise ValueError(f"its format is {text['format']!r}")
        outputs, start = [], 0
        for name, column, score, codes, view in text["outputs"]:
            if view:
                log, shift, scale, size = view
                part = slice(start, start + size)
                view, start = View(log, shift, scale, knots[part], targets[part]), start + size
            outputs.append(Output(name, column, score, view, tuple(codes)))
        if not start == len(knots) == len(targets):
            raise ValueError(f"it has {len(knots)} knots where {start} were expected")
        removed = tuple((name, why) for name, why in text["removed"])
        columns, sizes = tuple(text["columns"]), tuple(text["sizes"])
        return Stats(text["dataset"], columns, sizes, tuple(outputs), removed)
    except Exception as e:  # a damaged archive raises whatever its parsers raise
        raise DataError(
            f"{os.fspath(path)} is not a readable file of preprocessing statistics ({e}); expected "
            f"one in the format {FORMAT!r}."
        ) from e


def _check_width(x: Float[np.ndarray, "N T D"], names: tuple[str, ...], dataset: str) -> None:
    if x.shape[2] != len(names):
        raise DataError(
            f"the rows have {x.shape[2]} columns; expected the {len(names)} of {dataset}, from "
            f"{names[0]!r} to {names[-1]!r}."
        )


def _absence(spec: Spec, j: int, drop: Collection[str]) -> str:
    return "dropped by name" if spec.columns[j].name in drop else f"leaky: {spec.columns[j].why}"


def _sampled(label: Int[np.ndarray, " n"], sample: int, seed: int) -> Int[np.ndarray, " m"]:
    """Labelled records to fit on, in order."""
    rows = np.flatnonzero(label >= 0)
    if len(rows) <= sample:
        return rows
    picked = np.random.default_rng(seed).choice(len(rows), sample, replace=False, shuffle=False)
    return rows[np.sort(picked)]


def _outputs(
    candidate: Candidate, values: Float[np.ndarray, " m"], score: float, views: tuple[str, ...]
) -> list[Output]:
    name, column, codes = candidate.name, candidate.column, candidate.codes
    if codes:
        return [Output(name, column, score, None, codes)]
    named = {name if len(views) == 1 else f"{name}|{view}": view for view in views}
    return [Output(n, column, score, VIEWS[view](values), ()) for n, view in named.items()]


def _best(outputs: list[Output], budget: int) -> tuple[list[Output], list[tuple[str, str]]]:
    """The ``budget`` outputs of highest score, in their order, and the others with theirs."""
    if budget <= 0 or len(outputs) <= budget:
        return outputs, []
    order = np.argsort([-output.score for output in outputs], kind="stable")
    chosen = set(order[:budget].tolist())
    cut = [
        (o.name, f"score {o.score:.3g} is not among the best {budget}")
        for i, o in enumerate(outputs)
        if i not in chosen
    ]
    return [o for i, o in enumerate(outputs) if i in chosen], cut
