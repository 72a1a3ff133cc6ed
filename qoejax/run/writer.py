"""metrics.jsonl (one row a round) and the same numbers as TensorBoard events."""

import json
import pathlib
from typing import Any

from tensorboardX import SummaryWriter

from qoejax.run import files


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
    """Rows of a metrics file; a last line cut short by a crash is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


class MetricsWriter:
    """Appends rows; opened at the round that a run resumes from, it forgets what came later.

    Rounds after the last checkpoint are computed again after a crash; without the cut they would
    stand twice in the file.
    """

    def __init__(self, workdir: pathlib.Path, first_round: int):
        """Opens ``workdir/metrics.jsonl`` and ``workdir/tensorboard``."""
        self.path = workdir / "metrics.jsonl"
        kept = [r for r in read_rows(self.path) if r["round"] <= first_round]
        text = "".join(files.dumps(r) + "\n" for r in kept)
        files.write_bytes(self.path, text.encode())
        self._file = open(self.path, "a")  # noqa: SIM115
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=first_round + 1)

    def write(self, row: dict[str, Any]) -> None:
        """Appends one row, which must have ``round`` (1 is the first)."""
        self._file.write(files.dumps(row) + "\n")
        self._file.flush()
        for key, value in _flat(row):
            self._board.add_scalar(key, value, row["round"])

    def close(self) -> None:
        """Flushes both."""
        self._file.close()
        self._board.close()


def _flat(row: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    out: list[tuple[str, float]] = []
    for key, value in files.plain(row).items():
        if isinstance(value, dict):
            out += _flat(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and key != "round":
            out.append((prefix + key, float(value)))
    return out
