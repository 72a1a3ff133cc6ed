import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.qoe import decide


def test_utilities_by_hand():
    costs = decide.Costs(damage=5.0, mitigation=0.6, limited=0.5)
    got = decide.utilities(jnp.float32(0.2), jnp.float32(4.0), costs)
    want = [0.8 * 4 - 0.2 * 5, 0.8 * 2.5 - 0.2 * 5 * 0.4, 0.8]
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_certain_sources():
    p, mos = jnp.array([0.0, 1.0]), jnp.array([4.0, 4.0])
    actions = decide.action(p, mos, decide.Costs())
    assert [decide.ACTIONS[a] for a in np.asarray(actions)] == ["allow", "block"]


def test_actions_grow_harder_with_suspicion():
    p = jnp.linspace(0, 1, 101)
    actions = np.asarray(decide.action(p, jnp.full(101, 4.0), decide.Costs()))
    assert (np.diff(actions) >= 0).all()
    assert set(actions) == {0, 1, 2}


@pytest.mark.parametrize("mos", [1.5, 3.0, 4.4])
def test_threshold_is_where_blocking_equals_allowing(mos):
    costs = decide.Costs(damage=2.0)
    tau = decide.block_threshold(jnp.float32(mos), costs)
    u = decide.utilities(tau, jnp.float32(mos), costs)
    np.testing.assert_allclose(u[0], u[2], atol=1e-6)
    assert (
        decide.utilities(tau + 0.05, jnp.float32(mos), costs)[2]
        > (decide.utilities(tau + 0.05, jnp.float32(mos), costs)[0])
    )
