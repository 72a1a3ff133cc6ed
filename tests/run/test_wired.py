"""What happens to a round when the network, or a client, misbehaves."""

import json

import jax
import numpy as np
import pytest

from qoejax.run import build, report, wired
from qoejax.run.errors import RunError
from qoejax.run.train import prepare, train
from qoejax.run.verify import verify
from qoejax.wire import suites
from qoejax.wire.exchange import Exchange
from tests.run.conftest import tiny_config


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory):
    config = tiny_config(data_dir, exchange={"mode": "pqc", "signer": "openssl"})
    build.check(config)
    return prepare(config, tmp_path_factory.mktemp("wired"))


def initial(run):
    return run.engine.init(run.objective.init(jax.random.key(5), run.examples.x[:1]))


def rounds(run, count, signer="openssl", **options):
    """Final state, and metrics and wire report of each round."""
    state, reports = initial(run), []
    spec = wired.tree_spec(state.params)
    with Exchange(clients=3, spec=spec, signer=signer, **options) as exchange:
        for _ in range(count):
            state, metrics, wire = wired.run_round(
                run.engine, exchange, state, run.examples, jax.random.key(1)
            )
            reports.append((metrics, wire))
    return state, reports


def one_round(run, **options):
    state, [(metrics, wire)] = rounds(run, 1, **options)
    return state, metrics, wire


@pytest.fixture(scope="module")
def fused(run):
    """Parameters after two rounds in which nothing is exchanged."""
    state, _ = run.engine.block(initial(run), run.examples, jax.random.key(1), 2)
    return jax.device_get(state.params)


WAYS = [{"suite": number} for number in suites.SUITES]
WAYS += [{"session": 1}, {"session": 64}, {"confidential": True}, {"kem_provider": "openssl"}]
WAYS += [{"suite": 3, "session": 64, "confidential": True, "kem_provider": "openssl"}]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_no_suite_or_mode_changes_a_bit_of_the_model(run, fused, way):
    suite = suites.SUITES[way.get("suite", suites.DEFAULT)]
    signer = "pqcrypto" if suites.lacking(suite, "openssl") else "openssl"
    state, reports = rounds(run, 2, signer, unsafe=not suite.safe, mode="threads", **way)
    for metrics, wire in reports:
        assert metrics["clients"] == wire["accepted"] == 3
        assert wire["rejected"] == {}
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params), fused)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(fused))
    greeted = [wire["greeted"] for _, wire in reports]
    if way.get("session", 0) > 1:
        assert greeted == [3, 0]
        assert reports[1][1]["bytes_up"] == 3 * (size + 234)
    elif "session" in way:
        assert greeted == [3, 3]
    elif "confidential" in way:
        assert greeted == [3, 0]
    else:
        beyond = 218 + suite.enc_size + suite.signature_size + suite.tag_size
        assert reports[1][1]["bytes_up"] == 3 * (size + beyond)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"suite": 7}, "config.exchange.suite is 0x0007: expected one of 0x0001, 0x0002"),
        ({"suite": 0x01F1}, r"is 0x01f1 \(classical\): expected another, or exchange.unsafe=True"),
        ({"suite": 0x01FF}, r"is 0x01ff \(plaintext\): expected another"),
        ({"suite": 5, "signer": "openssl"}, "openssl has no slh-dsa-sha2-128f"),
        ({"suite": 0x01FF, "unsafe": True, "session": 2}, "expected exchange.session=0"),
        ({"session": -1}, "config.exchange.session is -1: expected 0 or more"),
        ({"signer": "gpg"}, "config.exchange.signer is 'gpg'"),
        ({"kem_provider": "gpg"}, "config.exchange.kem_provider is 'gpg'"),
    ],
)
def test_what_cannot_work_together_is_refused_before_data_are_read(data_dir, values, message):
    with pytest.raises(RunError, match=message):
        build.check(tiny_config(data_dir, exchange={"mode": "pqc"} | values))


@pytest.mark.slow
def test_a_whole_run_in_sessions_gives_the_same_model(wired_run, data_dir, tmp_path):
    values = {"mode": "pqc", "signer": "openssl", "suite": 3, "session": 64, "confidential": True}
    summary = train(tiny_config(data_dir, exchange=values), tmp_path / "sessions")
    assert summary["params_sha256"] == wired_run[1]["params_sha256"]
    rows = (tmp_path / "sessions" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["wire"]["greeted"] for row in rows] == [3, 0, 0, 0]
    found = verify(tmp_path / "sessions")
    assert (found["ok"], found["updates"], found["unsigned"]) == (True, 12, 0)


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


def test_a_round_is_accounted_for_by_client_and_in_all(run):
    _, _, wire = one_round(run)
    assert wire["client"]["bytes_up"] * 3 == wire["bytes_up"]
    assert wire["client"]["bytes_down"] * 3 == wire["bytes_down"]
    assert wire["client"]["cpu_s"] * 3 == pytest.approx(wire["clients_s"])
    assert wire["clients_s"] == wire["seal_s"] > 0
    assert wire["server_s"] > wire["open_s"] > 0
    row = {"round": 1, "seconds": 2 * wire["wait_s"], "wire": wire}
    total = report.wire_totals([row, row, {"round": 3, "seconds": 9.0}])
    assert total["bytes_up"] == 2 * wire["bytes_up"]
    assert total["client"] == wire["client"]
    assert total["server_s"] == 2 * wire["server_s"]
    assert total["share"] == pytest.approx(0.5)
    assert not total["masked"]
    assert report.wire_totals([{"round": 3, "seconds": 9.0}]) is None
