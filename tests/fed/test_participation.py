"""Who takes part: laws of every sampler, with controls that must fail; and traces."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from qoejax.fed import participation
from qoejax.fed.participation import Participation
from qoejax.fed.round import round_keys

from . import tiny

P = 6
ROWS = np.array([1, 2, 3, 4, 6, 8], np.float32)
ROUNDS = 20_000
THERE = np.array([[1, 1, 0, 1, 0, 1], [0, 0, 0, 0, 1, 0]], bool)


@functools.cache
def drawn(kind, size):
    """Ids [ROUNDS, size] of so many rounds."""
    part = {
        "uniform": Participation(),
        "weighted": Participation(weight=ROWS),
        "trace": Participation(trace=THERE),
    }[kind]

    def one(number):
        return participation.choose(part, tiny.key(), number, P, size)[0]

    return np.asarray(jax.jit(jax.vmap(one))(jnp.arange(ROUNDS)))


def p_value(ids, chance):
    """Chi-square of how often each client is in; ``chance`` sums to the number of places."""
    seen = np.bincount(ids[ids >= 0], minlength=len(chance))
    expected = np.asarray(chance) * len(ids)
    return scipy.stats.chisquare(seen, expected * seen.sum() / expected.sum()).pvalue


@pytest.mark.slow
def test_weighted_sampling_is_drawing_one_after_the_other():
    share = ROWS.astype(float) / ROWS.sum()
    assert p_value(drawn("weighted", 1), share) > 1e-4
    second = [
        share[i] + sum(share[j] * share[i] / (1 - share[j]) for j in range(P) if j != i)
        for i in range(P)
    ]
    assert p_value(drawn("weighted", 2), second) > 1e-4
    assert p_value(drawn("uniform", 1), share) < 1e-9  # the control: the test can fail
    assert p_value(drawn("weighted", 2), 2 * share) < 1e-9


@pytest.mark.parametrize("kind", ["uniform", "weighted", "trace"])
def test_no_client_twice_in_a_round(kind):
    for row in drawn(kind, 3)[:200]:
        assert len(set(row[row >= 0])) == (row >= 0).sum()


def test_only_those_that_are_there_are_asked_uniformly():
    ids = drawn("trace", 2)
    even, odd = ids[::2], ids[1::2]
    there = np.flatnonzero(THERE[0])
    assert set(np.unique(even)) == set(there)
    assert scipy.stats.chisquare(np.bincount(even[:, 0])[there]).pvalue > 1e-4
    np.testing.assert_array_equal(odd[:, 0], 4)
    np.testing.assert_array_equal(odd[:, 1], -1)  # one is there, two were asked for


def disturbed(part, ids=(0, 1, 2, 3, 4), rounds=2000, steps=10):
    cohort = tiny.cohort(ids, steps=steps)

    def one(number):
        return participation.disturb(part, round_keys(tiny.key(), number).cohort, cohort)

    return jax.device_get(jax.jit(jax.vmap(one))(jnp.arange(rounds)))


def test_dropout_is_a_coin_of_each_client_in_each_round():
    out = disturbed(Participation(dropout=0.3))
    gone = out.weight == 0
    n = gone.size
    assert scipy.stats.binomtest(int(gone.sum()), n, 0.3).pvalue > 1e-4
    assert scipy.stats.binomtest(int(gone.sum()), n, 0.35).pvalue < 1e-6  # the control
    assert np.abs(np.corrcoef(gone.T) - np.eye(5)).max() < 0.1
    assert abs(np.corrcoef(gone[1:, 0], gone[:-1, 0])[0, 1]) < 0.1
    np.testing.assert_array_equal(out.steps[gone], 0)
    np.testing.assert_array_equal(out.steps[~gone], 10)


def test_stragglers_do_a_uniform_part_and_at_least_one_step():
    out = disturbed(Participation(stragglers=0.5, least_work=0.2))
    slow = out.steps < 10
    # A part above 0.9 is rounded up to all ten steps: an eighth of those that are slow.
    assert scipy.stats.binomtest(int(slow.sum()), slow.size, 0.5 * 7 / 8).pvalue > 1e-4
    seen = np.bincount(out.steps[slow], minlength=10)[3:]
    assert scipy.stats.chisquare(seen).pvalue > 1e-4
    assert out.steps.min() == 3
    assert disturbed(Participation(stragglers=0.9, least_work=0.0), steps=1).steps.min() == 1
    assert (out.weight > 0).all()


def test_what_happens_to_a_client_does_not_depend_on_its_place():
    part = Participation(dropout=0.4, stragglers=0.4, limit=np.array([4, 9, 9, 0, 9]))
    straight, turned = disturbed(part), disturbed(part, ids=(4, -1, 3, 2, 1, 0))
    for field in ("steps", "weight"):
        whole = getattr(turned, field)
        np.testing.assert_array_equal(getattr(straight, field), whole[:, [5, 4, 3, 2, 0]])
        np.testing.assert_array_equal(whole[:, 1], 0)
    assert straight.steps[:, 0].max() == 4
    np.testing.assert_array_equal(straight.weight[:, 3], 0)  # no step fits: it stops half-way


@pytest.mark.parametrize("name", participation.TRACES)
def test_contract_of_traces(name):
    def trace(population, rounds, seed=3, availability=0.3):
        return participation.TRACES[name](
            population, rounds, seed, availability=availability, period=24, stay=0.7
        )

    long = trace(400, 240)
    assert long.dtype == bool
    assert abs(long.mean() - 0.3) < 0.02
    assert trace(50, 240, availability=1.0).all()
    np.testing.assert_array_equal(trace(400, 24), long[:24])  # neither length nor others matter
    np.testing.assert_array_equal(trace(40, 240), long[:, :40])
    assert (trace(400, 240, seed=4) != long).any()
    for bad in ({"availability": 0.0}, {"availability": 1.5}):
        with pytest.raises(ValueError, match="availability"):
            trace(4, 4, **bad)


def correlation(trace, lag):
    return np.corrcoef(trace[lag:].ravel(), trace[:-lag].ravel())[0, 1]


def test_traces_have_their_own_memory():
    make = functools.partial(participation.markov, 500, 400, 0, availability=0.4, period=1)
    for stay in (0.0, 0.7):  # 0 is the control
        assert abs(correlation(make(stay=stay), 1) - stay) < 0.02
    assert abs(correlation(make(stay=0.7), 2) - 0.49) < 0.02
    day = participation.diurnal(500, 24 * 20, 0, availability=0.5, period=24, stay=0.0)
    assert correlation(day, 24) > 0.4
    assert correlation(day, 12) < -0.4


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (Participation(dropout=1.0), "dropout is 1.0"),
        (Participation(stragglers=-0.1), "stragglers is -0.1"),
        (Participation(least_work=2.0), "least_work is 2.0"),
        (Participation(weight=np.zeros(5, np.float32)), "weight: expected 5 finite numbers"),
        (Participation(weight=np.ones(4, np.float32)), "weight: expected 5 finite numbers"),
        (Participation(trace=np.ones((2, 4), bool)), "trace: expected one column for each of 5"),
    ],
)
def test_bad_participation_is_named(part, words):
    with pytest.raises(ValueError, match=words):
        tiny.make_engine(participation=part)


def test_shortened_rounds_are_as_uneven_as_whole_ones():
    steps = np.array([2, 10, 40, 100, 8])
    part, share = participation.shortened(Participation(), steps, mean=4)
    assert part.limit.tolist() == [1, 2, 5, 13, 1]
    assert share == pytest.approx(22 / 160)
    limited = Participation(limit=np.array([0, 50, 50, 3, 50]))
    part, share = participation.shortened(limited, steps, mean=4)
    assert part.limit.tolist() == [0, 2, 5, 3, 1]  # who can do nothing stays out
    assert share == pytest.approx(11 / (0 + 10 + 40 + 3 + 8))
    whole, share = participation.shortened(Participation(), steps, mean=1000)
    assert whole.limit.tolist() == steps.tolist()
    assert share == 1
