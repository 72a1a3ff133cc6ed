"""A linear model of three weights, five unequal clients, and a loss that counts its traces."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np

from qoejax.fed import aggregate, client, engine, round, server
from qoejax.fed.algorithms import CLIENT_UPDATES
from qoejax.types import Cohort, Examples

BATCH = 8
COUNT = np.array([5, 17, 40, 8, 31], np.int32)
OFFSET = (np.cumsum(COUNT) - COUNT).astype(np.int32)


class Loss:
    """Half the mean squared error of ``x @ w``, plus ``b`` if there is one, against ``mos``."""

    def __init__(self):
        self.traces = 0

    def __call__(self, params, batch, key):
        self.traces += 1
        error = batch.x[:, 0] @ params["w"] - batch.mos[:, 0]
        if "b" in params:
            error = error + jnp.broadcast_to(params["b"], error.shape)
        n = batch.weight.sum()
        total = (0.5 * error**2 * batch.weight).sum()
        return total / jnp.maximum(n, 1.0), {"loss": total, "n": n}


def key(seed=11):
    """A fresh key each time: using one twice is an error here."""
    return jax.random.key(seed)


LOCAL = ("fedper", "fedrep")
"""Algorithms whose clients keep the intercept ``b`` to themselves."""


def params(name="fedavg"):
    """Three weights, and an intercept where there must be something to keep."""
    return {"w": jnp.array([0.5, -1.0, 2.0])} | ({"b": jnp.array(0.25)} if name in LOCAL else {})


def examples(seed=0):
    rows = int(COUNT.sum())
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 1, 3)).astype(np.float32)
    y = x[:, 0] @ np.array([1.0, 2.0, -1.0], np.float32) + rng.normal(size=rows) / 4
    return Examples(
        x=jnp.asarray(x),
        label=jnp.zeros(rows, jnp.int32),
        mos=jnp.asarray(y[:, None], jnp.float32),
        mos_mask=jnp.ones((rows, 1), bool),
        weight=jnp.ones(rows),
    )


def cohort(ids=(0, 1, 2, 3, 4), steps=3):
    """Clients by id, -1 for padding; ``steps`` is a number or one per client."""
    ids = np.array(ids, np.int32)
    real = ids >= 0
    return Cohort(
        client_id=jnp.asarray(ids),
        offset=jnp.asarray(np.where(real, OFFSET[ids], 0)),
        count=jnp.asarray(np.where(real, COUNT[ids], 0)),
        steps=jnp.asarray(np.where(real, steps, 0).astype(np.int32)),
        weight=jnp.asarray(np.where(real, COUNT[ids], 0).astype(np.float32)),
    )


def one(client_id=2, steps=3):
    """A single client: scalars, as an update sees it."""
    return jax.tree.map(lambda leaf: leaf[0], cohort((client_id,), steps))


def update(name, loss=None, optimizer="sgd", lr=0.1, **kwargs):
    kwargs |= {"personal": ("b",)} if name in LOCAL else {}
    return CLIENT_UPDATES[name](
        loss or Loss(), client.OPTIMIZERS[optimizer](), lr=lr, batch_size=BATCH, **kwargs
    )


def aggregator_of(name, byzantine=1, root=None):
    """By name, or ``exact_`` and a name of EXACT.

    A root delta (fltrust) is ``root``, or points where the loss of ``Loss`` falls.
    """
    if name.startswith("exact_"):
        return aggregate.EXACT[name.removeprefix("exact_")]()
    if name not in aggregate.ROBUST:
        return aggregate.AGGREGATORS[name]()
    root = {"w": jnp.array([0.1, 0.2, -0.2])} if root is None else root
    extra = {"root_delta": lambda params, number, key: root} if name == "fltrust" else {}
    return aggregate.AGGREGATORS[name](byzantine=byzantine, **extra)


def algorithm(name="fedavg", aggregator="weighted_mean", server_opt=None, byzantine=0, **kwargs):
    return round.Algorithm(
        update(name, **kwargs),
        aggregator_of(aggregator, byzantine),
        server_opt or server.sgd(),
        client.constant(1),
    )


def make_engine(
    loss=None, name="fedavg", optimizer="momentum", server_lr=None, aggregator=None, **kwargs
):
    axis = kwargs.get("client_axis", "turn")
    chunk = 2 if axis == "chunk" else 1
    settings = {"cohort_size": 4, "epochs": 1, "chunk": chunk, "client_axis": axis, **kwargs}
    return engine.make_engine(
        client_update=update(name, loss, optimizer, lr=0.02),
        aggregator=aggregator or aggregate.weighted_mean(),
        server_opt=server.momentum() if server_lr is None else server.sgd(server_lr),
        schedule=client.cosine(8),
        offset=OFFSET,
        count=COUNT,
        batch_size=BATCH,
        **settings,
    )


def apart(eng, state, data, key, rounds):
    """The same rounds as a block, by halves whose deltas pass through host memory."""
    for _ in range(rounds):
        cohort = eng.cohort_for(state.round, key)
        parts = [eng.local(state, data, piece, key) for piece in eng.slices(cohort)]
        host = jax.device_get([part.deltas for part in parts])
        deltas = jax.tree.map(lambda *leaves: np.concatenate(leaves), *host)
        arrived = np.ones(eng.size, bool)
        state, metrics = eng.server(state, cohort, deltas, arrived, parts, key)
    return state, metrics


@contextlib.contextmanager
def count_compilations():
    """A list that holds one entry for each program compiled meanwhile."""
    seen, on = [], True

    def listen(event, seconds, **kwargs):
        if on and event == "/jax/core/compile/backend_compile_duration":
            seen.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    on = False


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


def close(a, b, rtol=1e-5, atol=1e-6):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol),
        jax.device_get(a),
        jax.device_get(b),
    )
