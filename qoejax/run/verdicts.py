"""What a person reads of the verdicts on a capture: who did what, and when. Text, from columns."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

SHOWN = 8
"""Sources and windows listed before the others are only counted."""

_NEEDED = {"start", "end", "source", "destination", "protocol", "class", "action"}
_WINDOW = "  {start}  {source} > {destination}  {protocol}  {class} {probability:.2f}  {action}"


def lines(table: pa.Table) -> Iterator[str]:
    """A summary, line by line: sources by their attacks, then the first and the surest windows.

    Nothing is said of a table without times, hosts or actions.
    """
    if not table.num_rows or not set(table.column_names) >= _NEEDED:
        return
    columns = {name: np.asarray(table[name]) for name in table.column_names}
    acted = columns["action"] != "allow"
    yield (
        f"{table.num_rows} windows from {columns['start'].min()} to {columns['end'].max()}; "
        f"{int(acted.sum())} call for an action"
    )
    yield from _sources(columns, acted)
    if acted.any():
        first = np.flatnonzero(acted)[:SHOWN].tolist()
        yield "first windows to act on:"
        yield from (_window(columns, i) for i in first)
        sure = np.where(acted, columns["p_attack"], -1.0)
        surest = np.argsort(-sure, kind="stable")[: min(SHOWN, int(acted.sum()))]
        yield "surest attacks:"
        yield from (_window(columns, i) for i in sorted(surest.tolist()))


def _sources(columns: dict[str, np.ndarray], acted: np.ndarray) -> Iterator[str]:
    names, of = np.unique(columns["source"], return_inverse=True)
    attacks = np.bincount(of, weights=acted, minlength=len(names)).astype(int)
    order = np.argsort(-attacks, kind="stable")
    for s in order[:SHOWN]:
        mine = of == s
        classes, counts = np.unique(columns["class"][mine], return_counts=True)
        said = ", ".join(
            f"{counts[c]} {classes[c]}" for c in np.argsort(-counts, kind="stable").tolist()
        )
        since = f", first at {columns['start'][mine & acted][0]}" if attacks[s] else ""
        yield f"  {names[s]}: {said}; {attacks[s]} to act on{since}"
    if len(names) > SHOWN:
        yield f"  and {len(names) - SHOWN} more sources"


def _window(columns: dict[str, np.ndarray], i: int) -> str:
    return _WINDOW.format(**{name: column[i] for name, column in columns.items()})
