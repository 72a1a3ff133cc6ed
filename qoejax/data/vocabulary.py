"""Categories seen so far, in bounded memory (NumPy, on the host)."""

import numpy as np
from jaxtyping import Int32

CAP = 4096
"""Values a vocabulary holds at most, "" included: the most frequent in training rows."""

LIMIT = 1 << 17
"""Distinct values remembered while reading; beyond, the rarest half is forgotten."""


class Vocabulary:
    """Running codes of one categorical column, and the final vocabulary once all rows are known.

    A column such as a payload has a new value in nearly every row. What is forgotten on the way
    (lossy counting, Manku and Motwani 2002) was rarer than one row in ``LIMIT`` / 2 at that time.
    """

    def __init__(self, cap: int = CAP, limit: int = LIMIT):
        self._cap, self._limit = cap, limit
        self._ids = {"": 0}
        self._next = 1
        self._seen = np.zeros(1024, np.int64)
        self._train = np.zeros(1024, np.int64)

    def encode(self, values: list[str], inverse: Int32[np.ndarray, " n"]) -> np.ndarray:
        """Running codes [n] of the rows whose text is ``values[inverse]``."""
        codes = np.empty(len(values), np.int32)
        for i, value in enumerate(values):
            code = self._ids.get(value)
            if code is None:
                code = self._ids[value] = self._next
                self._next += 1
            codes[i] = code
        self._seen = _grown(self._seen, self._next)
        out = codes[inverse]
        np.add.at(self._seen, out, 1)
        if len(self._ids) > self._limit:
            self._forget()
        return out

    def count_train(self, codes: Int32[np.ndarray, " n"]) -> None:
        """Notes that training rows have these codes."""
        self._train = _grown(self._train, self._next)
        np.add.at(self._train, codes, 1)

    def finish(self) -> tuple[tuple[str, ...], Int32[np.ndarray, " ids"]]:
        """The final vocabulary, most frequent first, and the final code of each running code."""
        self._train = _grown(self._train, self._next)
        found = [(-int(self._train[i]), value, i) for value, i in self._ids.items() if i]
        kept = sorted(entry for entry in found if entry[0] < 0)[: self._cap - 1]
        final = np.zeros(self._next, np.int32)
        for code, (_, _, i) in enumerate(kept, 1):
            final[i] = code
        return ("", *(value for _, value, _ in kept)), final

    def _forget(self) -> None:
        ranked = sorted(self._ids.items(), key=lambda item: (-self._seen[item[1]], item[1]))
        self._ids = {"": 0} | dict(ranked[: self._limit // 2])


def _grown(counts: np.ndarray, size: int) -> np.ndarray:
    """The same counts, with room for at least ``size``."""
    if len(counts) >= size:
        return counts
    return np.concatenate([counts, np.zeros(max(size, 2 * len(counts)) - len(counts), np.int64)])
