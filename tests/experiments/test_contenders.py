"""Everyone in experiments.bench.rounds does the same work: equal models after a round."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bench import contenders, workload
from experiments.bench.contenders import CONTENDERS, nets
from qoejax.data.cohort import batch_index
from qoejax.fed.state import round_keys

CLIENTS, ROWS, STEPS, BATCH, FEATURES = 3, 16, 3, 4, 24
TINY = {
    "mlp": {"widths": (8, 6)},
    "cnn": {"channels": (3, 4), "kernel": 3, "hidden": 5},
    "hybrid": {
        "width": 8, "depth": 1, "heads": 2, "mlp": 8, "embed_size": 2, "stride": 2, "hidden": 8,
        "dropout": 0.0,
    },
}  # fmt: skip
PAIRS = [
    *(("hybrid", name) for name in ("vmap", "torch_1")),
    *(("cnn", name) for name in ("vmap", "torch_1")),
    *(("mlp", name) for name in ("jit_clients", "jit_steps", "drjax", "torch_1")),
]

LONG = [("hybrid", "vmap"), ("cnn", "vmap"), ("mlp", "jit_clients")]


def tiny(model):
    plain = workload.make(
        model, CLIENTS, clients=CLIENTS, rows=ROWS, steps=STEPS, batch=BATCH, features=FEATURES,
        sizes=TINY[model],
    )  # fmt: skip
    return nets.with_params(plain)


@jax.jit
def our_rows(number):
    """The batches that the engine draws on the device, as row numbers of the whole population."""
    keys = round_keys(jax.random.key(1), number).clients

    def one(client):
        key = jax.random.split(jax.random.fold_in(keys, client))[0]
        index = [batch_index(key, jnp.int32(ROWS), jnp.int32(s), BATCH)[0] for s in range(STEPS)]
        return client * ROWS + jnp.stack(index)

    return jax.vmap(one)(jnp.arange(CLIENTS))


@pytest.fixture(scope="module")
def ours():
    """The model of two rounds, by name of the net."""
    made = {}

    def of(model):
        if model not in made:
            contender = contenders.prepare("qoejax", tiny(model))
            contender.round()
            contender.round()
            made[model] = contender.params()
        return made[model]

    return of


def need(name):
    for package in CONTENDERS[name].needs:
        pytest.importorskip(package)


def close(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], atol=2e-6, rtol=1e-4, err_msg=name)


@pytest.mark.filterwarnings("ignore:jax.interpreters.pxla:DeprecationWarning")  # DrJAX 0.2.1
@pytest.mark.parametrize(
    ("model", "name"),
    [pytest.param(*pair, marks=pytest.mark.slow if pair in LONG else ()) for pair in PAIRS],
)
def test_the_same_batches_make_the_same_model(model, name, ours):
    need(name)
    work = tiny(model)._replace(draw=lambda number: np.asarray(our_rows(number)))
    contender = contenders.prepare(name, work)
    close(contender.params(), work.params)
    contender.round()
    contender.round()
    moved = contender.params()
    assert any(np.abs(moved[k] - work.params[k]).max() > 1e-3 for k in moved)
    close(moved, ours(model))


@pytest.mark.slow
@pytest.mark.parametrize("model", list(TINY))
def test_flower_does_what_the_loop_does(model):
    need("flower")

    def draw(number):
        order = [
            np.random.default_rng([1, number + 1, c]).permutation(ROWS) for c in range(CLIENTS)
        ]
        rows = [c * ROWS + own[: STEPS * BATCH] for c, own in enumerate(order)]
        return np.stack(rows).reshape(CLIENTS, STEPS, BATCH).astype(np.int32)

    work = tiny(model)._replace(draw=draw)
    flower, loop = (contenders.prepare(name, work) for name in ("flower", "torch_1"))
    try:
        for contender in (flower, loop):
            contender.round()
            contender.round()
        close(flower.params(), loop.params())
    finally:
        flower.close()


@pytest.mark.parametrize(
    ("model", "size"), [("mlp", 16_482), ("cnn", 197_026), ("hybrid", 114_483)]
)
def test_sizes_are_those_of_the_fixed_work(model, size):
    work = workload.make(model, 10)
    x = jax.ShapeDtypeStruct(work.x.shape, jnp.float32)
    params = jax.eval_shape(nets.objective(work).init, jax.random.key(0), x)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == size
    assert work.x.shape == (64_000, 1, 46)
    assert work.draw(0).shape == (10, 20, 32)
    clients = work.draw(3).reshape(10, -1) // 640
    assert (clients == clients[:, :1]).all()
    assert len(set(clients[:, 0].tolist())) == 10
    assert len(np.unique(work.draw(3))) == 10 * 640  # an epoch: each row once
    assert (work.draw(3) != work.draw(4)).any()


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    real = importlib.import_module

    def without(name, *rest):
        if name.endswith("torch_loop"):
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(contenders.MissingError, match=r"torch is not installed: pip install"):
        contenders.prepare("torch_1", tiny("mlp"))


def test_work_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="model 'rnn': expected one of mlp, cnn, hybrid"):
        workload.make("rnn", 1)
    with pytest.raises(ValueError, match="101 clients a round: expected 1 to 100"):
        workload.make("mlp", 101)
    with pytest.raises(ValueError, match="3 steps of 32 rows: expected at most the client's 64"):
        workload.make("mlp", 1, rows=64, steps=3)
