"""Findings that only raw cells show: spelling, forms, shifted columns, row order. NumPy only."""

import numpy as np

from qoejax.data.audit import order, sentinels, spelling
from qoejax.data.audit.findings import LEAK, LEAST_ROWS, MARGIN, NOTE, Finding, scope_of
from qoejax.data.audit.frame import Column, Frame, Target, column, make_frame
from qoejax.data.audit.rawcells import Cells, Raw

SHIFTED = 0.01
"""Share of a column's cells that cannot be what it holds, beyond which it has been shifted."""


def judge(
    raw: Raw, columns: list[Column], declared: dict[str, str], target: Target
) -> list[Finding]:
    """Findings on the cells of every column.

    Args:
      raw: the cells.
      columns: the same columns, read; in the same order.
      declared: what a column must hold ("number" or "time"), by name, where a schema says so.
      target: of all rows.
    """
    out = []
    for spelt, read in zip(raw.cells.values(), columns, strict=True):
        out += _shifted(spelt, read, declared.get(spelt.name, ""))
        out += _forms(spelt, read, target)
        out += _spelling(spelt, read, target)
    return out + _row_order(target)


def _shifted(spelt: Cells, read: Column, expected: str) -> list[Finding]:
    if not expected:
        return []
    rows = spelling.misplaced(spelt, expected)
    share = len(rows) / len(spelt.code)
    if not len(rows):
        return []
    held = {spelling.form(t): t for t in (spelt.text[c] for c in np.unique(spelt.code[rows]))}
    severity = LEAK if share >= SHIFTED else NOTE
    shown = ", ".join(map(repr, held.values()))
    reason = f"should hold a {expected} but holds {shown}: cells were shifted"
    return [Finding(severity, "shifted", scope_of(read), spelt.name, share, SHIFTED, reason)]


def _forms(spelt: Cells, read: Column, target: Target) -> list[Finding]:
    held = spelling.mixed(spelt)
    if len(held) < 2 and "hexadecimal" not in held:
        return []
    gain = _gain(target, np.arange(len(spelt.code)), np.zeros(len(spelt.code), np.int64),
                 spelling.forms(spelt))  # fmt: skip
    severity = LEAK if gain >= MARGIN else NOTE
    shares = ", ".join(f"{share:.0%} {form}" for form, share in held.items())
    rule = "mixed forms" if len(held) > 1 else "hexadecimal"
    return [Finding(severity, rule, "raw", read.name, gain, MARGIN, f"holds {shares}")]


def _spelling(spelt: Cells, read: Column, target: Target) -> list[Finding]:
    found = spelling.variants(spelt)
    if found is None:
        return []
    rows = np.flatnonzero(found.value >= 0)
    gain = _gain(target, rows, found.value[rows], found.spelling[rows])
    severity = LEAK if gain >= MARGIN else NOTE
    first, second = found.example
    reason = f"{found.rows} rows hold values that are spelt variously: {first!r} and {second!r}"
    if severity == LEAK:
        reason += "; the spelling tells the target"
    return [Finding(severity, "spelling", "raw", read.name, gain, MARGIN, reason)]


def _gain(target: Target, rows: np.ndarray, value: np.ndarray, extra: np.ndarray) -> float:
    """What ``extra`` adds to a look-up of ``value`` on these rows; 0 where it cannot be scored."""
    chosen = target.value[rows]
    if len(rows) < LEAST_ROWS or len(np.unique(chosen)) < 2:
        return 0.0
    half = np.random.default_rng(0).permutation(len(rows)) % 2 == 0
    side = (np.flatnonzero(half), np.flatnonzero(~half))
    both = value * (int(extra.max()) + 1) + extra
    pair = [column(n, v, nominal=True) for n, v in (("value", value), ("spelling", both))]
    frame = make_frame(pair, target._replace(value=chosen), sides=[side])
    plain, spelt = (sentinels.rule(frame, c).lookup for c in frame.columns)
    return spelt - plain


def _row_order(target: Target) -> list[Finding]:
    frame = Frame((), target, (), np.zeros(0, np.int64))
    purity = order.row_purity(frame, np.arange(frame.rows))
    if purity < 0.5:
        return []
    what = "in blocks of one class" if target.names else "in the order of the scores"
    reason = f"rows lie {what}: a split by position would not be fair"
    return [Finding(NOTE, "row order", "split", "", purity, 0.5, reason)]
