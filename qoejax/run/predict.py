"""Per record: class, probability, MOS with an interval, and the action of greatest utility."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from qoejax.qoe import decide
from qoejax.run import build, evaluate, files, model, outputs
from qoejax.run.errors import RunError

SUFFIXES = (".csv", ".csv.gz", ".parquet")


def columns(trained: model.Model, x: np.ndarray, costs: decide.Costs) -> dict[str, np.ndarray]:
    """Predictions for scaled rows x[N,T,F], one array a column; see ``outputs.columns``."""
    out = trained.predictor()(trained.params, x)
    return outputs.columns(trained.spec, trained.mos_mean, out, costs, trained.calibration)


def predict(
    trained: model.Model,
    source: pathlib.Path,
    target: pathlib.Path,
    costs: decide.Costs,
    show: Callable[[pa.Table], None] | None = None,
) -> dict[str, Any]:
    """Reads ``source``, writes one row per usable record to ``target``, atomically.

    The first columns say which record a row is: in a file of records, ``row`` is its number (0 is
    the first after the header); in a capture, when a window was and between whom. Unusable rows
    are left out and counted. ``show`` sees the table once it is written.

    Raises:
      RunError: unreadable input, unknown output form, or a local-only model (one per client).
    """
    if trained.stacked:
        raise RunError(
            "this run has one model per client (local-only or personal); predict needs a shared one"
        )
    if not str(target).endswith(SUFFIXES):
        raise RunError(f"output {target}: expected a name ending in {', '.join(SUFFIXES)}")
    rows, report, identity = evaluate.raw_rows(trained, source)
    x = build.examples(trained.spec, trained.stats, rows).x
    table = pa.table({**identity, **columns(trained, x, costs)})
    sink = pa.BufferOutputStream()
    if target.suffix == ".parquet":
        pyarrow.parquet.write_table(table, sink)
    elif target.suffix == ".gz":
        with pa.CompressedOutputStream(sink, "gzip") as stream:
            pyarrow.csv.write_csv(table, stream)
    else:
        pyarrow.csv.write_csv(table, sink)
    try:
        files.write_bytes(target, sink.getvalue().to_pybytes())
    except OSError as e:
        raise RunError(f"output {target} cannot be written: {e.strerror or e}") from None
    if show:
        show(table)
    return {
        "input": str(source),
        "output": str(target),
        "rows": table.num_rows,
        "read": report,
        "classes": _counts(table, "class"),
        "actions": _counts(table, "action"),
    }


def _counts(table: pa.Table, name: str) -> dict[str, int] | None:
    """Rows by value of a column, None where there is no such column."""
    if name not in table.column_names:
        return None
    values, counts = np.unique(np.asarray(table[name]), return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))
