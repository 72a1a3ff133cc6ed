"""Rows without meaning, equally many for each client: for benchmarks that only count time."""

from typing import Any

import numpy as np

from qoejax.data.cohort import stage
from qoejax.data.table import Column, Spec
from qoejax.types import Examples

CLASSES = 10


def make(clients: int, rows: int, features: int) -> tuple[Spec, Examples, Any, Any]:
    """What the rows are, the rows (NumPy leaves), each client's first row and their number.

    Args:
      clients: P.
      rows: Of each client.
      features: F; there are ``CLASSES`` classes and no scores.
    """
    rng = np.random.default_rng(0)
    n = clients * rows
    examples = Examples(
        x=rng.standard_normal((n, 1, features), np.float32),
        label=rng.integers(0, CLASSES, n, dtype=np.int32),
        mos=np.zeros((n, 1), np.float32),
        mos_mask=np.zeros((n, 1), bool),
        weight=np.ones(n, np.float32),
    )
    staged, offset, count = stage(examples, np.split(np.arange(n), clients))
    columns = tuple(Column(f"x{i}", "", "numeric", False, "") for i in range(features))
    names = tuple(f"class{i}" for i in range(CLASSES))
    spec = Spec("bench", columns, names, (), {}, names[0], 1)
    return spec, staged, offset, count
