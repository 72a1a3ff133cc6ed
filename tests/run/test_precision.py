"""Half precision: a round in bfloat16 runs, stays near float32, and keeps float32 state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.run.train import prepare

from .conftest import tiny_config

NET = {
    "net": "qoenet", "width": 8, "depth": 0, "heads": 2, "mlp": 8, "hidden": 8, "dropout": 0.0,
    "embed": "none",
}  # fmt: skip


@pytest.fixture(scope="module")
def rounds(data_dir, tmp_path_factory):
    """By dtype: parameters before and after a round, and the state after."""
    out = {}
    for dtype in ("float32", "bfloat16"):
        config = tiny_config(data_dir, client={"optimizer": "sgd", "lr": 0.05, "steps": 1})
        with config.unlocked():
            config.model = NET | {"dtype": dtype}
        run = prepare(config, tmp_path_factory.mktemp(dtype))
        params = run.objective.init(jax.random.key(0), run.examples.x[:1])
        state, _ = run.engine.block(run.engine.init(params), run.examples, run.key, 1)
        out[dtype] = jax.device_get((params, state))
    return out


@pytest.mark.slow
def test_parameters_and_their_mean_stay_float32(rounds):
    for params, state in rounds.values():
        for leaf in jax.tree.leaves((params, state)):
            assert leaf.dtype in (np.float32, np.int32)


@pytest.mark.slow
def test_a_round_stays_near_float32(rounds):
    def moved(dtype):
        before, state = rounds[dtype]
        deltas = jax.tree.map(np.subtract, state.params, before)
        return np.concatenate([d.ravel() for d in jax.tree.leaves(deltas)])

    full, half = moved("float32"), moved("bfloat16")
    error = np.linalg.norm(half - full) / np.linalg.norm(full)
    # Eight significant bits: the deltas differ by a few percent, and another round's by far more.
    assert 0 < error < 0.1


def test_what_is_computed_in_is_half():
    """A negative control for the first test: the network does compute in bfloat16."""
    from qoejax.nets import NETS

    options = {k: v for k, v in NET.items() if k != "net"}
    net = NETS["qoenet"](classes=3, services=1, dtype="bfloat16", **options)
    x = jax.ShapeDtypeStruct((2, 1, 12), jnp.float32)
    params = jax.eval_shape(net.init, jax.random.key(0), x)
    assert "bf16" in str(jax.make_jaxpr(net.apply)(params, x))
