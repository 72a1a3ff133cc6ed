"""A deterministic subset of CBOR (RFC 8949, section 4.2.1), written out and read back strictly.

Unsigned integers, byte strings, text, arrays, maps with text keys, and 64-bit floats (always
64 bits wide, never NaN). One value has exactly one encoding and the reader refuses every other:
longer integers, indefinite lengths, unsorted or repeated keys, trailing bytes.
"""

import math
import struct
from typing import Any

from qoejax.wire.errors import Code, EnvelopeError

Value = Any
"""int >= 0, float, bytes, str, list or tuple of values, or dict from str to values."""

_UINT, _BYTES, _TEXT, _ARRAY, _MAP, _FLOAT64 = 0, 2, 3, 4, 5, 0xFB
_DEPTH = 8
_WIDTHS = {24: 1, 25: 2, 26: 4, 27: 8}
_FLOORS = {24: 24, 25: 1 << 8, 26: 1 << 16, 27: 1 << 32}


def _head(major: int, n: int) -> bytes:
    if n < 24:
        return bytes([major << 5 | n])
    for info, width in _WIDTHS.items():
        if n < 1 << 8 * width:
            return bytes([major << 5 | info]) + n.to_bytes(width, "big")
    raise TypeError(f"integers end at 2**64 - 1, got {n}")


def encode(value: Value) -> bytes:
    """The only encoding of ``value``; TypeError for what the subset lacks."""
    if isinstance(value, bool) or value is None:
        raise TypeError(f"{value!r} is outside the subset")
    if isinstance(value, int):
        if value < 0:
            raise TypeError(f"integers are not negative here, got {value}")
        return _head(_UINT, value)
    if isinstance(value, float):
        if math.isnan(value):
            raise TypeError("NaN has many encodings and is refused")
        return bytes([_FLOAT64]) + struct.pack(">d", value)
    if isinstance(value, bytes):
        return _head(_BYTES, len(value)) + value
    if isinstance(value, str):
        text = value.encode()
        return _head(_TEXT, len(text)) + text
    if isinstance(value, list | tuple):
        return _head(_ARRAY, len(value)) + b"".join(map(encode, value))
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("keys of a map are text")
        items = sorted((encode(key), encode(item)) for key, item in value.items())
        return _head(_MAP, len(items)) + b"".join(key + item for key, item in items)
    raise TypeError(f"{type(value).__name__} is outside the subset")


def decode(data: bytes) -> Value:
    """The value that ``data`` encodes; FORMAT unless ``data`` is its only encoding."""
    value, end = _item(data, 0, 0)
    if end != len(data):
        raise _bad(end, f"{len(data) - end} bytes follow the value")
    return value


def _bad(at: int, why: str) -> EnvelopeError:
    return EnvelopeError(Code.FORMAT, f"not deterministic CBOR at byte {at}: {why}")


def _take(data: bytes, at: int, n: int) -> bytes:
    if n > len(data) - at:
        raise _bad(at, f"{n} bytes announced, {len(data) - at} left")
    return data[at : at + n]


def _argument(data: bytes, at: int) -> tuple[int, int]:
    """The number in a head, and where the head ends."""
    info = data[at] & 0x1F
    if info < 24:
        return info, at + 1
    if info not in _WIDTHS:
        raise _bad(at, "indefinite or reserved length")
    n = int.from_bytes(_take(data, at + 1, _WIDTHS[info]), "big")
    if n < _FLOORS[info]:
        raise _bad(at, f"{n} is written longer than it needs")
    return n, at + 1 + _WIDTHS[info]


def _item(data: bytes, at: int, depth: int) -> tuple[Value, int]:
    if depth > _DEPTH:
        raise _bad(at, "nested too deeply")
    first = _take(data, at, 1)[0]
    if first == _FLOAT64:
        (number,) = struct.unpack(">d", _take(data, at + 1, 8))
        if math.isnan(number):
            raise _bad(at, "NaN")
        return number, at + 9
    major = first >> 5
    if major not in (_UINT, _BYTES, _TEXT, _ARRAY, _MAP):
        raise _bad(at, f"type {first:#04x} is outside the subset")
    n, at = _argument(data, at)
    if major == _UINT:
        return n, at
    if major in (_BYTES, _TEXT):
        raw = _take(data, at, n)
        if major == _BYTES:
            return raw, at + n
        try:
            return raw.decode(), at + n
        except UnicodeDecodeError:
            raise _bad(at, "text is not UTF-8") from None
    return _array(data, at, n, depth) if major == _ARRAY else _map(data, at, n, depth)


def _array(data: bytes, at: int, n: int, depth: int) -> tuple[list[Value], int]:
    out = []
    for _ in range(n):
        value, at = _item(data, at, depth + 1)
        out.append(value)
    return out, at


def _map(data: bytes, at: int, n: int, depth: int) -> tuple[dict[str, Value], int]:
    out: dict[str, Value] = {}
    before = b""
    for _ in range(n):
        key, end = _item(data, at, depth + 1)
        if not isinstance(key, str):
            raise _bad(at, "keys of a map are text")
        if data[at:end] <= before:
            raise _bad(at, f"key {key!r} is repeated or out of order")
        before = data[at:end]
        out[key], at = _item(data, end, depth + 1)
    return out, at
