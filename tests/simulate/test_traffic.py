import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.simulate import mixes, traffic

SECONDS = 30
CAPACITY = 1e6
DEVICES = len(mixes.DEVICES)
KINDS = {
    **{name: d.kind for name, d in mixes.DEVICES.items()},
    "crowd": mixes.CROWD,
    "voice": mixes.VOICE,
    **{f"{name}_{i}": k for name, a in mixes.ATTACKS.items() for i, k in enumerate(a.kinds)},
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds_are_possible(name):
    kind = KINDS[name]
    assert kind.tcp + kind.udp + kind.icmp + kind.arp == pytest.approx(1.0)
    assert all(0 <= share <= 1 for share in kind[4:])
    assert max(kind.fin, kind.syn, kind.rst, kind.psh, kind.ack) <= kind.tcp
    assert 40 <= kind.size <= 1500
    assert kind.http + kind.https + kind.telnet + kind.ssh <= kind.tcp + 1e-9


def test_usual_shares_of_devices_sum_to_one():
    assert sum(d.share for d in mixes.DEVICES.values()) == pytest.approx(1.0)


@pytest.fixture(scope="module")
def hidden():
    draw = jax.vmap(lambda key: traffic.draw(key, traffic.HIDDEN))
    return jax.device_get(draw(jax.random.split(jax.random.key(1), 2000)))


@pytest.mark.parametrize("name", traffic.HIDDEN)
def test_hidden_quantities_fill_their_ranges(hidden, name):
    low, high, log = traffic.HIDDEN[name]
    values = hidden[name]
    assert values.min() >= low * 0.999
    assert values.max() <= high * 1.001
    middle = np.sqrt(low * high) if log else (low + high) / 2
    assert np.mean(values < middle) == pytest.approx(0.5, abs=0.05)


def test_hidden_quantities_are_independent(hidden):
    correlation = np.corrcoef(np.stack(list(hidden.values())))
    assert np.abs(correlation - np.eye(len(hidden))).max() < 0.12


def test_wandering_levels_have_mean_one_their_spread_and_memory():
    sigma, tau = jnp.array([0.3, 0.9]), jnp.array([10.0, 1.5])
    walk = functools.partial(traffic.wander, seconds=40, sigma=sigma, tau_s=tau)
    levels = np.asarray(jax.jit(jax.vmap(walk))(jax.random.split(jax.random.key(2), 2000)))
    assert levels.shape == (2000, 41, 2)
    np.testing.assert_allclose(levels[:, [0, 40]].mean(0), 1.0, atol=0.12)
    logs = np.log(levels)
    np.testing.assert_allclose(logs.std(0)[[0, 20, 40]], [[0.3, 0.9]] * 3, rtol=0.06)
    for column, memory in enumerate(np.exp(-1 / np.array([10.0, 1.5]))):
        lag = np.corrcoef(logs[:, 20, column], logs[:, 21, column])[0, 1]
        assert lag == pytest.approx(memory, abs=0.04)


def test_levels_join_their_knots_by_straight_lines():
    slots = np.asarray(traffic.to_slots(jnp.array([[0.0], [2.0], [1.0]])))[:, 0]
    middle = (np.arange(200) + 0.5) / 100
    np.testing.assert_allclose(slots, np.interp(middle, [0, 1, 2], [0.0, 2.0, 1.0]), atol=1e-6)


def test_bursts_are_gamma_of_shape_four():
    noise = np.asarray(traffic.bursts(jax.random.key(3), 300))
    assert noise.mean() == pytest.approx(1.0, abs=0.02)
    assert noise.var() == pytest.approx(0.25, rel=0.05)
    assert noise.min() > 0


@pytest.fixture(scope="module")
def loads():
    """Eight episodes of each label, label by label."""
    labels = jnp.repeat(jnp.arange(len(mixes.LABELS)), 8)
    mix = jnp.full(DEVICES, 1 / DEVICES)
    offer = functools.partial(
        traffic.offered, capacity=jnp.float32(CAPACITY), mix=mix, seconds=SECONDS
    )
    run = jax.jit(jax.vmap(lambda key, label: offer(key, label=label)))
    return np.asarray(labels), jax.device_get(run(jax.random.split(jax.random.key(4), 40), labels))


def test_components_add_up_to_what_the_queue_sees(loads):
    _, load = loads
    by_second = load.slots.reshape(40, SECONDS, -1).sum(2)
    np.testing.assert_allclose(load.volume.sum(2), by_second, rtol=1e-4)
    assert load.slots.min() > 0
    assert (load.kinds[..., 4:] <= 1).all()
    assert (load.kinds >= 0).all()


def test_the_voice_probe_is_always_there(loads):
    _, load = loads
    np.testing.assert_allclose(load.volume[..., -1], 50 * 200.0, rtol=1e-5)
    np.testing.assert_allclose(load.kinds[:, -1], [mixes.VOICE] * 40)


def test_attacks_begin_inside_the_episode_and_keep_to_their_intensity(loads):
    labels, load = loads
    hostile = load.volume[..., DEVICES + 1 : -1].sum(2)
    assert not hostile[labels == 0].any()
    assert not load.active[labels == 0].any()
    active = load.active[labels > 0]
    assert not active[:, 0].any()
    assert (active.max(1) == 1).all()
    assert (hostile[labels > 0][active == 0] == 0).all()
    # Levels wander by 20 %, so a peak may exceed the class's range by that much a few times over.
    for i, attack in enumerate(mixes.ATTACKS.values(), start=1):
        peak = hostile[labels == i].max(1) / CAPACITY
        assert peak.min() > attack.low / 3
        assert peak.max() < attack.high * 2.5


def test_pauses_between_pulses_belong_to_the_attack():
    hidden = {name: jnp.float32((r.low + r.high) / 2) for name, r in traffic.HIDDEN.items()}
    hidden |= {"pulses": jnp.float32(0.0), "pulse_duty": jnp.float32(0.5)}
    time = (jnp.arange(3000, dtype=jnp.float32) + 0.5) * 0.01
    share, under_way = traffic.attack_share(hidden, jnp.int32(1), time, SECONDS)
    on = np.asarray(share)[np.asarray(under_way) == 1] > 0
    assert on.mean() == pytest.approx(0.5, abs=0.1)
    assert np.abs(np.diff(on.astype(int))).sum() >= 6


def test_a_crowd_is_people_not_an_attack(loads):
    _, load = loads
    people = load.volume[..., DEVICES]
    came = people.max(1) > 0
    assert 5 <= came.sum() <= 28
    assert people[came].max() / CAPACITY < 1.5 * 3
