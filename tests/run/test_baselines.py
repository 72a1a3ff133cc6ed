import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.run import baselines, build, estimators
from qoejax.run.baselines import Said
from qoejax.run.errors import RunError
from qoejax.types import Examples
from tests.run.conftest import tiny_config


@pytest.fixture(scope="module")
def config(data_dir):
    return tiny_config(data_dir, fed={"algorithm": "centralised", "rounds": 3})


@pytest.fixture(scope="module")
def problem(config):
    data = build.data(config)
    return baselines.Problem(config, data.spec, data.train), data.test


@pytest.fixture
def twin(monkeypatch):
    """A contender for scores alone, and boosting of few trees."""
    twin = baselines._net("linear", tasks=("mos",))
    monkeypatch.setitem(baselines.CONTENDERS, "twin", twin)
    few = baselines.CONTENDERS["histogram_boosting"]._replace(space={"max_iter": lambda rng: 8})
    monkeypatch.setitem(baselines.CONTENDERS, "histogram_boosting", few)


def test_every_contender_is_judged_by_its_own_tasks(config, twin):
    names, seen = ["linear", "twin", "persistence"], []
    rows = baselines.compare(config, names, trials=1, seeds=2, report=seen.append)
    assert seen == rows
    by_name = {row["name"]: row for row in rows}
    assert list(by_name) == names
    mean, half = by_name["linear"]["figures"]["accuracy"]
    assert 0 < mean < 1
    assert half >= 0
    assert set(by_name["linear"]["figures"]) > set(by_name["twin"]["figures"])
    assert "macro_f1" not in by_name["twin"]["figures"]
    assert by_name["persistence"]["figures"]["skill/voice_3s"] == (0.0, 0.0)
    assert by_name["persistence"]["settings"] == {}
    page = baselines.markdown(rows, "title")
    assert page.count("\n") == 4 + len(rows)
    assert all(f"| {name} |" in page for name in names)


@pytest.mark.parametrize(("settings", "drawn"), [({}, False), ({"subsample": 0.6}, True)])
def test_boosting_draws_at_random_only_where_it_samples(problem, settings, drawn):
    """So that one fit may stand for all seeds (``Contender.seeded``)."""
    task, rows = problem
    boosting = baselines.CONTENDERS["lightgbm"]
    one, other = (
        boosting.fit(task, settings | {"n_estimators": 5, "min_child_samples": 3}, seed)(rows)
        for seed in (0, 1)
    )
    assert boosting.seeded(settings) == drawn
    assert np.array_equal(one.probability, other.probability) != drawn
    assert baselines.CONTENDERS["random_forest"].seeded({})


@pytest.mark.slow
def test_trees_learn(config, twin):
    names = ["random_forest", "histogram_boosting"]
    forest, boosting = baselines.compare(config, names, trials=2, seeds=2)
    assert forest["figures"]["accuracy"][0] > 0.3
    assert "rmse/voice_3s" not in forest["figures"]
    assert boosting["figures"]["r2/voice_0s"][0] > 0


def test_nets_learn_centrally(problem):
    task, _ = problem
    config = build.from_plain(build.plain_config(task.config))
    config.client.lr, config.fed.rounds = 0.02, 25
    counts = np.bincount(task.rows.label, minlength=len(task.spec.label_names))
    objective = build.objective(config, task.spec, counts)
    params = baselines.train_net(config, objective, task.rows, 0)
    right = (
        np.asarray(objective.predict(params, jnp.asarray(task.rows.x))["logits"]).argmax(1)
        == task.rows.label
    )
    assert right.mean() > 1.2 * counts.max() / counts.sum()


def test_rows_beyond_those_there_are_have_no_part(problem, monkeypatch):
    task, _ = problem
    rows = jax.tree.map(lambda leaf: leaf[:45], task.rows)
    counts = np.ones(len(task.spec.label_names), np.int64)
    objective = build.objective(task.config, task.spec, counts)
    assert {len(baselines._rounded_up(leaf)) for leaf in rows} == {64}
    found = baselines.train_net(task.config, objective, rows, 0)
    padded = baselines._rounded_up

    def ones(leaf):
        out = padded(leaf)
        out[len(leaf) :] = 1
        return out

    monkeypatch.setattr(baselines, "_rounded_up", ones)
    again = baselines.train_net(task.config, objective, rows, 0)
    jax.tree.map(np.testing.assert_array_equal, again, found)


def test_a_net_may_see_the_last_record_alone(problem):
    """Its figures do not move when earlier records do; those of the net that sees all may."""
    task, rows = problem
    config = build.from_plain(build.plain_config(task.config))
    config.fed.rounds = 1
    fit = functools.partial(baselines._fit_net, task._replace(config=config), {}, 0)
    earlier = rows._replace(x=np.concatenate([rows.x[:, :-1] + 1, rows.x[:, -1:]], axis=1))
    for records, same in ((1, True), (0, False)):
        predict = fit(model={"net": "linear"}, records=records)
        one, other = predict(rows), predict(earlier)
        assert np.array_equal(one.mos, other.mos) is same


def test_narrow_nets_have_about_half_the_parameters(problem):
    task, _ = problem

    def size(own):
        config = build.from_plain(build.plain_config(task.config))
        config.model = {"net": "qoenet", **own}
        objective = build.objective(config, task.spec, np.ones(len(task.spec.label_names)))
        x, key = jnp.asarray(task.rows.x[:1]), jax.random.key(0)
        shapes = jax.eval_shape(lambda key: objective.init(key, x), key)
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))

    for own in ({}, {"width": 128, "heads": 8}):
        assert 0.4 < size({**own, **baselines.narrow(own)}) / size(own) < 0.6
    assert baselines.narrow({"width": 8, "mlp": 8, "heads": 2, "hidden": 8})["width"] == 4


def test_tuning_sees_training_rows_only_and_takes_the_best(problem):
    """A contender that notes what it is given: disjoint parts, and the trial of highest value."""
    task, _ = problem
    given = []

    def fit(part, settings, seed):
        given.append(part.rows)
        classes = len(task.spec.label_names)

        def predict(rows):
            given.append(rows)
            right = np.eye(classes)[rows.label]
            wrong = np.eye(classes)[(rows.label + 1) % classes]
            share = settings.get("share", 0.0)
            return Said(share * right + (1 - share) * wrong, None)

        return predict

    contender = baselines.Contender(fit, {"share": lambda rng: float(rng.random())})
    settings, best = baselines.tuned(contender, task, 6, 0.25, 0)
    assert settings["share"] > 0.5
    assert best == 1.0
    assert len(given) == 12
    fitted, judged = given[:2]
    assert len(judged.label) == round(0.25 * len(task.rows.label))
    both = np.sort(np.concatenate([fitted.x, judged.x]).ravel())
    np.testing.assert_array_equal(both, np.sort(task.rows.x.ravel()))


def test_folds_judge_every_training_row_once_and_no_test_row(config, problem, monkeypatch):
    """A contender that knows the answer of the first fold only: the mean over folds says so."""
    task, test = problem
    given, judged = [], []
    classes = len(task.spec.label_names)

    def fit(part, settings, seed):
        given.append(part.rows)

        def predict(rows):
            judged.append(rows)
            label = rows.label if len(judged) == 1 else (rows.label + 1) % classes
            return Said(np.eye(classes)[label], None)

        return predict

    monkeypatch.setitem(baselines.CONTENDERS, "noted", baselines.Contender(fit, {}))
    data = build.Data(task.spec, None, task.rows, test, *[None] * 5)
    monkeypatch.setattr(build, "data", lambda _: data)
    (row,) = baselines.compare(config, ["noted"], trials=1, seeds=1, folds=4)
    assert row["figures"]["accuracy"] == (0.25, 0.0)
    assert len(given) == len(judged) == 4
    for fitted, seen in zip(given, judged, strict=True):
        both = np.sort(np.concatenate([fitted.x, seen.x]).ravel())
        np.testing.assert_array_equal(both, np.sort(task.rows.x.ravel()))
    seen = np.concatenate([rows.x for rows in judged])
    np.testing.assert_array_equal(np.sort(seen.ravel()), np.sort(task.rows.x.ravel()))


def test_the_interval_is_students():
    assert baselines.interval([3.0]) == (3.0, 0.0)
    mean, half = baselines.interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)  # t at 2 degrees of freedom


def test_figures_are_of_rated_rows(problem):
    task, rows = problem
    perfect = baselines.judge(Said(None, rows.mos.astype(float)), rows, task.spec)
    assert {v for k, v in perfect.items() if k.startswith("rmse")} == {0.0}
    assert {v for k, v in perfect.items() if k.startswith("skill")} == {1.0}
    hidden = rows._replace(mos_mask=np.zeros_like(rows.mos_mask))
    assert baselines.judge(Said(None, rows.mos), hidden, task.spec) == {}
    assert baselines.value({"macro_f1": 0.5, "r2/a": 0.2, "r2/b": 0.4}) == pytest.approx(0.8)


def test_trees_see_windows_in_full_and_absent_classes_get_nothing(problem):
    x = np.random.default_rng(0).normal(size=(40, 4, 3)).astype(np.float32)
    seen = estimators.flat(x)
    assert seen.shape == (40, 21)
    np.testing.assert_array_equal(seen[:, :3], x[:, -1])
    np.testing.assert_array_equal(estimators.flat(x[:, :1]), x[:, 0])
    label = np.where(x[:, -1, 0] > 0, 3, 1).astype(np.int32)
    none = np.zeros((40, 1), np.float32)
    rows = Examples(x, label, none, none > 0, np.ones(40, np.float32))
    stump = estimators.classifier(estimators.CLASSIFIERS["stump"], rows, 5, {}, 0)
    probability = stump(rows)
    np.testing.assert_array_equal(probability.argmax(1), label)
    np.testing.assert_array_equal(probability[:, [0, 2, 4]], 0)


def test_what_cannot_be_compared_is_refused(config, monkeypatch):
    ask = functools.partial(baselines.compare, config, trials=1, seeds=1)
    with pytest.raises(RunError, match=r"config.contenders is 'forest': expected one of cnn"):
        ask(["forest"])
    with pytest.raises(RunError, match=r"trials 1, seeds 0, share 0.2, folds 0: expected 1"):
        ask(["mlp"], seeds=0)
    with pytest.raises(RunError, match=r"folds 1: expected .* at least 2 folds"):
        ask(["mlp"], folds=1)
    missing = estimators.CLASSIFIERS["stump"]._replace(module="nowhere.trees")
    with pytest.raises(RunError, match=r"needs nowhere, .* expected the extra 'baselines'"):
        estimators.make(missing, {}, 0)
