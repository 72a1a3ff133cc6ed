"""Sums over the records of each bin of time, whatever the order of the records. NumPy only.

Memory grows with the number of bins that hold a record, about 1 KB each, not with the records. A
record enters the bin in which it *ended*, when the monitor writes it, so that no bin knows the
future; only the response of benign transactions is also kept by the bin in which they *began*.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int, Int32, Int64, UInt64

from qoejax.data import sketch
from qoejax.data.errors import DataError
from qoejax.data.schema import ton_iot_windows as schema

MOST_BINS = 500_000
"""Bins with a record: 57 days of 10 s. More means time stamps that are not."""

_EXACT = 2.0**20
"""Durations and logarithms are rounded to 2^-20, so that sums do not depend on their order."""

OTHER, NONE = 0, 1
"""Codes, beyond those of the schema's table, of a value that is not in it, and of no value."""

CODED = {
    "proto": schema.PROTOCOLS,
    "service": schema.SERVICES,
    "conn_state": schema.STATES,
}


class Flows(NamedTuple):
    """Records: second of their beginning, ``sums`` as the schema orders them, codes and hashes.

    ``label`` is -1 where unknown. ``distinct`` holds 31-bit hashes of the columns of that name.
    """

    begin: Int64[np.ndarray, " n"]
    sums: Float64[np.ndarray, "n sums"]
    codes: dict[str, Int32[np.ndarray, " n"]]
    distinct: Int[np.ndarray, "n columns"]
    label: Int32[np.ndarray, " n"]


class Dense(NamedTuple):
    """Sums of B consecutive bins, empty ones included.

    ``label`` [B, C] counts records by class, and ``unlabelled`` the others. ``ended`` and ``asked``
    [B, Q, 3] hold, for each kind of transaction, those done, those failed, and the sum of the
    logarithms of the responses (clipped to the range that the score tells apart): of all that
    ended in the bin, and of the benign ones that began in it.
    """

    label: Float64[np.ndarray, "B C"]
    unlabelled: Float64[np.ndarray, " B"]
    sums: Float64[np.ndarray, "B sums"]
    longest: Float64[np.ndarray, " B"]
    proto: Float64[np.ndarray, "B p"]
    service: Float64[np.ndarray, "B s"]
    conn_state: Float64[np.ndarray, "B t"]
    ended: Float64[np.ndarray, "B Q 3"]
    asked: Float64[np.ndarray, "B Q 3"]
    bits: UInt64[np.ndarray, "B columns words"]
    spread: Float64[np.ndarray, "B classes"]


class Bins:
    """Bins by number (seconds since 1970 divided by ``bin_s``), as records are added."""

    def __init__(self, bin_s: int):
        classes, kinds = len(schema.TYPES), len(schema.TRANSACTIONS)
        shapes = {
            "began": (),
            "label": (classes + 1,),
            "sums": (len(schema.SUMS),),
            "longest": (),
            **{name: (len(table) + 2,) for name, table in CODED.items()},
            "ended": (kinds, 3),
            "asked": (kinds, 3),
            "bits": (len(schema.DISTINCT), sketch.WORDS),
            "spread": (sketch.CLASSES,),
        }
        kind: dict[str, Any] = dict.fromkeys(shapes, np.float64)
        kind |= dict.fromkeys(("began", "label", "spread", *CODED), np.uint32)
        kind["bits"] = np.uint64
        self._bin_s = bin_s
        self._row: dict[int, int] = {}
        self._arrays = {name: np.zeros((0, *shape), kind[name]) for name, shape in shapes.items()}

    def add(self, flows: Flows) -> None:
        """Adds records.

        Raises:
          DataError: the records are spread over more than ``MOST_BINS`` bins.
        """
        if not len(flows.begin):
            return
        at = self._arrays
        duration = np.rint(flows.sums[:, 0] * _EXACT) / _EXACT
        row, own = self._rows((flows.begin + duration) // self._bin_s)
        codes = flows.codes | {"label": flows.label % (len(schema.TYPES) + 1)}  # -1 is the last
        for name, code in codes.items():
            at[name][row] += _count(own, code, len(row), at[name].shape[1])
        classes = flows.distinct[:, schema.DISTINCT.index("dst_ip")] % sketch.CLASSES
        at["spread"][row] += _count(own, classes, len(row), sketch.CLASSES)
        sums = np.concatenate([duration[:, None], flows.sums[:, 1:]], 1)
        at["sums"][row] += _sum(own, sums, len(row))
        np.maximum.at(at["longest"], row[own], duration)
        for j, hashes in enumerate(flows.distinct.T):
            bits = np.zeros((len(row), sketch.WORDS), np.uint64)
            sketch.mark(bits, own, hashes)
            at["bits"][row, j] |= bits
        judged = _judged(flows, duration)
        at["ended"][row] += _sum(own, judged, len(row))
        row, own = self._rows(flows.begin // self._bin_s)
        at["began"][row] += _count(own, np.zeros_like(flows.label), len(row), 1)[:, 0]
        at["asked"][row] += _sum(own, judged * (flows.label == 0)[:, None, None], len(row))

    def blocks(self, gap_s: int) -> list[tuple[int, int]]:
        """First and last bin of each capture: records began in both, and no gap between is wider.

        ``gap_s`` is the longest time without a record inside a capture.
        """
        numbers = np.fromiter(self._row, np.int64, len(self._row))
        numbers = np.sort(numbers[self._arrays["began"][: len(numbers)] > 0])
        if not len(numbers):
            return []
        breaks = np.flatnonzero(np.diff(numbers) > gap_s // self._bin_s)
        first, last = numbers[np.r_[0, breaks + 1]], numbers[np.r_[breaks, len(numbers) - 1]]
        return list(zip(first.tolist(), last.tolist(), strict=True))

    def dense(self, first: int, last: int) -> Dense:
        """The bins ``first`` to ``last``, both included."""
        row = np.array([self._row.get(b, -1) for b in range(first, last + 1)], np.int64)
        out = {}
        for name, array in self._arrays.items():
            if name != "began":
                out[name] = array[row]
                out[name][row < 0] = 0
                if name != "bits":
                    out[name] = out[name].astype(np.float64)
        label = out.pop("label")
        return Dense(label=label[:, :-1], unlabelled=label[:, -1], **out)

    def _rows(
        self, numbers: Float64[np.ndarray, " n"] | Int64[np.ndarray, " n"]
    ) -> tuple[Int64[np.ndarray, " u"], Int64[np.ndarray, " n"]]:
        """Rows of the distinct bins among ``numbers``, and which of these each record is in."""
        unique, own = np.unique(numbers.astype(np.int64), return_inverse=True)
        row = np.array([self._row.setdefault(b, len(self._row)) for b in unique.tolist()], np.int64)
        if len(self._row) > MOST_BINS:
            raise DataError(
                f"the records are spread over more than {MOST_BINS} bins of {self._bin_s} s; "
                "expected time stamps of a few weeks."
            )
        size = len(self._arrays["began"])
        if len(self._row) > size:
            more = max(1024, size, len(self._row) - size)
            for name, array in self._arrays.items():
                room = np.zeros((more, *array.shape[1:]), array.dtype)
                self._arrays[name] = np.concatenate([array, room])
        return row, own


def _count(
    own: Int64[np.ndarray, " n"], code: Int[np.ndarray, " n"], rows: int, codes: int
) -> UInt64[np.ndarray, "rows codes"]:
    """How often each code occurs in each row."""
    flat = np.bincount(own * codes + code, minlength=rows * codes)
    return flat.reshape(rows, codes).astype(np.uint64)


def _sum(
    own: Int64[np.ndarray, " n"], values: Float64[np.ndarray, "n ..."], rows: int
) -> Float64[np.ndarray, "rows ..."]:
    """Sums of the values of each row."""
    flat = values.reshape(len(values), -1)
    summed = [np.bincount(own, weights=column, minlength=rows) for column in flat.T]
    return np.stack(summed, 1).reshape(rows, *values.shape[1:])


def _judged(flows: Flows, duration: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, "n Q 3"]:
    """Done, failed and logarithm of the response, for each kind of transaction; else 0."""
    state, port = flows.codes["conn_state"], flows.distinct[:, schema.DISTINCT.index("dst_port")]
    failed_codes = [schema.STATES.index(name) for name in schema.FAILED]
    done, failed = state == schema.STATES.index(schema.DONE), np.isin(state, failed_codes)
    out = np.zeros((len(state), len(schema.TRANSACTIONS), 3))
    for q, kind in enumerate(schema.TRANSACTIONS):
        mine = flows.codes["service"] == schema.SERVICES.index(kind.service)
        if kind.port:
            mine &= port == sketch.text_hash(kind.port)
        wait = np.log(np.clip(duration, kind.best_s, kind.worst_s))
        out[:, q, 0] = mine & done
        out[:, q, 1] = mine & failed
        out[:, q, 2] = (mine & done) * np.rint(wait * _EXACT) / _EXACT
    return out
