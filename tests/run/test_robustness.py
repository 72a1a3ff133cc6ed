"""Malicious clients and robust rules in a run: configuration, poisoned rows, and the grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.fed import attacks, client
from qoejax.run import algorithm, build, defence, files, robustness
from qoejax.run.errors import RunError

from .conftest import tiny_config

SGD = {"optimizer": "sgd", "lr": 0.05}


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        (
            {"server": {"aggregator": "krum", "byzantine": 1}},
            r"'krum' needs 5 clients a round .*byzantine=1, but a round has 3: raise config.fed",
        ),
        ({"server": {"aggregator": "bulyan", "byzantine": 1}}, "needs 7 clients a round"),
        ({"server": {"byzantine": 1}}, "weighted_mean tolerates no Byzantine client: expected 0"),
        (
            {"server": {"byzantine": -1, "aggregator": "krum"}},
            "byzantine is -1: expected 0 or more",
        ),
        ({"server": {"aggregator": "fltrust"}}, "root_rows is 0 with the aggregator 'fltrust'"),
        ({"server": {"root_rows": 5}}, "root_rows is 5 with the aggregator 'weighted_mean'"),
        ({"server": {"max_norm": 0.0}}, r"server\.max_norm is 0\.0: expected more than 0"),
        ({"server": {"aggregator": "best"}}, r"server\.aggregator is 'best': expected one of"),
        ({"attack": {"name": "virus"}}, r"attack\.name is 'virus': expected one of alie"),
        ({"attack": {"fraction": 1.0}}, r"attack\.fraction is 1\.0: expected 0 to below 1"),
        (
            {"attack": {"name": "ipm"}, "fed": {"algorithm": "centralised"}},
            "in centralised training nobody sends anything",
        ),
        (
            {"attack": {"name": "free_rider"}, "fed": {"algorithm": "scaffold"}, "client": SGD},
            "message of scaffold holds a control variate too",
        ),
        (
            {"server": {"aggregator": "fltrust", "root_rows": 9}, "fed": {"algorithm": "fedrep"}},
            "'fltrust', but a client of fedrep starts from a state",
        ),
        (
            {
                "server": {"aggregator": "fltrust", "root_rows": 9},
                "fed": {"algorithm": "shared_moments"},
            },
            "'fltrust', but a message of shared_moments holds the optimizer's moments too",
        ),
        (
            {"server": {"aggregator": "coordinate_median"}, "fed": {"weight": "qoe"}},
            "'coordinate_median' gives all clients the same weight: expected config.server",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_data_are_read(sections, words):
    with pytest.raises(RunError, match=words):
        build.check(tiny_config("nowhere", **sections))


def test_a_strength_that_an_attack_refuses_is_named(data_dir):
    config = tiny_config(data_dir, attack={"name": "label_flip", "strength": 2.0})
    with pytest.raises(RunError, match=r"config\.attack: strength is a share"):
        defence.adversary(config, 3)


def test_only_malicious_clients_hold_poisoned_rows(data_dir):
    clean = tiny_config(data_dir)
    rows = build.data(clean)
    before = build.population(clean, rows)
    config = tiny_config(data_dir, attack={"name": "label_flip", "fraction": 0.4})
    after = build.population(config, rows)
    malicious = attacks.choose(3, 0.4, config.seed)
    assert malicious.sum() == 1
    mine = np.repeat(malicious, after.count)
    last = len(rows.spec.label_names) - 1
    np.testing.assert_array_equal(after.examples.label[~mine], before.examples.label[~mine])
    np.testing.assert_array_equal(after.examples.label[mine], last - before.examples.label[mine])


def test_root_rows_leave_the_clients_and_are_trained_on_like_a_clients(data_dir):
    all_rows = build.data(tiny_config(data_dir))
    server = {"aggregator": "fltrust", "root_rows": 20}
    config = tiny_config(data_dir, server=server, client={"optimizer": "sgd"})
    rows = build.data(config)
    assert len(rows.root.label) == 20
    assert len(rows.train.label) == len(all_rows.train.label) - 20
    assert jax.tree.leaves(rows.root)[0].shape[1:] == rows.train.x.shape[1:]

    def loss(params, batch, key):
        del key
        error = batch.x.mean((1, 2)) * params["w"] - 1.0
        total = (error**2 * batch.weight).sum()
        return total / jnp.maximum(batch.weight.sum(), 1.0), {"loss": total}

    update = client.fedavg(loss, client.sgd(), lr=0.1, batch_size=20)
    config = tiny_config(data_dir, server=server, client={"batch": 20, "schedule": "cosine"})
    work = algorithm.local_work(config)
    root_delta = jax.jit(
        defence.make_root_delta(rows.root, update, algorithm.schedule(config), **work)
    )
    params, mean = {"w": jnp.float32(0.5)}, rows.root.x.mean((1, 2))
    slope = float((2 * mean * (mean * 0.5 - 1)).mean())  # one full batch
    for number, rate in ((0, 1.0), (2, 0.5)):  # the schedule's half-way of four rounds
        out = root_delta(params, jnp.int32(number), jax.random.key(0))
        assert float(out["w"]) == pytest.approx(-0.1 * rate * slope, rel=1e-4)


def test_more_root_rows_than_rows_are_refused(data_dir):
    config = tiny_config(data_dir, server={"aggregator": "fltrust", "root_rows": 10_000})
    with pytest.raises(RunError, match=r"root_rows is 10000: expected fewer than the \d+ training"):
        build.data(config)


GRID = {"clients": {"partition": "iid", "count": 5}, "client": {"optimizer": "sgd", "lr": 0.2}}


@pytest.mark.slow
def test_a_cell_of_the_grid_is_the_run_that_it_stands_for(data_dir, tmp_path):
    config = tiny_config(data_dir, attack={"name": "sign_flip", "fraction": 0.2}, **GRID)
    summary = robustness.run(
        config, tmp_path, [0.2], ["weighted_mean", "coordinate_median", "bulyan"],
        ["none", "sign_flip"],
    )  # fmt: skip
    record = files.read_json(tmp_path / "robustness.json", "results")["grids"][0]
    assert record["malicious"] == 1
    assert record["needs"] == {"weighted_mean": 1, "coordinate_median": 3, "bulyan": 7}
    assert [(c["rule"], c["attack"]) for c in record["cells"]] == [
        (r, a) for r in ("weighted_mean", "coordinate_median") for a in ("none", "sign_flip")
    ]
    assert set(summary["grids"][0]["rules"]) == {"weighted_mean", "coordinate_median"}
    for name in ("grid-20", "rules-20"):
        assert (tmp_path / "plots" / f"{name}.png").stat().st_size > 1000

    task = robustness.prepare(config)
    data, population = task.data, task.population
    engine = build.make_engine(config, task.objective.loss_fn, population.offset, population.count)
    params_key, run_key = jax.random.split(jax.random.key(config.seed))
    params = task.objective.init(params_key, jnp.asarray(data.test.x[:1]))
    rows = jax.tree.map(jnp.asarray, population.examples)
    state, _ = engine.block(engine.init(params), rows, run_key, config.fed.rounds)
    said = task.objective.predict(state.params, jnp.asarray(data.test.x))["logits"].argmax(-1)
    attacked = record["cells"][1]
    assert (attacked["rule"], attacked["attack"]) == ("weighted_mean", "sign_flip")
    assert attacked["accuracy"] == pytest.approx(float(np.mean(said == data.test.label)), abs=0.02)
    assert attacked["accuracy"] < record["cells"][0]["accuracy"]


@pytest.mark.parametrize(
    ("fractions", "rules", "names", "words"),
    [
        ([0.2], ["best"], ["none"], "'best': expected one of"),
        ([0.2], ["mean"], ["none", "virus"], "'virus': expected one of"),
        ([0.2], ["mean"], ["ipm"], "'none' as its first attack"),
        ([], ["mean"], ["none"], "needs a fraction"),
    ],
)
def test_a_grid_that_cannot_work_is_refused(tmp_path, fractions, rules, names, words):
    with pytest.raises(RunError, match=words):
        robustness.run(tiny_config("nowhere", **GRID), tmp_path, fractions, rules, names)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"fed": {"algorithm": "ditto"}}, "'ditto', but a grid scores one model"),
        ({"participation": {"dropout": 0.2}}, r"dropout is 0\.2, but a grid wants everyone"),
        ({"fed": {"weight": "qoe"}}, "'qoe', which no grid covers"),
        (
            {"fed": {"algorithm": "scaffold"}, "client": SGD},
            "message of scaffold holds a control variate too",
        ),
    ],
)
def test_a_grid_leaves_nothing_of_its_config_out(tmp_path, sections, words):
    with pytest.raises(RunError, match=words):
        robustness.run(
            tiny_config("nowhere", **(GRID | sections)), tmp_path, [0.2], ["weighted_mean"],
            ["none", "free_rider"],
        )  # fmt: skip
