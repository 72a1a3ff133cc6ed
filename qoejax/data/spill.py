"""Rows that wait on the disk until the vocabularies are known (NumPy, on the host)."""

import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Float32, Int32, UInt64

from qoejax.data import cells, split
from qoejax.data.records import Records
from qoejax.data.table import NUMERIC, Spec, Table, make_table
from qoejax.data.vocabulary import Vocabulary

Chunk = tuple[
    Float32[np.ndarray, "n numeric"], Int32[np.ndarray, "n categorical"], Int32[np.ndarray, " n"]
]
"""Numbers, running codes and labels of some rows."""


def append(path: pathlib.Path, rows: Records, chosen: np.ndarray) -> None:
    """Adds the chosen rows to a spill file."""
    with path.open("ab") as f:
        for array in (rows.numeric, rows.codes, rows.label):
            np.save(f, array[chosen], allow_pickle=False)


def chunks(path: pathlib.Path) -> Iterator[Chunk]:
    """What was appended to a spill file, in order; nothing if nothing was."""
    if not path.exists():
        return
    with path.open("rb") as f:
        while f.peek(1):
            numeric, codes, label = (np.load(f, allow_pickle=False) for _ in range(3))
            yield numeric, codes, label


class Merger:
    """Turns spilled rows into tables, once all vocabularies are final.

    Two rows that differ only in a category that the vocabulary does not hold become equal. Where
    one is a training row and the other a test row, the split would leak: ``find_collisions`` looks
    for such test rows, so that they can be moved to the training split.
    """

    def __init__(self, spec: Spec, vocabularies: Mapping[str, Vocabulary], group: str):
        finished = {name: v.finish() for name, v in vocabularies.items()}
        self.spec = spec._replace(vocab={name: values for name, (values, _) in finished.items()})
        self._final = {name: final for name, (_, final) in finished.items()}
        self._names = [c.name for c in spec.columns]
        self._numeric = [c.name for c in spec.columns if c.kind == NUMERIC]
        self._group = self._names.index(group) if group in self._names else -1
        self._retained = [i for i, c in enumerate(spec.columns) if not c.leaky]
        self._train_hashes = np.zeros(0, np.uint64)

    def find_collisions(self, train: list[pathlib.Path]) -> None:
        """Notes the content of training rows, if any retained category has been lost at all."""
        lost = (
            (self._final[c.name][1:] == 0).any()
            for c in self.spec.columns
            if c.name in self._final and not c.leaky
        )
        if any(lost):
            hashes = [self._hashes(self._x(chunk)) for path in train for chunk in chunks(path)]
            self._train_hashes = np.unique(np.concatenate([self._train_hashes, *hashes]))

    def tables(self, path: pathlib.Path, colliding: bool | None = None) -> Iterator[Table]:
        """All rows of a spill file, or only those (not) equal to some training row."""
        for chunk in chunks(path):
            x, label = self._x(chunk), chunk[2]
            if colliding is not None:
                hit = np.zeros(len(x), bool)
                if len(self._train_hashes):
                    hit = np.isin(self._hashes(x), self._train_hashes)
                x, label = x[hit == colliding], label[hit == colliding]
            group = None
            if self._group >= 0:  # Code 0 is "no host": -1 in the contract.
                codes = x[:, self._group].astype(np.int32)
                group = np.where(codes > 0, codes, -1)
            yield make_table(x[:, None], label, group)

    def _x(self, chunk: Chunk) -> Float32[np.ndarray, "n F"]:
        numeric, codes, _ = chunk
        columns = dict(zip(self._numeric, numeric.T, strict=True))
        for name, column in zip(self._final, codes.T, strict=True):
            columns[name] = self._final[name][column].astype(np.float32)
        return np.stack([columns[name] for name in self._names], 1)

    def _hashes(self, x: Float32[np.ndarray, "n F"]) -> UInt64[np.ndarray, " n"]:
        content = x[:, self._retained]
        for j, i in enumerate(self._retained):
            if self._names[i] in self._final:
                values = self.spec.vocab[self._names[i]]
                numbers = np.array([cells.content_number(v) for v in values], np.float32)
                content[:, j] = numbers[content[:, j].astype(np.int32)]
        return split.row_hash(content)
