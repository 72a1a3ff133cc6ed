"""Rounds over secure aggregation: the same model as without, up to the stated rounding."""

import hashlib
import json
import shutil

import jax
import numpy as np
import pytest

from qoejax.fed import ring as rings
from qoejax.run import build, exchange, masked, sums, transparency, verify, wired
from qoejax.run.errors import RunError
from qoejax.run.train import prepare, train
from qoejax.wire import members
from qoejax.wire.log import audit, store
from qoejax.wire.secagg import local, plan
from tests.run.conftest import tiny_config
from tests.wire.log.helpers import log_key, with_witnesses


def masked_config(data_dir, mode="secagg", **sections):
    own = {"mode": mode, "signer": "openssl"} | sections.pop("exchange", {})
    return tiny_config(data_dir, exchange=own, **sections)


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory):
    config = masked_config(data_dir)
    build.check(config)
    return prepare(config, tmp_path_factory.mktemp("masked"))


def initial(run):
    return run.engine.init(run.objective.init(jax.random.key(5), run.examples.x[:1]))


@pytest.fixture(scope="module")
def deltas(run):
    """What every client would send, as rows [K, D], with its weight."""
    state, key = initial(run), jax.random.key(1)
    cohort = run.engine.cohort_for(state.round, key)
    parts = [run.engine.local(state, run.examples, c, key) for c in run.engine.slices(cohort)]
    trees = [jax.device_get(part.deltas) for part in parts]
    whole = jax.tree.map(lambda *leaves: np.concatenate(leaves), *trees)
    return np.asarray(rings.flatten(whole)), np.asarray(cohort.weight)


def session(run):
    message = run.engine.message(initial(run).params)
    who = members.simulated(len(run.population.count), run.config.exchange.suite, "openssl")
    return exchange.session(run.config, message, run.population.count, who)


def one_round(run, one=None, examples=None):
    examples = run.examples if examples is None else examples
    return masked.run_round(
        run.engine, session(run) if one is None else one, initial(run), examples, jax.random.key(1)
    )


def test_a_masked_run_leaves_a_log_that_holds(run, tmp_path):
    """Two rounds: announcements, one sum each with what its members signed, models that follow."""
    key = log_key()
    one = session(run)
    state = initial(run)
    with transparency.Ledger(tmp_path, key, with_witnesses(key), bytes(32)) as ledger:
        for _ in range(2):
            state, _, wire = masked.run_round(
                run.engine, one, state, run.examples, jax.random.key(1), ledger
            )
    report = audit.audit(store.read(tmp_path), with_witnesses(key))
    assert wire["log"]["size"] == report.tree.size
    for rnd in report.state.rounds:
        (total,) = rnd.sums
        assert len(total.survivors) == total.confirmed == 3
    # A manifest, 3 enrolments; each round an announcement, SURVIVORS, 3 CONFIRMs, a checkpoint.
    assert report.signatures == 4 + 2 * 6
    assert report.state.models[1][0] == wired.digests(run.engine.sent(state))[0]


def step(run, state):
    """How far the parameters moved, as one row."""
    moved = [
        np.asarray(a, np.float64) - np.asarray(b)
        for a, b in zip(
            jax.tree.leaves(state.params), jax.tree.leaves(initial(run).params), strict=True
        )
    ]
    return np.concatenate([leaf.ravel() for leaf in moved])


def test_a_round_moves_by_the_weighted_mean_within_the_bound(run, deltas):
    rows, weight = deltas
    one = session(run)
    state, metrics, wire = one_round(run, one)
    mean = weight.astype(np.float64) @ rows / weight.sum()
    limit = rings.error(one.ring, 3, float(weight.sum()), float(np.abs(rows).max()))
    params = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state.params)])
    adding = 2.0**-23 * np.abs(params)  # old plus step, in float32
    assert np.all(np.abs(step(run, state) - mean) <= limit + adding)
    assert np.abs(step(run, state)).max() > 100 * limit
    assert metrics["clients"] == wire["accepted"] == 3
    assert wire["clipped"] == 0
    assert wire["rejected"] == {}
    assert wire["bytes_up"] == 3 * (local.upload(2, rows.shape[1] + 1))


def test_what_needs_no_input_goes_on_beside_the_device(run, monkeypatch):
    """When members have shared their secrets, nothing that the device made has been read yet."""
    order, begin, add = [], sums.Session.begin, sums.Session.sums
    monkeypatch.setattr(sums.Session, "begin", lambda *a: order.append("begin") or begin(*a))
    monkeypatch.setattr(sums.Session, "sums", lambda *a: order.append("sums") or add(*a))

    class Read:
        def __init__(self, words):
            self.words = words

        def __array__(self, dtype=None, copy=None):
            order.append("words")
            return np.asarray(self.words)

    def watched(ring):
        halves = run.engine.masked(ring)

        def encode(*arguments):
            encoded = halves.encode(*arguments)
            return encoded._replace(words=Read(encoded.words))

        return halves._replace(encode=encode)

    _, _, wire = one_round(run._replace(engine=run.engine._replace(masked=watched)))
    assert order == ["begin", "words", "sums"]
    assert wire["beside_s"] > 0
    assert wire["wait_s"] > 0
    assert set(wire["seconds"]) == {
        "start", "join", "encapsulate", "agree", "share", "ready", "mask", "confirm", "unmask",
        "server",
    }  # fmt: skip
    assert wire["client"]["bytes_up"] * 3 == wire["bytes_up"]
    steps = sum(s for name, s in wire["seconds"].items() if name != "server")
    assert wire["client"]["cpu_s"] * 3 == pytest.approx(steps, rel=0.1)


def test_the_masked_sum_is_the_ring_sum_to_the_bit(run, deltas, monkeypatch):
    seen = []
    true = sums.Session.sums

    def spy(self, opened, words, leaves):
        seen.append((words, true(self, opened, words, leaves)))
        return seen[-1][1]

    monkeypatch.setattr(sums.Session, "sums", spy)
    one_round(run)
    words, found = seen[0]
    _, weight = deltas
    plain = np.sum([words[i] for i in found.counted], axis=0, dtype=np.uint32)
    np.testing.assert_array_equal(found.words, plain[None])
    assert plain[-1] == weight.sum()
    (record,) = found.records
    assert record.total == hashlib.sha256(plain.astype("<u4").tobytes()).digest()
    assert len(record.members) == len(record.confirmed) == 3
    assert plan.decode(record.plan).length == len(plain)


@pytest.mark.parametrize("number", [0x0003, 0x01F1], ids=hex)
def test_no_suite_changes_a_bit_of_the_model(run, number):
    """And the announcement, the plan and every frame are the suite's."""
    rules = session(run).rules._replace(suite=number, unsafe=True, kem_provider="openssl")
    who = members.simulated(3, number, "openssl")
    message = run.engine.message(initial(run).params)
    heaviest = float(run.population.count.max())
    other = sums.session(who, rules, message, run.config.exchange.clip, heaviest, 3)
    (state, _, wire), (want, _, _) = one_round(run, other), one_round(run)
    for found, expected in zip(*map(jax.tree.leaves, (state.params, want.params)), strict=True):
        np.testing.assert_array_equal(found, expected)
    length = sum(leaf.size for leaf in jax.tree.leaves(message)) + 1
    assert wire["bytes_up"] == 3 * local.upload(2, length, suite=number)


def test_a_client_with_nothing_finite_leaves_before_its_input(run, deltas):
    rows, weight = deltas
    x = np.asarray(run.examples.x).copy()
    x[: run.population.count[0]] = np.inf
    state, metrics, wire = one_round(run, examples=run.examples._replace(x=jax.numpy.asarray(x)))
    rest = weight[1:].astype(np.float64) @ rows[1:] / weight[1:].sum()
    np.testing.assert_allclose(step(run, state), rest, atol=1e-6)
    assert metrics["clients"] == wire["accepted"] == 2


def test_nothing_is_opened_and_the_model_stays(run, monkeypatch):
    monkeypatch.setattr(
        masked, "_turnout", lambda cohort, *rest: (dict(zip(range(3), range(3), strict=True)),
                                                   {0: "shares", 1: "input"}),
    )  # fmt: skip
    state, metrics, wire = one_round(run)
    assert not step(run, state).any()
    assert int(state.round) == 1
    assert metrics["clients"] == wire["accepted"] == 0
    assert wire["rejected"] == {"POLICY": 1}


def test_clients_leave_at_steps_that_depend_on_round_and_client():
    steps = {masked.leaving_step(r, c, False) for r in range(5) for c in range(5)}
    assert steps == set(masked.LEAVES)
    later = {masked.leaving_step(r, c, True) for r in range(5) for c in range(5)}
    assert later == {"shares", "input"}


def grouped(data_dir):
    """A robust rule over three groups of three, keys for three rounds, clients that leave."""
    return masked_config(
        data_dir, "secagg_groups",
        exchange={"groups": 3, "epoch": 3},
        clients={"partition": "iid", "count": 9, "min_size": 16},
        participation={"dropout": 0.15},
        server={"aggregator": "coordinate_median", "byzantine": 1},
    )  # fmt: skip


def check_rows(workdir, params):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["round"] for row in rows] == [1, 2, 3, 4]
    assert sum(row["absent"] for row in rows) > 0
    for row in rows:
        out = row["absent"] + sum(row["wire"]["rejected"].values())
        assert row["clients"] == row["wire"]["accepted"] == 9 - out
        assert row["update_bytes"] == 4 * (params + 1)


def test_a_run_in_groups_with_epochs_and_dropouts(data_dir, tmp_path):
    summary = train(grouped(data_dir), tmp_path / "run")
    checked = verify.verify(tmp_path / "run")
    assert checked["ok"], checked
    assert checked["summed"] > 0 == checked["updates"]
    check_rows(tmp_path / "run", summary["params"])
    assert "secagg_groups" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.slow
def test_a_run_resumes_to_the_same_bits_in_the_middle_of_an_epoch(data_dir, tmp_path):
    summary = train(grouped(data_dir), tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
    assert train(grouped(data_dir), tmp_path / "run")["params_sha256"] == summary["params_sha256"]
    check_rows(tmp_path / "run", summary["params"])


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"server": {"aggregator": "krum", "byzantine": 0}}, "server.aggregator is 'krum'.*groups"),
        ({"compress": {"method": "int8"}}, "compress.method is 'int8'.*do not add up"),
        ({"fed": {"algorithm": "fednova"}, "client": {"optimizer": "sgd"}}, "steps of every"),
        ({"fed": {"weight": "qoe"}}, "fed.weight is 'qoe'.*single updates"),
        ({"participation": {"mode": "buffered"}, "fed": {"cohort": 3}}, "mode is 'buffered'"),
        (
            {"privacy": {"mechanism": "user", "clip": 1.0, "noise": 1.0},
             "server": {"aggregator": "mean"}},
            "privacy.mechanism is 'user'.*clips single updates",
        ),
        ({"exchange": {"epoch": 2}, "fed": {"cohort": 3}, "clients": {"count": 5}}, "epoch is 2"),
        ({"exchange": {"epoch": 2}, "participation": {"trace": "markov"}}, "trace 'markov'"),
        ({"exchange": {"clip": 0.0}}, "clip above 0"),
        ({"exchange": {"colluding": 1.0}}, "colluding and leaving from 0"),
        ({"exchange": {"adversary": "nice"}}, "exchange.adversary is 'nice'"),
        ({"exchange": {"session": 4}}, "exchange.session is 4.*inputs are signed"),
        ({"exchange": {"confidential": True}}, "exchange.confidential is True"),
        ({"exchange": {"suite": 0x01FF, "unsafe": True}}, "plaintext suite.*masks come from a KEM"),
        ({"clients": {"count": 2}}, "fewer than 3 hides nobody"),
        ({"exchange": {"mode": "secagg_groups", "groups": 2}}, "fewer than 3 hides nobody"),
        ({"exchange": {"colluding": 0.5, "leaving": 0.4}}, "too many"),
        (
            {"exchange": {"mode": "secagg_groups", "groups": 4}, "clients": {"count": 20},
             "server": {"aggregator": "krum", "byzantine": 1}},
            "needs 5 updates.*mean of a group",
        ),
        ({"fed": {"algorithm": "local_only"}}, "exchanges nothing"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_sums_is_refused_before_anything_compiles(sections, message):
    with pytest.raises(RunError, match=message):
        build.check(masked_config("", **{k: dict(v) for k, v in sections.items()}))


def test_the_rest_goes_with_sums():
    for sections in (
        {},
        {"server": {"aggregator": "mean"}},
        {"fed": {"algorithm": "scaffold"}, "client": {"optimizer": "sgd"}},
        {"fed": {"algorithm": "fedper"}},
        {"privacy": {"mechanism": "example", "clip": 1.0, "noise": 1.0}},
        {"exchange": {"mode": "secagg_groups", "groups": 5}, "clients": {"count": 20},
         "server": {"aggregator": "krum", "byzantine": 1}},
    ):  # fmt: skip
        build.check(masked_config("", **sections))
