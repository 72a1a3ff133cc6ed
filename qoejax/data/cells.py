"""Cells of raw files to numbers, canonical texts and codes (NumPy and pyarrow, on the host).

The same cell gives the same value whatever its spelling and however the file was read: "0" and
"0.0", hexadecimal and decimal, plain and padded, a CSV column and a typed Parquet one.
"""

import hashlib
import math
import re
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int32

ABSENT = frozenset({"", "-", "0", "0.0"})
"""Texts of a categorical cell that mean "not seen"; they become ""."""

LONGEST_TEXT = 64
"""Longer texts keep their first 47 characters and a digest, so memory stays bounded."""

_HEX = re.compile(r"[+-]?0[xX][0-9a-fA-F]{1,16}")
_WHOLE = re.compile(r"(-?\d+)\.0*")
_CLOCK = re.compile(r"(?:^|[\sT])(\d{1,2}):(\d{2}):(\d{2}(?:\.\d+)?)")


def number(text: str) -> float:
    """The value of a cell, NaN if it has none: decimal or hexadecimal, surrounded by spaces or not.

    An empty cell and "-" are NaN too; ``numbers`` decides what they mean.
    """
    text = text.strip()
    try:
        return float(int(text, 16)) if _HEX.fullmatch(text) else float(_no_underscore(text))
    except (ValueError, OverflowError):
        return math.nan


def _no_underscore(text: str) -> str:
    """Python reads "1_0" as ten; a file that says so is damaged."""
    if "_" in text:
        raise ValueError(text)
    return text


def clock(text: str) -> float:
    """Seconds since midnight of a cell such as "2021 22:14:30.939803"; NaN without a time."""
    found = _CLOCK.search(text)
    if found is None:
        return math.nan
    hours, minutes, seconds = found.groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def canonical(text: str) -> str:
    """One spelling per category: no padding, no ".0", no hexadecimal; "" for absent."""
    text = text.strip()
    if _HEX.fullmatch(text):
        text = str(int(text, 16))
    elif whole := _WHOLE.fullmatch(text):
        text = whole[1]
    if text in ABSENT:
        return ""
    if len(text) > LONGEST_TEXT:
        digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        text = f"{text[:47]}#{digest}"
    return text


def content_number(text: str) -> float:
    """A number that stands for a category in content hashes: exact in float32, 0 for absent.

    It depends on the text alone, unlike a code, which depends on the vocabulary.
    """
    if not text:
        return 0.0
    return float(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=3).digest(), "big"))


def numbers(
    array: pa.Array, absent_is_zero: bool, parse: Callable[[str], float] = number
) -> Float32[np.ndarray, " n"]:
    """Values of a column; NaN where a cell is damaged, infinite or beyond float32.

    Args:
      array: numbers (null for an empty cell or "-"), or cells as text or bytes.
      absent_is_zero: what an empty cell or "-" means: 0, or damaged.
      parse: reads one cell, where the column comes as text.
    """
    if parse is not number and not _is_text(array.type):
        array = array.cast(pa.string())
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if _is_text(array.type):
        texts, inverse = uniques(array)
        absent = np.array([t.strip() in ("", "-") for t in texts], bool)
        values = np.array([parse(t) for t in texts], np.float64)
        if absent_is_zero:
            values[absent] = 0.0
        values = values[inverse]
    else:
        nulls = array.is_null().to_numpy(zero_copy_only=False)
        values = array.cast(pa.float64()).to_numpy(zero_copy_only=False)
        if absent_is_zero and nulls.any():
            values = np.where(nulls, 0.0, values)
    with np.errstate(over="ignore"):
        out = values.astype(np.float32)
    out[~np.isfinite(out)] = np.nan
    return out


def texts(
    array: pa.Array, canonical: Callable[[str], str] = canonical
) -> tuple[list[str], Int32[np.ndarray, " n"]]:
    """Canonical texts that occur in a column, and the index of each row's text among them."""
    values, inverse = uniques(array)
    return [canonical(v) for v in values], inverse


def uniques(array: pa.Array) -> tuple[list[str], Int32[np.ndarray, " n"]]:
    """Distinct cells as text ("" for null; undecodable bytes replaced), and each row's index."""
    if not _is_text(array.type):
        array = array.cast(pa.string())
    encoded = array.dictionary_encode("encode")
    values = [_decode(v) for v in encoded.dictionary.to_pylist()]
    inverse = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32)
    return values, inverse


def _decode(value: str | bytes | None) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else value.decode("utf-8", errors="replace")


def _is_text(kind: pa.DataType) -> bool:
    tests: Sequence[Callable[[pa.DataType], bool]] = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_binary,
        pa.types.is_large_binary,
    )
    return any(test(kind) for test in tests)
