"""Prepared datasets, and raw files in their form, as tables (NumPy, on the host)."""

import contextlib
import os
import pathlib
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from qoejax.data import capture, rated, raw, windowed
from qoejax.data.builders import BUILDERS
from qoejax.data.errors import DataError
from qoejax.data.packed import PackedBuilder, Progress
from qoejax.data.schema import ton_iot_windows
from qoejax.data.table import Spec, Table, make_table, spec_from_json, take

Raw = tuple[Table, Any, dict[str, np.ndarray]]
Reader = Callable[[pathlib.Path, Spec, Collection[str]], Raw]

READERS: dict[str, Reader] = {
    "human_qoe": rated.read_rated,
    "pcap_folder": capture.read,
    **{f"ton_iot/{config}": windowed.read_windows for config in ton_iot_windows.CONFIGS},
}
"""How a raw file of a dataset is read, where it is not one record a line: by "NAME" or
"NAME/CONFIG"."""

READ_BYTES = 1 << 24  # Fetched per call: as quick as more, and small in memory.


def builder(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    manual_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> PackedBuilder:
    """The prepared builder of ``NAME`` or ``NAME/CONFIG``; prepares it first where needed.

    Two processes may call this at once: one prepares, the other waits and reads.

    Args:
      name: such as "ton_iot/10class".
      data_dir: where prepared datasets live; by default where TFDS keeps them.
      manual_dir: folder of the dataset's own files; needed only to prepare.
      progress: hears how far a preparation is.

    Raises:
      DataError: no such dataset or config, no files to prepare it from, files that are not in the
        promised form, or a data_dir that cannot be written or is damaged.
    """
    made = _construct(name, data_dir)
    if made.data_path.exists():
        return made
    if made.MANUAL_DOWNLOAD_INSTRUCTIONS:
        _check_manual_dir(made, name, manual_dir)
    made.progress = progress
    config = tfds.download.DownloadConfig(
        manual_dir=None if manual_dir is None else os.fspath(manual_dir)
    )
    try:
        with _no_tfds_bars():
            made.download_and_prepare(download_config=config)
    except OSError as e:
        raise DataError(f"{name} cannot be prepared in {made.data_path}: {e}.") from e
    return _construct(name, data_dir)


def _check_manual_dir(
    made: PackedBuilder, name: str, manual_dir: str | os.PathLike[str] | None
) -> None:
    what = made.MANUAL_DOWNLOAD_INSTRUCTIONS
    if manual_dir is None:
        where = made.data_path.parent.parent.parent
        raise DataError(f"{name} is not prepared in {where} and no manual_dir is given: {what}.")
    folder = pathlib.Path(manual_dir)
    if not folder.is_dir():
        raise DataError(f"manual_dir {folder} is not a folder: {what}.")
    if not any(folder.iterdir()):
        raise DataError(f"manual_dir {folder} is empty: {what}.")


@contextlib.contextmanager
def _no_tfds_bars() -> Any:
    """Silences the progress bars of TFDS: a library shows none unless asked."""
    was = tfds.core.utils.tqdm_utils._active
    tfds.disable_progress_bar()
    try:
        yield
    finally:
        tfds.core.utils.tqdm_utils._active = was


def _construct(name: str, data_dir: str | os.PathLike[str] | None) -> PackedBuilder:
    dataset, _, config = name.partition("/")
    if dataset not in BUILDERS:
        raise DataError(
            f"There is no dataset {dataset!r}; there are {', '.join(sorted(BUILDERS))}."
        )
    cls = BUILDERS[dataset]
    configs = [c.name for c in cls.BUILDER_CONFIGS]
    if config and config not in configs:
        known = f"it has {', '.join(configs)}" if configs else "it has no configs"
        raise DataError(f"{dataset} has no config {config!r}; {known}.")
    where = None if data_dir is None else os.fspath(data_dir)
    try:
        made = cls(data_dir=where, config=config or None)
        if made.data_path.exists():
            made.info.metadata["spec"]  # Read now: damage is better found before any work.
    except Exception as e:  # Whatever TFDS' parsers raise: protobuf has errors of its own.
        raise DataError(
            f"{name} as prepared in {where} is damaged ({e!r}); delete it and prepare it again."
        ) from e
    return made


def table(prepared: PackedBuilder, split: str) -> tuple[Spec, Table]:
    """All rows of a split, in one table, with the description of its columns.

    Args:
      prepared: as ``builder`` returns it.
      split: "train" or "test".

    Raises:
      DataError: the dataset is not prepared or not readable, or has no such split.
    """
    metadata = prepared.info.metadata or {}
    if "spec" not in metadata:
        raise DataError(f"{prepared.info.full_name} is not prepared in {prepared.data_path}.")
    spec = spec_from_json(metadata["spec"])
    if split not in metadata["rows"]:
        splits = ", ".join(sorted(metadata["rows"]))
        raise DataError(f"{spec.dataset} has no split {split!r}; it has {splits}.")
    rows, services = metadata["rows"][split], len(spec.services)
    out = Table(
        x=np.empty((rows, spec.window, len(spec.columns)), np.float32),
        label=np.empty(rows, np.int32),
        group=np.empty(rows, np.int32),
        mos=np.zeros((rows, services), np.float32),
        mos_mask=np.zeros((rows, services), bool),
    )
    fields = Table._fields if services else Table._fields[:3]
    at = 0
    for block in _read_blocks(prepared, split):
        end = at + len(block["label"])
        for field in fields:
            getattr(out, field)[at:end] = block[field]
        at = end
    if at != rows:
        raise DataError(f"{prepared.data_path}: {split} holds {at} rows where {rows} were written.")
    return spec, out


def tables(prepared: PackedBuilder, split: str) -> Iterator[Table]:
    """All rows of a split, some thousands at a time, in order.

    Raises:
      DataError: as ``table``.
    """
    for block in _read_blocks(prepared, split):
        yield make_table(
            block["x"],
            block["label"].astype(np.int32),
            block["group"],
            block.get("mos"),
            block.get("mos_mask"),
        )


def _read_blocks(prepared: PackedBuilder, split: str) -> Any:
    """The blocks of a split, in order."""
    try:
        source = prepared.as_data_source(split=split)
        # A block at first, to see how large blocks are.
        start, many = 0, 1
        while start < len(source):
            stop = min(start + many, len(source))
            read = source.__getitems__(list(range(start, stop)))
            many = max(1, READ_BYTES // read[0]["x"].nbytes)
            yield from read
            start = stop
    except (OSError, ValueError, RuntimeError, KeyError, IndexError) as e:
        raise DataError(f"{prepared.data_path}: cannot read split {split!r} ({e}).") from e


def read_file(path: str | os.PathLike[str], spec: Spec, needed: Collection[str]) -> Raw:
    """Rows of a file in the dataset's raw form, coded as the prepared dataset is.

    Args:
      path: the file.
      spec: of the prepared dataset, or of a saved model.
      needed: the columns that must be there (the model's).

    Returns:
      The rows, a report (a NamedTuple of plain values), and columns [N] that say which record of
      the file each row is.

    Raises:
      DataError: the file is missing, not in that form, lacks needed columns, or has no usable row.
    """
    path = pathlib.Path(path)
    name = spec.dataset.partition("/")[0]
    reader = READERS.get(spec.dataset, READERS.get(name, raw.read_records))
    return reader(path, spec, needed)


def batches(rows: Table, batch_size: int, seed: int, epoch: int = 0) -> Iterator[Table]:
    """The rows in an order drawn from (seed, epoch), each once; the last batch may be smaller."""
    order = np.random.Generator(np.random.PCG64([seed, epoch])).permutation(len(rows.label))
    for start in range(0, len(order), batch_size):
        yield take(rows, order[start : start + batch_size])
