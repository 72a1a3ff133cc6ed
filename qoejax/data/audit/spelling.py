"""How cells are spelt: what a reader of numbers would never see. NumPy only.

'0' and '0.0' are one value; where one class was exported with the one and another class with the
other, the text tells the class. A column that holds a time here and an address there has been
shifted.
"""

import re
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from qoejax.data import cells
from qoejax.data.audit.rawcells import Cells

FORMS = ("empty", "number", "hexadecimal", "time", "address", "text")
LEAST = 0.01
"""Share of a column's cells below which another form is a stray."""

_ADDRESS = re.compile(r"(?:\d{1,3}\.){3}\d{1,3}|(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}", re.IGNORECASE)
_LONG_ADDRESS = re.compile(r"[0-9a-f]*:[0-9a-f:]*:[0-9a-f:.]*", re.IGNORECASE)


class Variants(NamedTuple):
    """Values of a column that are spelt in several ways.

    ``value`` [N] is each row's value (-1 where it is spelt in one way only), ``spelling`` [N] how
    it is spelt; ``example`` shows two spellings of one value.
    """

    rows: int
    value: Int64[np.ndarray, " N"]
    spelling: Int64[np.ndarray, " N"]
    example: tuple[str, str]


def form(text: str) -> str:
    """What a cell looks like: one of ``FORMS``. Zeros count as empty: they mean "not seen"."""
    bare = text.strip()
    if bare in cells.ABSENT:
        return "empty"
    if np.isfinite(cells.number(bare)):
        return "hexadecimal" if "x" in bare.casefold() else "number"
    if _ADDRESS.fullmatch(bare):
        return "address"
    if np.isfinite(cells.clock(bare)):
        return "time"
    return "address" if _LONG_ADDRESS.fullmatch(bare) else "text"


def forms(spelt: Cells) -> Int64[np.ndarray, " N"]:
    """Index into ``FORMS`` of each row's cell."""
    return np.array([FORMS.index(form(t)) for t in spelt.text], np.int64)[spelt.code]


def mixed(spelt: Cells) -> dict[str, float]:
    """Shares of the forms that cells have beside "empty"; none where they are numbers and texts.

    A text may look like a number by chance, so these two are no mixture.
    """
    found = forms(spelt)
    share = np.bincount(found, minlength=len(FORMS)) / len(found)
    held = {f: float(s) for f, s in zip(FORMS, share, strict=True) if f != "empty" and s >= LEAST}
    return {} if set(held) == {"number", "text"} else held


def misplaced(spelt: Cells, expected: str) -> Int64[np.ndarray, " rows"]:
    """Rows whose cell cannot be what the column holds ("number" or "time")."""
    fits = {"number": {"empty", "number", "hexadecimal"}, "time": {"time"}}
    bad = np.array([form(t) not in fits[expected] for t in spelt.text], bool)
    return np.flatnonzero(bad[spelt.code])


def variants(spelt: Cells) -> Variants | None:
    """The values that are spelt in several ways, None where there are none."""
    values: dict[str, list[int]] = {}
    for i, text in enumerate(spelt.text):
        values.setdefault(_value(text), []).append(i)
    several = {v: i for v, i in values.items() if len(i) > 1}
    if not several:
        return None
    of_text = np.full(len(spelt.text), -1, np.int64)
    for k, texts in enumerate(several.values()):
        of_text[texts] = k
    value = of_text[spelt.code]
    count = np.bincount(spelt.code, minlength=len(spelt.text))
    often = max(several.values(), key=lambda i: sorted(count[i])[-2])
    first, second = sorted(often, key=lambda i: -count[i])[:2]
    style = np.array([_styles(t) for t in spelt.text], np.int64)
    return Variants(
        int((value >= 0).sum()), value, style[spelt.code], (spelt.text[first], spelt.text[second])
    )


def _value(text: str) -> str:
    """One text per value: number, or text without case and padding; empty and "-" are apart."""
    bare = text.strip()
    number = cells.number(bare)
    return repr(number) if np.isfinite(number) else bare.casefold()


def _styles(text: str) -> int:
    """How a cell is spelt, its value apart: padding, case, point, exponent, hexadecimal."""
    bare = text.strip()
    low = bare.casefold()
    marks = (text != bare, bare != low, "." in low, "e" in low, "x" in low)
    return sum(1 << i for i, mark in enumerate(marks) if mark)
