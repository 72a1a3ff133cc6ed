"""What columns may become features: numbers, and the levels of categories. NumPy only."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32

from qoejax.data.errors import DataError
from qoejax.data.table import CATEGORICAL, Spec

OTHER = "(other)"


class Candidate(NamedTuple):
    """A numeric column, or membership in ``codes`` of a categorical one.

    ``low`` and ``high`` are over all records; ``values`` are the sampled ones (float32 or bool),
    with the two extremes after them where the sample is not all.
    """

    name: str
    column: int
    codes: tuple[int, ...]
    low: float
    high: float
    values: np.ndarray


def finite(values: Float32[np.ndarray, " n"], name: str) -> Float32[np.ndarray, " n"]:
    """The values themselves, or ``DataError`` naming the column."""
    bad = ~np.isfinite(values)
    if bad.any():
        raise DataError(f"column {name!r} has {values[bad][0]}; expected finite values.")
    return values


def checked_codes(
    values: Float32[np.ndarray, " n"], name: str, size: int
) -> Int32[np.ndarray, " n"]:
    """The values as codes of a vocabulary, or ``DataError`` naming the column."""
    finite(values, name)
    bad = (values < 0) | (values >= size) | (values != np.floor(values))
    if bad.any():
        raise DataError(
            f"column {name!r} has category {values[bad][0]}; expected a whole number below {size}."
        )
    return values.astype(np.int32)


def of_column(
    spec: Spec,
    x: Float32[np.ndarray, "n D"],
    j: int,
    rows: Int[np.ndarray, " m"],
    max_levels: int,
    min_count: int,
) -> list[Candidate]:
    """What column ``j`` may become, constants included, by the rules of ``preprocess.fit``."""
    name = spec.columns[j].name
    if spec.columns[j].kind == CATEGORICAL:
        codes = checked_codes(x[:, j], name, len(spec.vocab[name]))
        return _levels(name, spec.vocab[name], j, codes, rows, max_levels, min_count)
    values = finite(x[:, j], name)
    low, high = values.min(), values.max()
    # With the extremes a map never mistakes a rare column for a constant one.
    fitted = np.append(values[rows], [low, high]) if len(rows) < len(x) else values[rows]
    return [Candidate(name, j, (), float(low), float(high), fitted)]


def _levels(
    name: str,
    vocab: tuple[str, ...],
    j: int,
    codes: Int32[np.ndarray, " n"],
    rows: Int[np.ndarray, " m"],
    max_levels: int,
    min_count: int,
) -> list[Candidate]:
    counts = np.bincount(codes, minlength=len(vocab))
    counts[0] = 0  # absent
    ranked = [int(c) for c in np.argsort(-counts, kind="stable") if counts[c]]
    own = [code for code in ranked[:max_levels] if counts[code] >= min_count]
    groups: list[tuple[str, tuple[int, ...]]] = [(f"{name}={vocab[code]}", (code,)) for code in own]
    rest = tuple(sorted(set(ranked) - set(own)))
    if rest:
        groups.append((f"{name}={OTHER}", rest))
    if not groups:  # always absent
        return [Candidate(name, j, (0,), 0.0, 0.0, np.zeros(len(rows), bool))]
    out = []
    for title, group in groups:
        everywhere = counts[list(group)].sum() == len(codes)
        inside = membership(group, len(vocab))[codes[rows]]
        out.append(Candidate(title, j, group, float(everywhere), 1.0, inside))
    return out


def membership(group: tuple[int, ...], size: int) -> Bool[np.ndarray, " size"]:
    """Whether each code of a vocabulary of ``size`` is in the group."""
    inside = np.zeros(size, bool)
    inside[list(group)] = True
    return inside


def distinct(
    x: Float32[np.ndarray, "n D"], candidates: Iterable[Candidate]
) -> tuple[list[Candidate], list[tuple[str, str]]]:
    """Candidates that vary and repeat none before, and why the others went."""
    kept: list[Candidate] = []
    same: dict[tuple[float, ...], list[Candidate]] = {}
    reasons = []
    for new in candidates:
        if new.low == new.high:
            reasons.append((new.name, "constant in the training rows"))
            continue
        alike = same.setdefault((new.low, new.high, float(new.values.sum(dtype=np.float64))), [])
        twin = next((old for old in alike if _equal(x, old, new)), None)
        if twin:
            reasons.append((new.name, f"equal to {twin.name}"))
            continue
        alike.append(new)
        kept.append(new)
    return kept, reasons


def _equal(x: Float32[np.ndarray, "n D"], a: Candidate, b: Candidate) -> bool:
    """Whether two candidates agree on every record, not only on the sample."""

    def column(c: Candidate) -> np.ndarray:
        return np.isin(x[:, c.column], c.codes) if c.codes else x[:, c.column]

    return bool(np.array_equal(a.values, b.values) and (column(a) == column(b)).all())
