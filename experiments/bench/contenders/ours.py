"""qoejax itself: the engine of a run, with the defaults of ``configs/base.py``."""

from typing import Any

import jax
import numpy as np

from configs import base
from experiments.bench.contenders.nets import objective, rows_of, tree
from experiments.bench.workload import Contender, Workload
from qoejax import trees
from qoejax.fed.engine import Engine
from qoejax.run import build
from qoejax.types import Examples, Params


def settings(workload: Workload) -> Any:
    """The config that asks for this work."""
    c = base.get_config()
    c.clients.count = workload.clients
    c.fed.cohort = workload.cohort
    c.client.update(
        optimizer="sgd", lr=workload.lr, batch=workload.batch, steps=workload.steps,
        schedule="constant",
    )  # fmt: skip
    return c


def start(workload: Workload, config: Any = None) -> tuple[Engine, Params, Examples]:
    """The engine, the first parameters and the rows on its devices."""
    config = settings(workload) if config is None else config
    count = np.full(workload.clients, workload.rows, np.int32)
    loss = objective(workload)
    engine = build.make_engine(
        config, loss.loss_fn, (np.cumsum(count) - count).astype(np.int32), count
    )
    return engine, tree(workload.params), engine.place(rows_of(workload))


def prepare(workload: Workload) -> Contender:
    """One dispatch a round."""
    engine, params, rows = start(workload)
    state, key = engine.init(params), engine.put(jax.random.key(1))

    def one_round() -> None:
        nonlocal state
        state, sums = engine.block(state, rows, key, 1)
        jax.block_until_ready((state, sums))

    return Contender(
        one_round, lambda: {n: np.asarray(a) for n, a in trees.named_leaves(state.params)}
    )
