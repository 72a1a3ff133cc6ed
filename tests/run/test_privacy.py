"""A budget that ends a run, its price in every row, and promises that are refused."""

import json

import jax
import numpy as np
import pytest

from qoejax.fed import accounting, discrete
from qoejax.run import build, exchange, masked, writer
from qoejax.run.errors import RunError
from qoejax.run.train import prepare, train
from qoejax.wire import members
from qoejax.wire.secagg import bound

from .conftest import tiny_config

EXAMPLE = {"mechanism": "example", "clip": 1.0, "noise": 2.0, "microbatch": 16}


def private(data_dir, **sections):
    return tiny_config(data_dir, **({"privacy": EXAMPLE} | sections))


@pytest.mark.slow
def test_rows_show_the_price_and_a_spent_budget_ends_the_run(data_dir, tmp_path):
    """Refused past the budget, saved, resumed only under a larger one, to the same bits."""
    whole = train(private(data_dir), tmp_path / "whole")
    rows = writer.read_rows(tmp_path / "whole" / "metrics.jsonl")
    spent = [row["epsilon"] for row in rows]
    assert len(spent) == 4
    assert np.all(np.diff(spent) > 0)
    count = np.array(json.loads((tmp_path / "whole" / "data.json").read_text())["clients"]["rows"])
    steps, rate = -(-count // 32), np.minimum(1, 32 / count)
    for number, epsilon in enumerate(spent, 1):
        assert epsilon == accounting.worst(number * steps, 2.0, rate, 1e-5)
    claim = json.loads((tmp_path / "whole" / "manifest.json").read_text())["privacy"]
    assert claim["unit"] == "one row of one client"
    assert claim["not_covered"]

    budget = (spent[2] + spent[3]) / 2
    short = EXAMPLE | {"epsilon": budget}
    ended = train(private(data_dir, privacy=short), tmp_path / "w")
    assert ended["rounds"] == 3
    assert "is spent after round 3 of 4" in ended["stopped"]
    assert "run again with a larger budget" in ended["stopped"]
    again = train(private(data_dir, privacy=short), tmp_path / "w")
    assert (again["rounds"], again["params_sha256"]) == (3, ended["params_sha256"])
    with pytest.raises(RunError, match=r"another config: config\.privacy\.epsilon"):
        train(private(data_dir, privacy=short | {"epsilon": budget / 2}), tmp_path / "w")
    with pytest.raises(RunError, match=r"another config: config\.privacy"):
        train(private(data_dir, privacy=short | {"epsilon": 99.0, "noise": 1.0}), tmp_path / "w")
    on = train(private(data_dir, privacy=short | {"epsilon": 99.0}), tmp_path / "w")
    assert on["rounds"] == 4
    assert "stopped" not in on
    assert on["params_sha256"] == whole["params_sha256"]


def test_a_budget_below_one_round_is_refused_before_training(data_dir, tmp_path):
    config = private(data_dir, privacy=EXAMPLE | {"epsilon": 1e-3})
    with pytest.raises(RunError, match="the first round alone costs"):
        train(config, tmp_path / "w")
    assert not (tmp_path / "w" / "manifest.json").exists()


USER = {"mechanism": "user", "clip": 0.1, "noise": 1.0}


@pytest.mark.slow
def test_clients_are_drawn_and_priced_by_their_own_coins(data_dir, tmp_path):
    config = private(
        data_dir,
        privacy=USER,
        fed={"cohort": 1},
        participation={"sampling": "poisson"},
        server={"aggregator": "mean"},
        perf={"client_axis": "chunk", "chunk": 2},
    )
    train(config, tmp_path / "w")
    rows = writer.read_rows(tmp_path / "w" / "metrics.jsonl")
    price = [accounting.epsilon(n, 1.0, 1 / 3, 1e-5) for n in (1, 2, 3, 4)]
    assert [row["epsilon"] for row in rows] == price


@pytest.mark.slow
def test_taking_turns_is_priced_as_one_release(data_dir, tmp_path):
    config = private(
        data_dir,
        privacy=USER | {"mechanism": "ftrl", "noise": 4.0},
        fed={"cohort": 2},
        participation={"sampling": "cyclic"},
        server={"aggregator": "mean"},
    )
    train(config, tmp_path / "w")
    spent = [r["epsilon"] for r in writer.read_rows(tmp_path / "w" / "metrics.jsonl")]
    # Square root of two bands, (1, 1/2): alone 1, then 5/4, and twice that for two turns.
    moved = np.sqrt([1, 1.25, 2.25, 2.5])
    want = [accounting.epsilon(1, 4.0 / m, 1.0, 1e-5) for m in moved]
    np.testing.assert_allclose(spent, want, rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"privacy": {"mechanism": "local"}}, "expected one of none, example, user, ftrl"),
        ({"privacy": {"epsilon": 3.0}}, "epsilon is 3.0, but config.privacy.mechanism is 'none'"),
        ({"privacy": EXAMPLE | {"clip": 0.0}}, "noise hides nothing unless"),
        ({"privacy": EXAMPLE | {"noise": 0.0}}, "clipping alone is not private"),
        ({"privacy": EXAMPLE | {"delta": 0.0}}, "expected 0 < delta < 1"),
        ({"privacy": EXAMPLE, "fed": {"algorithm": "local_only"}}, "expected one of fedavg"),
        ({"privacy": USER}, "set it to 'mean'"),
        (
            {"privacy": USER, "server": {"aggregator": "mean"}, "fed": {"cohort": 2}},
            "not valid: set it to 'poisson'",
        ),
        (
            {"privacy": USER | {"mechanism": "ftrl"}, "server": {"aggregator": "mean"}},
            "not valid: set it to 'cyclic'",
        ),
        (
            {
                "privacy": USER,
                "server": {"aggregator": "mean"},
                "participation": {"dropout": 0.1},
            },
            "config.participation.dropout is 0.1, which the accountant of",
        ),
        (
            {"participation": {"sampling": "poisson", "trace": "markov"}},
            "trace is 'markov', but poisson sampling asks clients",
        ),
        (
            {"privacy": EXAMPLE, "server": {"aggregator": "fltrust", "root_rows": 5}},
            "config.server.root_rows is 5: the server would read rows of its own",
        ),
        (
            {"privacy": EXAMPLE, "fed": {"weight": "qoe"}},
            "config.fed.weight is 'qoe': the server would read rows",
        ),
        (
            {
                "compress": {"method": "int8"},
                "fed": {"algorithm": "scaffold"},
                "client": {"optimizer": "sgd"},
            },
            "scaffold's clients and server both build on what a message says",
        ),
        ({"participation": {"sampling": "fair"}}, "config.participation.sampling is 'fair'"),
        ({"compress": {"method": "zip"}}, "config.compress.method is 'zip'"),
        (
            {"compress": {"method": "int8"}, "fed": {"algorithm": "centralised"}},
            "config.compress.method is 'int8', but centralised training exchanges nothing",
        ),
    ],
)
def test_a_promise_that_cannot_be_kept_is_refused(data_dir, change, message):
    with pytest.raises(RunError) as caught:
        build.check(tiny_config(data_dir, **change))
    assert message in str(caught.value)


def test_a_delta_that_allows_publishing_a_record_is_refused(data_dir, tmp_path):
    with pytest.raises(RunError, match=r"publishing one record in .* outright"):
        train(private(data_dir, privacy=EXAMPLE | {"delta": 0.5}), tmp_path / "w")


SHARES = {
    "privacy": {"mechanism": "skellam", "clip": 0.1, "noise": 1.0},
    "server": {"aggregator": "mean"},
    "exchange": {"mode": "secagg", "signer": "openssl", "colluding": 0.0, "leaving": 0.0},
}


def test_shares_of_noise_hide_in_masked_sums_and_are_priced(data_dir, tmp_path):
    """The server sees sums with noise only; the price is Skellam's, of those that must finish."""
    run = prepare(tiny_config(data_dir, **SHARES), tmp_path)
    state = run.engine.init(run.objective.init(run.key, run.examples.x[:1]))
    message = run.engine.message(state.params)
    who = members.simulated(3, 1, "openssl")
    session = exchange.session(run.config, message, run.population.count, who)
    before = jax.device_get(state.params)
    state, _, wire = masked.run_round(run.engine, session, state, run.examples, run.key)
    assert (wire["accepted"], wire["rejected"]) == (3, {})
    moved = np.sqrt(sum(
        np.square(np.asarray(new) - old).sum()
        for new, old in zip(*map(jax.tree.leaves, (state.params, before)), strict=True)
    ))  # fmt: skip
    size = sum(leaf.size for leaf in jax.tree.leaves(message))
    finish = bound.choose(3, 0, 0).least
    noise = 0.1 * (3 / finish) ** 0.5  # of all three, where the noise of fewer is enough
    assert moved == pytest.approx(noise * size**0.5 / 3, rel=0.1)
    grid = discrete.fit(0.1, 1.0, size, finish, 3)
    assert session.ring == grid
    claim = run.ledger.claim
    assert claim["grid_step"] == grid.step
    assert f"server included, while {finish} honest clients" in claim["against"]
    variance = discrete.variance(grid) * finish
    for number in (1, 4):
        want = accounting.skellam(number, discrete.norm_bound(grid), variance, size, 1e-5)
        # Close to what the same noise costs as a Gaussian: rounding adds little.
        assert run.ledger.epsilon(number) == pytest.approx(want)
        assert want < 1.2 * accounting.bound(number, 1.0, 1.0, 1e-5)
    assert run.ledger.epsilon(0) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exchange": {"mode": "pqc"}}, "one share is not enough; set it to 'secagg'"),
        ({"exchange": {"mode": "none"}}, "one share is not enough"),
        ({"fed": {"cohort": 2}}, "everybody in every round"),
        ({"participation": {"sampling": "poisson"}}, "everybody in every round|coins"),
        ({"server": {"aggregator": "weighted_mean"}}, "equal weights"),
        ({"fed": {"algorithm": "scaffold"}, "client": {"optimizer": "sgd"}}, "does not cover"),
    ],
)  # fmt: skip
def test_shares_that_would_hide_nobody_are_refused(changes, message):
    with pytest.raises(RunError, match=message):
        build.check(tiny_config("", **(SHARES | changes)))
