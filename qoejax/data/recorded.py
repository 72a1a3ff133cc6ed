"""Base of the builders that read recorded traffic from the user's files (NumPy, on the host).

The split is by content: a row goes to the test split if the hash of its retained (not leaky)
columns says so, 20 of 100. Equal rows therefore never stand on both sides, whatever file they come
from, and keeping a leaky column later cannot change that. Rows keep the order of the files, some of
which are sorted by class: shuffle by index.
"""

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool

from qoejax.data import rawfile, records, sources, spill, split
from qoejax.data.errors import DataError
from qoejax.data.packed import PackedBuilder, Plan, Progress
from qoejax.data.schema import Level, find, spec_of
from qoejax.data.table import CATEGORICAL, Spec, Table, make_table
from qoejax.data.vocabulary import Vocabulary

HASH_VERSION = 1
"""Of the split: hash, salt, fraction and text numbers. A change needs a new major version."""

SPLIT_SALT = 0
TEST_FRACTION = 0.2

MOST_DROPPED = 0.01
"""A file with a larger share of unusable rows (and more than one) is refused."""

SPLITS = ("train", "test")


class RecordedBuilder(PackedBuilder, skip_registration=True):
    """Builder whose configs are the levels of ``qoejax.data.schema``."""

    def _level(self) -> Level:
        return find(f"{self.name}/{self.builder_config.name}")

    def _spec(self) -> Spec:
        return spec_of(self._level())

    def _feature_count(self) -> int | None:
        return None if self._level().is_partial else super()._feature_count()

    def _plan(self, manual_dir: pathlib.Path | None, scratch: pathlib.Path) -> Plan:
        if manual_dir is None:
            raise DataError(f"{self.name} needs a manual_dir: {self._level().schema.instructions}.")
        found = sources.find(manual_dir, self._level())
        work = _Preparation(self._level(), found, manual_dir, scratch, self.progress)
        if any(c.kind == CATEGORICAL for c in found.columns):
            return work.in_two_passes()
        return work.in_one_pass()


class _Preparation:
    """Reads the files into split tables, and keeps the books of it."""

    def __init__(
        self,
        level: Level,
        found: sources.Sources,
        manual_dir: pathlib.Path,
        scratch: pathlib.Path,
        progress: Progress | None,
    ):
        self._level, self._found = level, found
        self._manual_dir, self._scratch, self._progress = manual_dir, scratch, progress
        self._spec = spec_of(level)._replace(columns=found.columns)
        names = (c.name for c in found.columns if c.kind == CATEGORICAL)
        self._vocabularies = {name: Vocabulary() for name in names}
        self._entries: list[dict[str, Any]] = []
        self._no_clock: dict[str, int] = {}
        self._moved = 0
        self._sizes = [file.path.stat().st_size for file, _ in found.files]

    def in_one_pass(self) -> Plan:
        """Without categories, training rows go straight out, and test rows wait on the disk."""

        def train(i: int) -> Iterator[Table]:
            for rows, test in self._read(i):
                spill.append(self._path("test", i), rows, test)
                yield make_table(rows.numeric[~test][:, None], rows.label[~test])

        def test(i: int) -> Iterator[Table]:
            for numeric, _, label in spill.chunks(self._path("test", i)):
                yield make_table(numeric[:, None], label)

        return self._shards(train, test)

    def in_two_passes(self) -> Plan:
        """With categories, all rows wait until the vocabularies of the training rows are known."""
        for i in range(len(self._found.files)):
            for rows, test in self._read(i):
                for vocabulary, codes in zip(
                    self._vocabularies.values(), rows.codes.T, strict=True
                ):
                    vocabulary.count_train(codes[~test])
                spill.append(self._path("train", i), rows, ~test)
                spill.append(self._path("test", i), rows, test)
        merger = spill.Merger(self._spec, self._vocabularies, self._level.schema.group)
        self._spec = merger.spec
        merger.find_collisions([self._path("train", i) for i in range(len(self._found.files))])

        def train(i: int) -> Iterator[Table]:
            yield from merger.tables(self._path("train", i))
            for table in merger.tables(self._path("test", i), colliding=True):
                self._moved += len(table.label)
                yield table

        def test(i: int) -> Iterator[Table]:
            yield from merger.tables(self._path("test", i), colliding=False)

        return self._shards(train, test)

    def _shards(
        self, train: Callable[[int], Iterator[Table]], test: Callable[[int], Iterator[Table]]
    ) -> Plan:
        """One shard a file and split; TFDS writes all of "train" before it asks for "test"."""
        every = range(len(self._found.files))
        shards = {
            name: [lambda make=make, i=i: make(i) for i in every]
            for name, make in zip(SPLITS, (train, test), strict=True)
        }
        return Plan(shards, self._finish)

    def _path(self, name: str, i: int) -> pathlib.Path:
        return self._scratch / f"{name}-{i}.npy"

    def _read(self, i: int) -> Iterator[tuple[records.Records, Bool[np.ndarray, " n"]]]:
        """Usable rows of file ``i``, with the mask of those that are test rows."""
        file, layout = self._found.files[i]
        tally = records.Tally()
        before = sum(self._sizes[:i])

        def encode(name: str, texts: list[str], inverse: np.ndarray) -> np.ndarray:
            return self._vocabularies[name].encode(texts, inverse)

        rows_before = sum(entry["rows"] for entry in self._entries)
        for rows, done in records.read(file, layout, encode, tally, need_label=True):
            if self._progress:
                share = (before + done * self._sizes[i]) / sum(self._sizes)
                self._progress(rows_before + tally.rows, share)
            yield rows, split.holdout(rows.content, TEST_FRACTION, SPLIT_SALT)
        self._close(file, tally)

    def _close(self, file: rawfile.RawFile, tally: records.Tally) -> None:
        """Judges a file that has been read to its end, and enters it into the books."""
        check_file(file.path, tally, self._level)
        for label, count in tally.no_clock.items():
            name = self._spec.label_names[label]
            self._no_clock[name] = self._no_clock.get(name, 0) + count
        self._entries.append(entry(file, self._manual_dir, tally))

    def _finish(self) -> tuple[Spec, dict[str, Any]]:
        schema = self._level.schema
        dropped: dict[str, int] = {}
        for entry in self._entries:
            for reason, count in entry["dropped"].items():
                dropped[reason] = dropped.get(reason, 0) + count
        return self._spec, {
            "hash_version": HASH_VERSION,
            "split_salt": SPLIT_SALT,
            "test_fraction": TEST_FRACTION,
            "group_column": schema.group,
            "absent_columns": list(self._found.absent),
            "sources": self._entries,
            "passed_over": list(self._found.passed_over),
            "rows_read": sum(entry["rows"] for entry in self._entries),
            "dropped": dropped,
            "rows_without_time": self._no_clock,
            "rows_moved_to_train": self._moved,
        }


def entry(file: rawfile.RawFile, manual_dir: pathlib.Path, tally: records.Tally) -> dict[str, Any]:
    """What the metadata say of a file that has been read."""
    return {
        "path": file.path.relative_to(manual_dir).as_posix(),
        "sha256": rawfile.sha256(file.path),
        "rows": tally.rows,
        "dropped": tally.summary(),
    }


def check_file(path: pathlib.Path, tally: records.Tally, level: Level) -> None:
    """Refuses a file too damaged to be the dataset.

    Raises:
      DataError: it has no rows, labels that the dataset has not (more than one row of them: a
        silent drop could lose a whole class), or too many unusable rows.
    """
    if not tally.rows:
        raise DataError(f"{path}: has a header but no rows.")
    unknown = sum(tally.unknown_labels.values())
    if unknown > 1:
        labels = sources.listed([label for label, _ in tally.unknown_labels.most_common()])
        raise DataError(
            f"{path}: {unknown} rows have labels in {level.schema.label_column!r} that "
            f"{level.schema.title} has not: {labels}."
        )
    dropped = tally.rows - tally.kept
    if dropped > max(1, MOST_DROPPED * tally.rows):
        reasons = records.reasons(tally.summary())
        example = f"; {tally.example}" if tally.example else ""
        raise DataError(
            f"{path}: {dropped} of {tally.rows} rows are unusable ({reasons}{example}); at most "
            f"{MOST_DROPPED:.0%} are left out."
        )
