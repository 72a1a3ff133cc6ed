"""Leaves as raw little-endian bytes in the order of an agreed, hashed tree spec.

NumPy only. There is no parser: the spec fixes every offset before a byte arrives, so a payload
either has exactly the right length or is refused. Encoding costs no bytes beyond the numbers.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from qoejax.wire import cbor
from qoejax.wire.errors import Code, EnvelopeError

DTYPES = ("<f2", "<f4", "<f8", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8")
"""Number formats that may be sent, as NumPy writes them."""

_MAX_BYTES = (1 << 31) - (1 << 16)
"""A cipher takes less than 2 GiB at once, signature and tag included."""


class LeafSpec(NamedTuple):
    """Name, shape and number format of one leaf."""

    path: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of the leaf in a payload."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


TreeSpec = tuple[LeafSpec, ...]
"""Leaves in sending order; the order is part of the agreement."""


def tree_spec(leaves: Iterable[tuple[str, tuple[int, ...], Any]]) -> TreeSpec:
    """Spec of ``(path, shape, dtype)`` triples; SPEC names the leaf that cannot be sent."""
    spec = []
    for path, shape, dtype in leaves:
        text = np.dtype(dtype).newbyteorder("<").str
        if text not in DTYPES:
            raise EnvelopeError(Code.SPEC, f"leaf {path!r}: dtype {dtype} cannot be sent")
        spec.append(LeafSpec(path, tuple(int(n) for n in shape), text))
    if len({leaf.path for leaf in spec}) != len(spec):
        raise EnvelopeError(Code.SPEC, "two leaves share one path")
    if any(n < 0 for leaf in spec for n in leaf.shape) or nbytes(tuple(spec)) > _MAX_BYTES:
        raise EnvelopeError(Code.SPEC, "a leaf has a negative size, or the tree has 2 GiB or more")
    return tuple(spec)


def nbytes(spec: TreeSpec) -> int:
    """Exact length of a payload of this spec."""
    return sum(leaf.nbytes for leaf in spec)


def spec_bytes(spec: TreeSpec) -> bytes:
    """Deterministic CBOR of ``[[path, [dimension, ...], dtype], ...]``."""
    return cbor.encode([[leaf.path, list(leaf.shape), leaf.dtype] for leaf in spec])


def spec_digest(spec: TreeSpec) -> bytes:
    """SHA-256 (32 bytes) by which header and announcement name the spec."""
    return hashlib.sha256(b"qoejax/v1/tree-spec\0" + spec_bytes(spec)).digest()


def model_digest(payload: bytes) -> bytes:
    """SHA-256 (32 bytes) by which header and announcement name the base model."""
    return hashlib.sha256(b"qoejax/v1/model\0" + payload).digest()


def encode(spec: TreeSpec, leaves: Sequence[np.ndarray | np.generic]) -> bytes:
    """Leaves, in spec order, as ``nbytes(spec)`` bytes; SPEC names a leaf that does not fit."""
    if len(leaves) != len(spec):
        raise EnvelopeError(Code.SPEC, f"{len(leaves)} leaves for a spec of {len(spec)}")
    parts = []
    for want, leaf in zip(spec, leaves, strict=True):
        array = np.asarray(leaf)
        found = array.dtype.newbyteorder("<").str
        if array.shape != want.shape or found != want.dtype:
            raise EnvelopeError(
                Code.SPEC,
                f"leaf {want.path!r}: expected {want.dtype}{list(want.shape)}, "
                f"got {found}{list(array.shape)}",
            )
        parts.append(array.astype(want.dtype, copy=False).tobytes())
    return b"".join(parts)


def decode(spec: TreeSpec, payload: bytes) -> list[np.ndarray]:
    """Read-only views of ``payload``, one a leaf, without copying; SIZE unless it fits exactly."""
    if len(payload) != nbytes(spec):
        raise EnvelopeError(
            Code.SIZE, f"payload of {len(payload)} bytes, the spec needs {nbytes(spec)}"
        )
    leaves, offset = [], 0
    for leaf in spec:
        n = math.prod(leaf.shape)
        flat = np.frombuffer(payload, leaf.dtype, n, offset) if n else np.empty(0, leaf.dtype)
        flat.flags.writeable = False
        leaves.append(flat.reshape(leaf.shape))
        offset += leaf.nbytes
    return leaves


def norm(spec: TreeSpec, payload: bytes) -> float:
    """L2 norm over all leaves of a payload, infinity where float64 overflows.

    NONFINITE names the first leaf that holds NaN or infinity.
    """
    total = 0.0
    with np.errstate(all="ignore"):
        for want, leaf in zip(spec, decode(spec, payload), strict=True):
            flat = leaf.reshape(-1)
            # Fast path: a finite sum of squares proves that every term was finite.
            wide = flat if want.dtype == "<f4" else flat.astype(np.float64)
            square = float(np.dot(wide, wide))
            if not math.isfinite(square):
                if not np.isfinite(flat).all():
                    raise EnvelopeError(Code.NONFINITE, f"leaf {want.path!r} has NaN or infinity")
                wide = flat.astype(np.float64)
                square = float(np.dot(wide, wide))
            total += square
    return math.sqrt(total)
