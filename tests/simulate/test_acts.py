"""Actions on sources: the queue behind them, and the scores of those they leave in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.qoe import decide
from qoejax.simulate import acts, queue, scenarios, sources
from qoejax.simulate.probes import PROBES

N, SLOTS = 4, sources.ACTED_S * queue.SLOTS
CAPACITY = 1e6
SERVICE = np.array([0, 1, 2, 0])

act = jax.jit(acts.act)


def make_scene(load, waiting=0.0):
    """Four sources with noisy traffic of these shares of capacity; source 3 floods."""
    rng = np.random.default_rng(0)
    noise = rng.gamma(4.0, 0.25, (N, SLOTS))
    site = scenarios.Site(
        *(jnp.float32(v) for v in (CAPACITY, 0.2, 0.02, 0.5, 0.0)), jnp.ones(7) / 7,
        jnp.float32(100.0),
    )  # fmt: skip
    return sources.Scene(
        x=jnp.ones((N, sources.OBSERVED_S, 20)),
        service=jnp.asarray(SERVICE),
        link=jnp.float32(CAPACITY),
        label=jnp.array([0, 0, 0, 1]),
        offered=jnp.asarray(np.array(load)[:, None] * noise * CAPACITY * 0.01, jnp.float32),
        able=jnp.full(SLOTS, CAPACITY * 0.01),
        waiting=jnp.float32(waiting),
        site=site,
    )


CALM = make_scene([0.1, 0.2, 0.1, 0.1])
FLOODED = make_scene([0.1, 0.2, 0.1, 1.6], waiting=1e5)


def run(scene, *actions):
    return jax.device_get(act(scene, jnp.array(actions)))


@pytest.mark.parametrize("scene", [CALM, FLOODED], ids=["calm", "flooded"])
def test_allowing_all_is_the_plain_simulator(scene):
    got = run(scene, 0, 0, 0, 0)
    served = jax.jit(queue.fifo)(
        scene.offered.sum(0), scene.able, jnp.float32(0.2 * CAPACITY), scene.waiting
    )
    np.testing.assert_allclose(got.backlog, served.backlog, rtol=1e-4, atol=1.0)
    np.testing.assert_allclose(got.loss, served.loss, atol=1e-4)
    delay = 1e3 * (0.02 + np.asarray(served.backlog) / CAPACITY)
    for name, users in (("voice", (0, 3)), ("video", (1,)), ("command", (2,))):
        score = jax.jit(PROBES[name].score)(jnp.asarray(delay), served.loss, jnp.float32(100.0))
        np.testing.assert_allclose(got.mos[list(users)], float(score.mean()), atol=2e-3)


@pytest.mark.parametrize("actions", [(0, 0, 0, 0), (0, 1, 2, 1), (2, 2, 2, 2)])
def test_nothing_appears_or_vanishes_whatever_the_actions(actions):
    got = run(FLOODED, *actions)
    share = np.array(acts.ADMITTED)[list(actions)]
    arrivals = (share[:, None] * np.asarray(FLOODED.offered, np.float64)).sum(0)
    backlog = np.r_[1e5, got.backlog.astype(np.float64)]
    done = arrivals * (1 - got.loss) + backlog[:-1] - backlog[1:]
    able = np.asarray(FLOODED.able)
    assert done.min() > -2.0
    assert (done - able).max() < 2.0
    np.testing.assert_allclose(done[backlog[1:] > 1e3], able[0], rtol=1e-3)


def test_blocking_the_flood_saves_the_others_and_blocking_them_does_not():
    flooded, saved = run(FLOODED, 0, 0, 0, 0), run(FLOODED, 0, 0, 0, 2)
    assert (saved.mos[:3] > flooded.mos[:3] + 0.5).all()
    assert saved.mos[3] == acts.BLOCKED_MOS
    limited = run(FLOODED, 0, 0, 0, 1)
    assert (limited.mos[:3] >= flooded.mos[:3]).all()
    assert (limited.mos[:3] <= saved.mos[:3] + 1e-5).all()
    others = run(FLOODED, 2, 0, 0, 0)
    np.testing.assert_allclose(others.mos[1:3], flooded.mos[1:3], atol=0.3)


def test_limiting_costs_its_own_user_by_service():
    calm, limited = run(CALM, 0, 0, 0, 0).mos, run(CALM, 1, 1, 1, 1).mos
    assert (limited < calm).all()
    assert (limited[[0, 1]] < 2.5).all()
    assert limited[2] > 3.0  # a command is sent again


def test_utility_of_an_outcome_is_expected_utility_with_the_truth_known():
    actions = jnp.array([0, 1, 2, 1])
    mos = act(FLOODED, actions).mos
    truth = jax.nn.one_hot(FLOODED.label, 2)
    got = decide.expected_utility(truth, mos, actions, acts.prices(jnp.float32(5.0), 2, N))
    assert float(got) == pytest.approx(float(mos[:3].sum()) - 5.0 * 0.5, rel=1e-5)
    assert float(acts.admitted(FLOODED.label, actions)) == 0.5
