"""Base of all builders: TFDS without TensorFlow, many rows to an example. NumPy only.

One TFDS example is a block of up to 8,192 rows: encoding each row on its own costs about fifty
times the time and four times the disk. ``num_examples`` of a split therefore counts blocks; rows
and class counts are in the metadata, beside the column names and everything else about the data.

A builder says what its columns are (``_spec``) and gives tables, split by split (``_plan``);
packing, counting, train-only statistics, locking and clean-up are done here.
"""

import contextlib
import functools
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from qoejax.data import locking
from qoejax.data.errors import DataError
from qoejax.data.table import NUMERIC, Spec, Table, concatenate, spec_to_json, take

BLOCK_ROWS = 8192
CLASSES = 256
"""Labels are stored in one byte."""

Shard = Callable[[], Iterator[Table]]
Progress = Callable[[int, float], None]
"""Called with the rows done so far and the fraction of the work done, in 0..1."""


class Plan(NamedTuple):
    """How a dataset comes to be.

    ``shards`` maps each split to its shards; each is called once, in order, and yields tables.
    ``finish`` runs after the last one, and returns the final description of the columns (with its
    vocabularies) and whatever else belongs in the metadata, as plain JSON values.
    """

    shards: Mapping[str, Sequence[Shard]]
    finish: Callable[[], tuple[Spec, dict[str, Any]]]


class PackedBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Shard-based builder of blocks of rows, in ArrayRecord.

    Subclasses implement ``_spec`` and ``_plan``, and may fix less with ``_feature_count``.
    ``progress`` may be set to a function that hears how far the preparation is.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: dict[str, str] = {"1.0.0": "First release."}  # noqa: RUF012 (as TFDS wants it)
    progress: Progress | None = None

    def __init__(self, *, file_format: Any = None, **kwargs: Any):
        """As any TFDS builder; the file format defaults to ArrayRecord, the only one tested."""
        super().__init__(file_format=file_format or "array_record", **kwargs)

    def _spec(self) -> Spec:
        """Columns, labels and services, known before any file is read, but for vocabularies."""
        raise NotImplementedError

    def _plan(self, manual_dir: pathlib.Path | None, scratch: pathlib.Path) -> Plan:
        """Checks the sources (all of them, before any work) and says how to read them.

        Args:
          manual_dir: folder of the user's files; None for a dataset that needs none.
          scratch: an empty folder for temporary files, removed afterwards.
        """
        raise NotImplementedError

    def _feature_count(self) -> int | None:
        """F, or None where it is known only once the files have been seen."""
        return len(self._spec().columns)

    def _info(self) -> tfds.core.DatasetInfo:
        spec = self._spec()
        shape = (None, spec.window, self._feature_count())
        features = {
            "x": _bytes_tensor(shape, np.float32),
            "label": _bytes_tensor((None,), np.uint8),
            "group": _bytes_tensor((None,), np.int32),
        }
        if spec.services:
            services = (None, len(spec.services))
            features["mos"] = _bytes_tensor(services, np.float32)
            features["mos_mask"] = _bytes_tensor(services, np.bool_)
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), metadata=tfds.core.MetadataDict()
        )

    def _shard_iterators_per_split(self, dl_manager: Any) -> Mapping[str, Sequence[Callable]]:
        manual = pathlib.Path(dl_manager.manual_dir) if self.MANUAL_DOWNLOAD_INSTRUCTIONS else None
        scratch = pathlib.Path(self.data_dir) / "scratch"
        scratch.mkdir()
        plan = self._plan(manual, scratch)
        self._tallies = {split: _Tally() for split in plan.shards}
        self._finish = plan.finish
        return {
            split: [functools.partial(_examples, shard, self._tallies[split]) for shard in shards]
            for split, shards in plan.shards.items()
        }

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        super()._download_and_prepare(dl_manager, download_config)
        shutil.rmtree(pathlib.Path(self.data_dir) / "scratch")
        for split, tally in self._tallies.items():
            if not tally.rows:
                total = sum(t.rows for t in self._tallies.values())
                raise DataError(
                    f"{self._spec().dataset}: no row fell into the {split} split; {total} usable "
                    "rows are too few to split."
                )
        spec, extra = self._finish()
        train = self._tallies["train"]
        self.info.metadata.update(
            spec=spec_to_json(spec),
            rows={split: tally.rows for split, tally in self._tallies.items()},
            class_counts={
                split: dict(zip(spec.label_names, tally.class_counts(spec), strict=True))
                for split, tally in self._tallies.items()
            },
            train_statistics=train.statistics(spec),
            **extra,
        )

    def _log_download_bytes(self) -> None:
        """TFDS prints to standard output here; a library stays silent."""

    def _log_download_done(self) -> None:
        """As above."""

    def download_and_prepare(self, **kwargs: Any) -> None:
        """Prepares the dataset unless it is there; safe against a crash and a concurrent call.

        A lock makes a second call wait, and then find the dataset prepared. What an earlier, killed
        call left behind is removed; after an exception nothing half-written stays.
        """
        if self.data_path.exists():  # The last step of a preparation is a rename.
            return
        with locking.prepare_lock(self.data_path):
            try:
                super().download_and_prepare(**kwargs)
            finally:  # Nothing is downloaded, but TFDS makes room for it.
                for unused in ("downloads/extracted", "downloads"):
                    with contextlib.suppress(OSError):
                        (pathlib.Path(self.data_dir_root) / unused).rmdir()


def _bytes_tensor(shape: tuple[int | None, ...], dtype: Any) -> tfds.features.Tensor:
    return tfds.features.Tensor(shape=shape, dtype=dtype, encoding="bytes")


class _Tally:
    """Rows, classes and per-column moments of one split, as its blocks pass by."""

    def __init__(self) -> None:
        self.rows = 0
        self._classes = np.zeros(CLASSES, np.int64)
        self._records = 0
        self._mean: Any = 0.0
        self._squares: Any = 0.0
        self._low: Any = np.inf
        self._high: Any = -np.inf

    def add(self, table: Table) -> None:
        """Counts a block (Chan, Golub, LeVeque 1979: merging keeps float64 accuracy)."""
        self.rows += len(table.label)
        self._classes += np.bincount(table.label, minlength=CLASSES)
        x = table.x.reshape(-1, table.x.shape[-1]).astype(np.float64)
        mean = x.mean(0)
        total = self._records + len(x)
        delta = mean - self._mean
        self._squares = self._squares + ((x - mean) ** 2).sum(0)
        self._squares = self._squares + delta**2 * (self._records * len(x) / total)
        self._mean = self._mean + delta * (len(x) / total)
        self._low = np.minimum(self._low, x.min(0))
        self._high = np.maximum(self._high, x.max(0))
        self._records = total

    def class_counts(self, spec: Spec) -> list[int]:
        """Rows of each of the spec's labels, in their order."""
        return self._classes[: len(spec.label_names)].tolist()

    def statistics(self, spec: Spec) -> dict[str, dict[str, float]]:
        """Mean, standard deviation, minimum and maximum of each numeric column, raw units."""
        std = np.sqrt(self._squares / self._records)
        columns = zip(spec.columns, self._mean, std, self._low, self._high, strict=True)
        return {
            c.name: {"mean": float(m), "std": float(s), "min": float(lo), "max": float(hi)}
            for c, m, s, lo, hi in columns
            if c.kind == NUMERIC
        }


def _examples(shard: Shard, tally: _Tally) -> Iterator[tuple[int, dict[str, Any]]]:
    """Key and example of each block of a shard."""
    for i, table in enumerate(blocks(shard(), BLOCK_ROWS)):
        tally.add(table)
        example = {"x": table.x, "label": table.label.astype(np.uint8), "group": table.group}
        if table.mos.shape[1]:
            example |= {"mos": table.mos, "mos_mask": table.mos_mask}
        yield i, example


def blocks(tables: Iterator[Table], rows: int) -> Iterator[Table]:
    """The same rows in the same order, ``rows`` at a time; only the last table may be shorter."""
    waiting: list[Table] = []
    held = 0
    for table in tables:
        waiting.append(table)
        held += len(table.label)
        if held >= rows:
            joined = concatenate(waiting)
            full = held - held % rows
            for start in range(0, full, rows):
                yield take(joined, slice(start, start + rows))
            waiting, held = [take(joined, slice(full, held))], held - full
    if held:
        yield concatenate(waiting)
