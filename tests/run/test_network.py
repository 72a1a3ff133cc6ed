"""A run whose clients are elsewhere, over plain sockets: the same model, whatever the network does.

The clients are threads here, and share one compiled half; ``test_processes`` and ``test_flower``
have a process for each.
"""

import json
import pathlib
import threading

import jax
import numpy as np
import pytest

from qoejax import trees
from qoejax.run import enrol, network, node, verify, wired
from qoejax.run.errors import RunError
from qoejax.run.train import prepare, train
from qoejax.types import Cohort
from qoejax.wire import envelope
from qoejax.wire.exchange import Exchange
from tests.run import sockets
from tests.run.conftest import tiny_config
from tests.run.faults import FAULTS

N = 3


@pytest.fixture(scope="module")
def config(data_dir):
    return tiny_config(data_dir, exchange={"mode": "pqc", "signer": "openssl"})


@pytest.fixture(scope="module")
def locals_(config):
    """What each client computes with; they share what is compiled."""
    first, *others = [node.prepare(config, i) for i in range(N)]
    return [first, *(one._replace(engine=first.engine) for one in others)]


def idle(number, model):
    raise AssertionError("nothing to compute here")


def answers(config, locals_, workdir, faults=None, server=None):
    """``answer`` of every client."""
    out = []
    for i, local in enumerate(locals_):
        compute = lambda number, model, local=local: node.work(local, number, model)  # noqa: E731
        one = node.Node(config, workdir / f"client-{i}", i, server, compute).answer
        out.append((faults or {}).get(i, lambda answer: answer)(one))
    return out


def networked(config, locals_, workdir, patience=(60, 60), **options):
    """Summary, rows of metrics.jsonl and what verify finds of a run over sockets."""
    gate = network.Gate(None, network.Patience(*patience))
    with sockets.serving(gate) as port:
        threads = [
            threading.Thread(target=sockets.attend, args=(port, answer), daemon=True)
            for answer in answers(config, locals_, workdir, **options)
        ]
        for thread in threads:
            thread.start()
        summary = train(config, workdir / "server", gate=gate)
    for thread in threads:
        thread.join(10)
    rows = (workdir / "server" / "metrics.jsonl").read_text().splitlines()
    return summary, [json.loads(row)["wire"] for row in rows], verify.verify(workdir / "server")


def test_the_parameters_are_those_of_the_simulated_run(config, locals_, wired_run, tmp_path):
    summary, wire, found = networked(config, locals_, tmp_path)
    assert summary["params_sha256"] == wired_run[1]["params_sha256"]
    assert [w["accepted"] for w in wire] == [N] * 4
    assert all(w["rejected"] == {} and w["network"]["silent"] == [] for w in wire)
    assert found["ok"]
    assert (found["updates"], found["rejected"]) == (4 * N, 0)


@pytest.mark.slow
def test_sessions_and_a_confidential_model_change_nothing(data_dir, locals_, wired_run, tmp_path):
    values = {"mode": "pqc", "signer": "openssl", "session": 64, "confidential": True}
    config = tiny_config(data_dir, exchange=values)
    summary, wire, found = networked(config, locals_, tmp_path)
    assert summary["params_sha256"] == wired_run[1]["params_sha256"]
    assert [w["greeted"] for w in wire] == [N, 0, 0, 0]
    assert found["ok"]


def test_a_meddling_network_is_logged_and_changes_nothing(config, locals_, wired_run, tmp_path):
    """Client 0's last envelope is shown again first in rounds 2 to 4; all of client 1's altered."""
    faults = {0: FAULTS["replay"], 1: FAULTS["forge"]}
    summary, wire, found = networked(config, locals_, tmp_path, faults=faults)
    assert summary["params_sha256"] == wired_run[1]["params_sha256"]
    rounds = [{"DECRYPT": 1}, *[{"DECRYPT": 1, "ROUND": 1}] * 3]
    assert [w["rejected"] for w in wire] == rounds
    assert [w["network"]["asked_again"] for w in wire] == [1, 2, 2, 2]
    assert found["ok"]
    assert found["rejected"] == 7


@pytest.mark.slow
def test_late_and_overtaken_answers_cost_their_round_only(config, locals_, tmp_path):
    """Then the model is that of a simulated run in which those two messages were lost."""
    slow = lambda answer: FAULTS["delay"](answer, number=1, seconds=12.0)  # noqa: E731
    faults = {1: FAULTS["reorder"], 2: slow}
    patience = (60, 10)
    summary, wire, found = networked(config, locals_, tmp_path, patience, faults=faults)
    assert [w["network"]["silent"] for w in wire] == [[], [1, 2], [], []]
    assert wire[1]["network"]["lost"] == 1
    assert wire[2]["rejected"] == {"ROUND": 1}
    assert found["ok"]
    assert found["updates"] == 10
    assert summary["params_sha256"] == simulated(config, tmp_path, {(1, 1), (2, 1)})


def simulated(config, workdir, lost):
    """Digest of the parameters when the envelopes of these (client, round) are cut short."""

    def cut(index, data):
        return data[:-1] if (index, envelope.unpack(data).round) in lost else data

    run = prepare(config, workdir)
    params = run.objective.init(jax.random.fold_in(run.key, 0), run.examples.x[:1])
    state, key = run.engine.init(params), jax.random.fold_in(run.key, 1)
    spec = wired.tree_spec(state.params)
    with Exchange(clients=N, spec=spec, signer="openssl", mode="threads", tamper=cut) as one:
        for _ in range(4):
            state, _, _ = wired.run_round(run.engine, one, state, run.examples, key)
    return trees.sha256(jax.device_get(state.params))


def test_a_client_that_never_comes_is_named(config, locals_, tmp_path):
    with pytest.raises(RunError, match=r"client\(s\) (0, |1, )*2 did not join within 1 s"):
        networked(config, locals_[:2], tmp_path, patience=(1, 1))


def test_who_is_not_enrolled_is_turned_away(config, tmp_path):
    """And who takes another's number, or shows another server's question."""
    one = node.Node(config, tmp_path / "a", 0, None, idle)
    two = node.Node(config, tmp_path / "b", 0, None, idle)
    server = node.Node(config, tmp_path / "s", 0, None, idle)._setup.identity
    terms = network.Terms(
        server.public, network.agreement(config), 1, 1, tmp_path / "roster", "openssl"
    )
    asks = {
        k: lambda question, seconds, n=n: n.answer(question) for k, n in (("a", one), ("b", two))
    }
    gate = network.Gate(None)
    gate.begin(terms)
    assert gate.arrived(asks["a"])
    assert not gate.arrived(asks["b"])
    assert gate.link(0, 0.0) is asks["a"]
    later = network.Gate(None)  # the server was started again
    later.begin(terms)
    assert not later.arrived(asks["b"])
    assert later.arrived(asks["a"])
    assert later.everybody()[0] == [one.id]


def test_a_registry_decides_who_may_take_part(config, tmp_path):
    keys_of = {i: tmp_path / f"{i}" for i in ("in", "out")}
    nodes = {i: node.Node(config, folder, 0, None, idle) for i, folder in keys_of.items()}
    authority = enrol.create(tmp_path / "auth" / "authority.key", "authority", "pqcrypto", True)
    enrol.request(keys_of["in"] / "keys" / "identity.key", tmp_path / "r", 2**40, True)
    registry = tmp_path / "registry"
    enrol.enrol(tmp_path / "auth" / "authority.key", registry, tmp_path / "r", True)
    known = enrol.enrolled(str(registry), authority["public"][0], False)
    gate = network.Gate(known)
    server = nodes["out"]._setup.identity.public
    terms = network.Terms(server, network.agreement(config), 1, 1, tmp_path / "roster", "openssl")
    gate.begin(terms)
    assert not gate.arrived(lambda question, seconds: nodes["out"].answer(question))
    assert gate.arrived(lambda question, seconds: nodes["in"].answer(question))
    assert gate.everybody()[0] == [nodes["in"].id]
    with pytest.raises(RunError, match="signed by another authority"):
        enrol.enrolled(str(registry), "00" * 32, False)
    for wrong in [(None, None, False), (str(registry), None, False), (str(registry), "00", True)]:
        with pytest.raises(RunError, match="expected either --registry=FILE and --authority=KEY"):
            enrol.enrolled(*wrong)


def test_the_config_must_be_the_servers(config, data_dir, tmp_path):
    one = node.Node(config, tmp_path / "a", 0, None, idle)
    other = tiny_config(data_dir, exchange={"mode": "pqc"}, client={"lr": 0.02})
    elsewhere = tiny_config(pathlib.Path("/data"), exchange={"mode": "pqc"})
    assert network.agreement(config) == network.agreement(elsewhere)
    public = one._setup.identity.public
    terms = network.Terms(public, network.agreement(other), 1, 1, tmp_path / "roster", "openssl")
    gate = network.Gate(None)
    gate.begin(terms)
    with pytest.raises(RunError, match="the server's configuration is another"):
        gate.arrived(lambda question, seconds: one.answer(question))


def test_the_pinned_server_is_remembered(config, tmp_path):
    one = node.Node(config, tmp_path / "a", 0, None, idle)
    other = node.Node(config, tmp_path / "b", 0, None, idle)
    for server in (one, other):
        gate = network.Gate(None)
        public = server._setup.identity.public
        gate.begin(
            network.Terms(
                public, network.agreement(config), 1, 1, tmp_path / server.id.hex(), "openssl"
            )
        )
        assert gate.arrived(lambda question, seconds: one.answer(question)) == (server is one)
    again = node.Node(config, tmp_path / "a", 0, None, idle)
    assert again._setup.server == one.id
    with pytest.raises(RunError, match="expected 32 hexadecimal digits"):
        node.Node(config, tmp_path / "c", 0, "abc", idle)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"exchange": {"mode": "none"}}, "config.exchange.mode is 'none'"),
        ({"perf": {"client_axis": "auto"}}, "config.perf.client_axis is 'auto'"),
        ({"perf": {"placement": "home"}}, "config.perf.placement is 'home'"),
    ],
)
def test_what_has_no_meaning_over_a_network_is_refused(data_dir, values, message):
    with pytest.raises(RunError, match=message):
        network.check(tiny_config(data_dir, **({"exchange": {"mode": "pqc"}} | values)))


def test_a_client_holds_its_rows_and_no_others(config, locals_):
    for local in locals_:
        assert len(local.examples.label) == 80
        cohort = jax.device_get(local.engine.cohort_for(np.int32(0), local.key))
        pieces = [node.mine(piece, local.client) for piece in local.engine.slices(cohort)]
        ids = np.concatenate([piece.client_id for piece in pieces])
        assert sorted(set(ids.tolist())) == [-1, local.client]
        own = Cohort(*(leaf[ids == local.client] for leaf in map(np.concatenate, zip(*[
            piece[:5] for piece in pieces], strict=True))))  # fmt: skip
        assert (own.offset.tolist(), own.count.tolist()) == ([0], [80])


def test_there_are_only_so_many_clients(config):
    with pytest.raises(RunError, match="client 3: expected 0 to 2"):
        node.prepare(config, 3)
