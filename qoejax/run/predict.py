"""Per record: class, probability, MOS with an interval, and the action of greatest utility."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from qoejax.data import table as tables
from qoejax.qoe import decide, scales
from qoejax.run import build, evaluate, files, model
from qoejax.run.errors import RunError

# G.107's best narrow-band connection: what a user loses at most when blocked unduly.
NOMINAL_MOS = 4.41
SUFFIXES = (".csv", ".csv.gz", ".parquet")


def columns(trained: model.Model, x: np.ndarray, costs: decide.Costs) -> dict[str, np.ndarray]:
    """Predictions for scaled rows x[N,T,F], one array a column.

    Columns of scores (``mos_SERVICE``, ``qome_SERVICE``), with the 80 % interval, are there only
    when training rows were rated on them; the action then weighs the worst MOS, else
    ``NOMINAL_MOS``. Where the dataset has one class only, there is no class and no action.
    """
    out = trained.predictor()(trained.params, x)
    probability, mos = evaluate.probabilities(out)
    names = np.array(trained.spec.label_names)
    best = probability.argmax(-1)
    p_attack = 1 - probability[:, trained.spec.label_names.index(trained.spec.benign)]
    table: dict[str, np.ndarray] = {}
    if len(names) > 1:
        table |= {
            "class": names[best],
            "probability": probability.max(-1).astype(np.float32),
            "p_attack": p_attack.astype(np.float32),
        }
    bins = jnp.asarray(out["mos"])
    low, high = (np.asarray(scales.quantile(bins, level)) for level in (0.1, 0.9))
    # A service that no training row rated has a head that has learned nothing.
    services = {q: s for q, s in enumerate(trained.spec.services) if trained.mos_mean[q] > 0}
    for name, scores in (("", mos), ("_low", low), ("_high", high)):
        own = build.from_head(trained.spec, scores[:, : len(trained.spec.services)])
        table |= {s.label + name: own[:, q].astype(np.float32) for q, s in services.items()}
    if len(names) == 1:
        return table
    rated = [q for q, service in services.items() if service.scale == tables.MOS]
    worst = mos[:, rated].min(-1) if rated else np.full(len(best), NOMINAL_MOS)
    chosen = decide.action(jnp.asarray(p_attack), jnp.asarray(worst, jnp.float32), costs)
    table["action"] = np.array(decide.ACTIONS)[np.asarray(chosen)]
    return table


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
