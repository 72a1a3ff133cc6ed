"""What happens to a round when the network, or a client, misbehaves."""

import jax
import numpy as np
import pytest

from qoejax.run import build, wired
from qoejax.run.train import prepare
from qoejax.wire.exchange import Exchange
from tests.run.conftest import tiny_config


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory):
    config = tiny_config(data_dir, exchange={"mode": "pqc", "signer": "openssl"})
    build.check(config)
    return prepare(config, tmp_path_factory.mktemp("wired"))


def initial(run):
    return run.engine.init(run.objective.init(jax.random.key(5), run.examples.x[:1]))


def one_round(run, **options):
    state = initial(run)
    spec = wired.tree_spec(state.params)
    with Exchange(clients=3, spec=spec, signer="openssl", **options) as exchange:
        return wired.run_round(run.engine, exchange, state, run.examples, jax.random.key(1))


def test_a_forged_update_is_refused_counted_and_changes_nothing_else(run):
    def flip(client, envelope):
        changed = bytearray(envelope)
        changed[-20] ^= 1
        return bytes(changed) if client == 1 else envelope

    state, metrics, wire = one_round(run, tamper=flip)
    assert wire["accepted"] == 2
    assert wire["rejected"] == {"DECRYPT": 1}
    assert metrics["clients"] == 2
    honest, _, _ = one_round(run)
    assert any(
        (np.asarray(a) != np.asarray(b)).any()
        for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(honest.params), strict=True)
    )


def test_no_update_arrives_and_the_model_stays(run):
    before = jax.device_get(initial(run).params)
    state, metrics, wire = one_round(run, tamper=lambda client, envelope: envelope[:-1])
    assert wire["rejected"] == {"SIZE": 3}
    assert metrics["clients"] == 0
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params), before)


def test_a_norm_cap_refuses_by_policy(run):
    _, metrics, wire = one_round(run, max_norm=1e-9)
    assert wire["rejected"] == {"POLICY": 3}
    assert metrics["clients"] == 0


def test_a_diverging_client_is_refused_as_not_finite(run):
    """One client's rows are infinite: its delta is NaN, the other two go on."""
    x = np.asarray(run.examples.x).copy()
    x[: run.population.count[0]] = np.inf
    state = initial(run)
    spec = wired.tree_spec(state.params)
    with Exchange(clients=3, spec=spec, signer="openssl") as exchange:
        state, metrics, wire = wired.run_round(
            run.engine, exchange, state, run.examples._replace(x=jax.numpy.asarray(x)),
            jax.random.key(1),
        )  # fmt: skip
    assert wire["rejected"] == {"NONFINITE": 1}
    assert metrics["clients"] == 2
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(state.params)))


def test_primitives_are_timed(run):
    _, _, wire = one_round(run)
    assert set(wire["seconds"]) == set(wired.PRIMITIVES)
    assert all(seconds > 0 for seconds in wire["seconds"].values())
    assert 0 <= wire["share"] <= 1
