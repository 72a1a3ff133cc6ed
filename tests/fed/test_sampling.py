"""Who is drawn: rates, independence, and groups that take turns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.data import cohort
from qoejax.fed import participation
from qoejax.fed.participation import SAMPLINGS, Participation

from . import tiny

CYCLIC = Participation(sampling="cyclic")


@pytest.mark.parametrize(("count", "rate"), [(50, 0.1), (50, 0.9), (3, 0.5)])
def test_poisson_draws_are_independent_coins(count, rate):
    tries, room = 4000, min(count, cohort.places(rate * count))
    draw = jax.jit(jax.vmap(lambda k: cohort.poisson(k, count, rate, room)))
    index, valid = (np.asarray(a) for a in draw(jax.random.split(tiny.key(), tries)))
    drawn = np.zeros((tries, count))
    np.add.at(drawn, (np.nonzero(valid)[0], index[valid]), 1)
    assert drawn.max() == 1
    margin = 5 * np.sqrt(rate * (1 - rate) / tries)
    np.testing.assert_allclose(drawn.mean(0), rate, atol=margin)
    np.testing.assert_allclose(drawn.sum(1).var(), count * rate * (1 - rate), rtol=0.15)
    together = (drawn[:, 0] * drawn[:, 1]).mean()
    assert together == pytest.approx(rate**2, abs=5 * rate / np.sqrt(tries))


def test_poisson_of_everyone_and_of_a_dynamic_count():
    draw = jax.jit(lambda count, rate: cohort.poisson(tiny.key(), count, rate, 8))
    index, valid = draw(jnp.int32(8), jnp.float32(1.0))
    np.testing.assert_array_equal(index, np.arange(8))
    assert valid.all()
    assert not draw(jnp.int32(0), jnp.float32(0.5))[1].any()
    index, valid = draw(jnp.int32(5), jnp.float32(1.0))
    np.testing.assert_array_equal(valid, np.arange(8) < 5)


def test_a_draw_past_its_places_is_left_empty():
    draw = jax.jit(jax.vmap(lambda k: cohort.poisson(k, 100, 0.5, 40)[1].sum()))
    sizes = np.asarray(draw(jax.random.split(tiny.key(), 500)))
    assert np.all((sizes == 0) | (sizes > 20))
    assert (sizes == 0).mean() > 0.9  # binomial(100, 1/2) above 40: 97 %
    assert cohort.places(50) > 85
    assert cohort.places(8, 4) % 4 == 0


def test_cyclic_groups_take_turns():
    rounds = [
        np.asarray(participation.choose(CYCLIC, tiny.key(), jnp.int32(n), 10, 4)[0])
        for n in range(6)
    ]
    first = np.concatenate(rounds[:3])
    np.testing.assert_array_equal(np.sort(first[first >= 0]), np.arange(10))
    assert (first < 0).sum() == 2
    np.testing.assert_array_equal(np.concatenate(rounds[3:]), first)
    assert set(first[:4]) != set(range(4))


@pytest.mark.parametrize("name", SAMPLINGS)
def test_contract_engine_asks_different_clients_or_nobody(name):
    eng = tiny.make_engine(
        cohort_size=2, participation=Participation(sampling=name), client_axis="chunk"
    )
    seen = []
    for n in range(12):
        chosen = jax.device_get(eng.cohort_for(jnp.int32(n), tiny.key()))
        real = chosen.client_id[chosen.client_id >= 0]
        assert len(set(real)) == len(real)
        np.testing.assert_array_equal(chosen.weight[chosen.client_id < 0], 0)
        tiny.equal(chosen, eng.cohort_for(jnp.int32(n), tiny.key()))
        seen += real.tolist()
    assert set(seen) == set(range(5))


def test_an_unknown_rule_is_named():
    with pytest.raises(ValueError, match="sampling is 'fair': expected one of uniform"):
        tiny.make_engine(participation=Participation(sampling="fair"))
    with pytest.raises(ValueError, match="'poisson', which weights, traces and schedules would"):
        tiny.make_engine(
            participation=Participation(sampling="poisson", weight=tiny.COUNT.astype(np.float32))
        )
