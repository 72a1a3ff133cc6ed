"""Verdicts from made-up figures: each can pass, and each can fail."""

import pathlib

import numpy as np
import pytest

from qoejax.data.builders.simulated_iot.simulated_iot_dataset_builder import SETTINGS
from qoejax.run import build, study
from qoejax.run.studies import (
    federated,
    forecasts,
    holdouts,
    joint,
    latency,
    needed,
    precision,
    protection,
    shortcut,
)
from qoejax.run.studies.pairs import Gap
from qoejax.run.study import FAILS, HOLDS, UNTESTED
from qoejax.types import Examples

AHEAD = Gap(0.02, 0.01, 0.03, 0.005, 0.035)
WIDE = AHEAD._replace(low=-0.01)  # over seeds
UNSURE = AHEAD._replace(block_low=-0.01)  # over test rows
BEHIND = Gap(-0.02, -0.03, -0.01, -0.03, -0.01)
LEVEL = Gap(0.0, -0.001, 0.001, -0.002, 0.002)


def test_a_gap_is_above_only_by_both_intervals():
    assert [g.above for g in (AHEAD, WIDE, UNSURE, BEHIND)] == [True, False, False, False]
    assert (AHEAD.least, AHEAD.most) == (0.005, 0.035)


@pytest.mark.parametrize(
    ("gaps", "verdict"),
    [
        ([AHEAD, AHEAD], HOLDS),
        ([AHEAD, AHEAD, BEHIND], HOLDS),
        ([AHEAD, AHEAD, BEHIND, WIDE], FAILS),
        ([AHEAD], UNTESTED),
        ([WIDE], FAILS),
        ([AHEAD, UNSURE], FAILS),
    ],
)
def test_precision(gaps, verdict):
    duels = {str(i): precision.Duel("a", g, "b", AHEAD) for i, g in enumerate(gaps)}
    found, text = precision.judge(duels)
    assert found == verdict
    assert "macro-F1 over a" in text
    assert not precision.Duel("a", AHEAD, "b", BEHIND).won


def test_precision_has_fewer_contenders_at_less_work():
    assert precision.rivals(1.0, 8) == precision.RIVALS
    assert precision.rivals(0.1, 8) == precision.RIVALS[:4]
    assert not set(precision.rivals(1.0, 1)) & set(precision.OVER_TIME)
    assert {"lightgbm", "tabm", "ft_transformer"} < set(precision.rivals(1.0, 1))
    assert [precision.trials(s) for s in (0.1, 0.5, 1.0)] == [1, 1, 2]


def test_shortcut():
    sound = shortcut.Found(0.8, {"stump": 0.3, "column": 0.69}, 0.12, 0.1)
    assert shortcut.judge({"a": sound})[0] == HOLDS
    close = sound._replace(sentinels={"stump": 0.3, "column": 0.71})
    found, text = shortcut.judge({"a": sound, "b": close})
    assert found == FAILS
    assert "0.710 (column)" in text
    learnt = sound._replace(shuffled=0.25)
    assert shortcut.judge({"a": learnt})[0] == FAILS


def test_holdouts():
    ours = {k: holdouts.Two(0.1 + d, 0.8) for k, d in (("a", 0.0), ("b", 0.05))}
    theirs = {k: holdouts.Two(0.15, 0.75) for k in ours}
    assert holdouts.judge(ours, theirs)[0] == HOLDS
    assert holdouts.judge(theirs, ours)[0] == FAILS
    mixed = {k: two._replace(f1=0.9) for k, two in theirs.items()}
    assert holdouts.judge(ours, mixed)[0] == FAILS


def test_latency():
    assert latency.judge({"one": 0.65})[0] == HOLDS
    assert latency.judge({"one": 0.6, "eight": 0.66})[0] == FAILS
    rng = np.random.default_rng(0)
    us = {n: rng.uniform(90, 110, 1000) * f for n, f in
          (("joint", 1.2), ("class_twin", 1.0), ("mos_twin", 1.0))}  # fmt: skip
    assert latency.ratios(us) == pytest.approx([0.6] * latency.BLOCKS, rel=0.05)


@pytest.mark.parametrize(
    ("skills", "boosting", "people", "verdict"),
    [
        ({3: 0.1, 5: 0.2}, AHEAD, {"games": -0.02}, HOLDS),
        ({3: 0.1, 5: 0.2}, AHEAD, {}, HOLDS),
        ({3: -0.1, 5: 0.2}, AHEAD, {}, FAILS),
        ({3: 0.1, 5: 0.2}, UNSURE, {}, FAILS),
        ({3: 0.1, 5: 0.2}, AHEAD, {"games": 0.1, "video": -0.021}, FAILS),
    ],
)
def test_forecasts(skills, boosting, people, verdict):
    assert forecasts.judge(skills, boosting, people)[0] == verdict


@pytest.mark.parametrize(
    ("f1", "error", "verdict"),
    [
        (AHEAD, LEVEL, HOLDS),
        (LEVEL, AHEAD, HOLDS),
        (LEVEL, LEVEL, FAILS),
        (AHEAD, BEHIND, FAILS),
        (BEHIND, AHEAD, FAILS),
        (LEVEL._replace(block_low=-0.0051), AHEAD, FAILS),
    ],
)
def test_joint(f1, error, verdict):
    pair = joint.Pair(f1, error)
    assert joint.judge({"a": pair})[0] == verdict
    assert joint.judge({"a": joint.Pair(AHEAD, AHEAD), "b": pair})[0] == verdict


def test_no_gain_is_said():
    assert "no clear gain" in joint.judge({"a": joint.Pair(LEVEL, LEVEL)})[1]


def runs(loss, wins):
    alone = federated.Run(0.5, np.full(20, 0.5))
    central = federated.Run(0.8, np.full(20, 0.8))
    own = np.where(np.arange(20) < round(20 * wins), 0.6, 0.4)
    return {
        partition: {
            "fedavg": [federated.Run(0.8 - loss, own)] * 2,
            "fedper": [federated.Run(0.1, own)] * 2,
            "local_only": [alone] * 2,
            "centralised": [central] * 2,
        }
        for partition in ("Dirichlet 1.0", "Dirichlet 0.3", "Dirichlet 0.1")
    }


@pytest.mark.parametrize(
    ("loss", "wins", "verdict"),
    [(0.015, 0.8, HOLDS), (0.03, 1.0, FAILS), (0.015, 0.75, FAILS)],
)
def test_federated(loss, wins, verdict):
    found, text = federated.judge(runs(loss, wins))
    assert found == verdict
    assert text.startswith("fedavg: below centralised by")
    assert f"{wins:.0%} at Dirichlet 0.1" in text


def test_who_trains_where():
    whole = study.Context("", pathlib.Path(), 5, 1.0)
    both = ["local_only", "centralised"]
    sites = ["shared_moments", "fedavg", "fedper", "fedbn"]
    assert federated._training(whole, federated.SITES) == [*sites, *both]
    assert federated._training(whole, "Dirichlet 1.0") == ["shared_moments", "fedavg", *both]
    skewed = federated._training(whole, "Dirichlet 0.1")
    assert skewed == ["shared_moments", "fedavg", "scaffold", *both]
    few = federated._training(whole._replace(scale=0.1), federated.SITES)
    assert few == ["shared_moments", *both]


def test_rivals_that_get_every_seed():
    values = {name: 0.1 * i for i, name in enumerate("abcdef")}
    assert precision.best(values, {name: -value for name, value in values.items()}) == list("feab")
    assert precision.best({"a": 0.1}, {"a": 0.2}) == ["a"]


def test_clients_are_scored_on_their_own_mix():
    label, said = np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1])
    weight = np.array([[1.0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]])
    found = federated.scores([said], label, weight, 2)
    assert found.f1 == pytest.approx((0.8 + 2 / 3) / 2)
    assert found.clients == pytest.approx([1.0, 2 / 3, 1.0])
    own = federated.scores([said, label, 1 - label], label, weight, 2)
    assert own.clients == pytest.approx([1.0, 1.0, 0.0])
    assert own.f1 == pytest.approx((found.f1 + 1.0 + 0.0) / 3)


def test_protection():
    cost = protection.Cost(0.0, 0.0, 0.05, 0.7, 1.5)
    masked = protection.Cost(1e-6, 2e-6, 0.09, 0.7, 2.0)
    assert protection.judge({"pqc": cost, "secagg": masked}, 0.7)[0] == HOLDS
    for bad in (cost._replace(difference=1e-9), cost._replace(share=0.1)):
        assert protection.judge({"pqc": bad, "secagg": masked}, 0.7)[0] == FAILS
    far = masked._replace(difference=3e-6)
    assert protection.judge({"pqc": cost, "secagg": far}, 0.7)[0] == FAILS


def test_needed():
    both = {"macro-F1": AHEAD, "RMSE": AHEAD}
    assert needed.judge({"a": both, "b": both})[0] == HOLDS
    found, text = needed.judge({"a": both, "b": {**both, "RMSE": WIDE}})
    assert found == FAILS
    assert text.startswith("no clear loss of b in RMSE")


def test_whole_episodes_are_set_aside():
    each = SETTINGS.examples()
    rows = np.arange(10 * each)
    data = build.Data(None, None, Examples(*[rows] * 5), None, rows // 50, None, None, {}, None)
    found = federated.set_aside(data, 5)
    episodes = found.test.label // each
    assert sorted(set(episodes)) == [4, 9]
    np.testing.assert_array_equal(found.test_group, found.test.label // 50)
    np.testing.assert_array_equal(found.group, found.train.label // 50)
    assert len(found.train.label) + len(found.test.label) == len(rows)
    assert not set(found.train.label) & set(found.test.label)
