"""The fixed work on which ways to run a federated round are compared. NumPy.

Clients hold the same number of rows, with labels mixed by a symmetric Dirichlet distribution. In a
round, each client of the cohort takes the same number of SGD steps, the cohort's mean becomes the
next model, and nothing is evaluated. Whoever does it, a client's epoch draws each row once.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

FEATURES, CLASSES, ALPHA = 46, 34, 0.5

MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"widths": (128, 64)},
    "cnn": {"channels": (32, 64), "kernel": 3, "hidden": 64},
    "hybrid": {
        "width": 64, "depth": 2, "heads": 4, "mlp": 128, "embed_size": 8, "frequencies": 8,
        "kernel": 4, "stride": 4, "hidden": 128, "dropout": 0.1,
    },
}  # fmt: skip
"""Sizes of the nets; those of the hybrid are its defaults. Only the hybrid has a MOS head."""

BINS = 17


class Workload(NamedTuple):
    """What every contender is given.

    Attributes:
      model: A name of ``MODELS``.
      sizes: Of the net.
      x: Rows f32[clients · rows, 1, F], sorted by client.
      label: i32 of each row.
      clients: Of the population, each with
      rows: rows.
      cohort: Clients of a round.
      steps: Local steps, each of
      batch: rows, with plain SGD at
      lr: this rate.
      params: Where everyone starts: arrays by the names of ``trees.named_leaves``.
      draw: ``(round) -> i32[cohort, steps, batch]``: row numbers of the clients of that round.
    """

    model: str
    sizes: dict[str, Any]
    x: np.ndarray
    label: np.ndarray
    clients: int
    rows: int
    cohort: int
    steps: int
    batch: int
    lr: float
    params: dict[str, np.ndarray]
    draw: Callable[[int], np.ndarray]


class Contender(NamedTuple):
    """One way to run the rounds: ``round()`` returns when the next model is there.

    ``params()`` is that model, by the names of ``Workload.params``.
    """

    round: Callable[[], None]
    params: Callable[[], dict[str, np.ndarray]]
    close: Callable[[], None] = lambda: None


def make(
    model: str,
    cohort: int,
    *,
    clients: int = 100,
    rows: int = 640,
    steps: int = 20,
    batch: int = 32,
    lr: float = 0.05,
    features: int = FEATURES,
    sizes: dict[str, Any] | None = None,
    seed: int = 0,
) -> Workload:
    """The workload, yet without parameters.

    Raises:
      ValueError: An unknown model, a cohort larger than the population, or more rows in a round's
        steps than a client has.
    """
    if model not in MODELS:
        raise ValueError(f"model {model!r}: expected one of {', '.join(MODELS)}")
    if not 1 <= cohort <= clients:
        raise ValueError(f"{cohort} clients a round: expected 1 to {clients}")
    if steps * batch > rows:
        raise ValueError(f"{steps} steps of {batch} rows: expected at most the client's {rows}")
    rng = np.random.default_rng(seed)
    mix = rng.dirichlet(np.full(CLASSES, ALPHA), clients)
    label = np.concatenate([rng.choice(CLASSES, rows, p=p) for p in mix]).astype(np.int32)
    centre = rng.standard_normal((CLASSES, features))
    x = centre[label] + rng.standard_normal((len(label), features))

    def draw(number: int) -> np.ndarray:
        rng = np.random.default_rng([seed, 1, number])
        ids = rng.choice(clients, cohort, replace=False)
        order = rng.permuted(np.tile(np.arange(rows), (cohort, 1)), axis=1)
        own = ids[:, None] * rows + order[:, : steps * batch]
        return own.reshape(cohort, steps, batch).astype(np.int32)

    return Workload(
        model, MODELS[model] | (sizes or {}), x.astype(np.float32)[:, None], label,
        clients, rows, cohort, steps, batch, lr, {}, draw,
    )  # fmt: skip


def services(model: str) -> int:
    """Of the MOS head."""
    return int(model == "hybrid")
