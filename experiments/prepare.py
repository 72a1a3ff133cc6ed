"""Builds a dataset, once, and says what is in it.

python -m experiments.prepare --dataset=ton_iot/10class --manual_dir=downloads/ton_iot
python -m experiments.prepare --dataset=simulated_iot --data_dir=datasets

Equal rows (duplicates) and equal rows of different labels (conflicts) are counted on the columns
that a model sees by default; training removes them.
"""

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import tqdm
from absl import flags, logging

from experiments import cli

_DATASET = flags.DEFINE_string("dataset", None, "NAME or NAME/CONFIG.", required=True)
_MANUAL_DIR = flags.DEFINE_string("manual_dir", None, "Folder of the dataset's own files.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where prepared datasets live (TFDS' default).")
_COUNT = flags.DEFINE_bool(
    "count_duplicates", True, "Count duplicates and conflicts; reads all rows once more."
)


def main() -> dict[str, Any]:
    """Prepares the dataset unless it is prepared, and returns the summary."""
    from qoejax.data import load

    start = time.monotonic()
    logging.set_verbosity(logging.WARNING)  # TFDS says little that the progress does not.
    with _terminated_cleanly(), _bar(_DATASET.value) as progress:
        prepared = load.builder(
            _DATASET.value, _DATA_DIR.value or None, _MANUAL_DIR.value or None, progress
        )
    metadata = prepared.info.metadata
    counts = metadata["class_counts"]
    for split, classes in counts.items():
        if empty := [name for name, rows in classes.items() if not rows]:
            print(f"note: {split} has no rows of {', '.join(empty)}", file=sys.stderr)
    passed_over = metadata.get("passed_over")
    passed = [f"passed over {', '.join(passed_over)}"] if passed_over else []
    for note in [*metadata.get("notes", []), *passed, *metadata.get("warnings", [])]:
        print(f"note: {note}", file=sys.stderr)
    result = {
        "dataset": metadata["spec"]["dataset"],
        "path": str(prepared.data_path),
        "rows": metadata["rows"],
        "classes": counts,
        "dropped": metadata.get("dropped", {}),
        "absent_columns": metadata.get("absent_columns", []),
    }
    if "usable_windows" in metadata:
        result["usable_windows"] = metadata["usable_windows"]
    if _COUNT.value:
        reports = {name: _equal_rows(prepared, name) for name in counts}
        for key, field in (("duplicates", "duplicates"), ("conflicts", "conflict_rows")):
            result[key] = {name: getattr(report, field) for name, report in reports.items()}
    return {**result, "seconds": round(time.monotonic() - start, 2)}


def _equal_rows(prepared: Any, name: str) -> Any:
    """Duplicates and label conflicts of a split, on the columns that a model sees by default."""
    import numpy as np

    from qoejax.data import duplicates, load, table

    spec = table.spec_from_json(prepared.info.metadata["spec"])
    seen = set(table.retained(spec))
    columns = [i for i, c in enumerate(spec.columns) if c.name in seen]
    chunks = (
        (np.ascontiguousarray(rows.x[:, :, columns]).reshape(len(rows.label), -1), rows.label)
        for rows in load.tables(prepared, name)
    )
    return duplicates.count(prepared.info.metadata["rows"][name], chunks)


@contextlib.contextmanager
def _terminated_cleanly() -> Iterator[None]:
    """Turns SIGTERM into an exception, so that what is half-written is removed."""

    def stop(number: int, frame: Any) -> None:
        del frame
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _bar(name: str) -> Iterator[Callable[[int, float], None]]:
    """A bar on a terminal, a line for each tenth elsewhere; both on standard error."""
    if not sys.stderr.isatty():
        yield _lines(name)
        return
    form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
    with tqdm.tqdm(total=1.0, desc=name, bar_format=form, file=sys.stderr) as bar:

        def show(rows: int, fraction: float) -> None:
            bar.set_postfix_str(f"{rows:,} rows", refresh=False)
            bar.update(max(0.0, fraction - bar.n))

        yield show


def _lines(name: str) -> Callable[[int, float], None]:
    said = -1

    def show(rows: int, fraction: float) -> None:
        nonlocal said
        tenth = int(10 * fraction)
        if tenth > said:
            said = tenth
            print(f"{name}: {10 * tenth} %, {rows:,} rows", file=sys.stderr)

    return show


if __name__ == "__main__":
    cli.run(main)
