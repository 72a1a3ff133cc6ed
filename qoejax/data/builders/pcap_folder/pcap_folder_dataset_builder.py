"""A folder of labelled packet captures: equal windows for every class, split by capture round."""

import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from qoejax.data import capture, capture_files, latency
from qoejax.data.capture_files import Piece
from qoejax.data.errors import DataError
from qoejax.data.packed import PackedBuilder, Plan
from qoejax.data.table import Spec, Table


class Builder(PackedBuilder):
    """A folder of labelled packet captures: equal windows for every class.

    Train and test split by group (capture round); the natural group of a row is its capture's.
    """

    BUILDER_CONFIGS = [  # noqa: RUF012 (as TFDS wants it)
        tfds.core.BuilderConfig(
            name=name,
            description=f"windows of {w.size} {w.unit} of a conversation, {w.length} in a row",
        )
        for name, w in capture.CONFIGS.items()
    ]
    DEFAULT_BUILDER_CONFIG_NAME = next(iter(capture.CONFIGS))
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "put captures named GROUP__LABEL_NN.pcap (or .pcapng), or captures and a manifest.csv, "
        "into manual_dir"
    )

    def _spec(self) -> Spec:
        return capture.spec(self.builder_config.name, (capture_files.BENIGN,))

    def _plan(self, manual_dir: pathlib.Path | None, scratch: pathlib.Path) -> Plan:
        del scratch
        if manual_dir is None:
            raise DataError(f"{self.name} needs a manual_dir: {self.MANUAL_DOWNLOAD_INSTRUCTIONS}.")
        folder = capture_files.find(manual_dir)
        work = _Preparation(self.builder_config.name, manual_dir, folder, self.progress)
        return Plan(work.shards(), work.finish)


class _Preparation:
    """Reads the captures into split tables, and keeps the books of it."""

    def __init__(
        self, config: str, manual_dir: pathlib.Path, folder: capture_files.Folder, progress: Any
    ):
        self._config, self._folder, self._manual_dir = config, folder, manual_dir
        self._progress = progress
        self._pieces = capture_files.sides(folder.captures)
        others = {c.label for c in folder.captures} - {capture_files.BENIGN}
        self._labels = (capture_files.BENIGN, *sorted(others))
        self._groups = sorted({c.group for c in folder.captures})
        self._sizes = [
            p.capture.path.stat().st_size * (p.part[1] - p.part[0]) for p in self._pieces
        ]
        self._entries: list[dict[str, Any]] = []
        self._rows, self._read = 0, 0.0

    def shards(self) -> dict[str, list[Any]]:
        """One shard a group and split."""
        shards: dict[str, list[Any]] = {"train": [], "test": []}
        for split, own in shards.items():
            for group in self._groups:
                mine = [
                    i
                    for i, piece in enumerate(self._pieces)
                    if piece.split == split and piece.capture.group == group
                ]
                if mine:
                    own.append(functools.partial(self._tables, mine))
        return shards

    def _tables(self, pieces: list[int]) -> Iterator[Table]:
        for i in pieces:
            yield from self._captured(self._pieces[i], self._sizes[i])

    def _captured(self, piece: Piece, size: float) -> Iterator[Table]:
        label = self._labels.index(piece.capture.label)
        group = self._groups.index(piece.capture.group)
        reading = capture.Reading(piece.capture.path, capture.CONFIGS[self._config], piece.part)
        for found in reading:
            self._rows += len(found.x)
            if len(found.x):
                yield capture.rows(found, label, 0, group)
            self._tell(self._read + size * reading.done)
        self._read += size
        self._entries.append(
            {
                "file": piece.capture.path.relative_to(self._manual_dir).as_posix(),
                "label": piece.capture.label,
                "group": piece.capture.group,
                "split": piece.split,
                "part": piece.part,
                **reading.report._asdict(),
            }
        )

    def _tell(self, done: float) -> None:
        if self._progress:
            self._progress(self._rows, min(1.0, done / max(1.0, sum(self._sizes))))

    def finish(self) -> tuple[Spec, dict[str, Any]]:
        """The columns, and the books."""
        dropped: dict[str, int] = {}
        for entry in self._entries:
            reasons = {**entry["skipped"], "unfinished window": entry["left_out"]}
            for reason, count in reasons.items():
                if count:
                    dropped[reason] = dropped.get(reason, 0) + count
        return capture.spec(self._config, self._labels), {
            "windowing": capture.CONFIGS[self._config]._asdict(),
            "groups": self._groups,
            "test_groups": sorted({p.capture.group for p in self._pieces if p.split == "test"}),
            "sources": self._entries,
            "passed_over": list(self._folder.passed_over),
            "packets": sum(entry["packets"] for entry in self._entries),
            "dropped": dropped,
            "warnings": [f"{e['file']}: {w}" for e in self._entries for w in e["warnings"]],
            "web_mos_seconds": (latency.BEST_S, latency.WORST_S),
            "mqtt_budget_seconds": latency.BUDGET_S,
        }
