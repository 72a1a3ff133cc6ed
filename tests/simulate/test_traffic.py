import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.data.schema import CONFIGS
from qoejax.simulate import attacks, mixes, probes, ranges, scenarios, traffic

SECONDS = 30
CAPACITY = 1e6
DEVICES = len(mixes.DEVICES)
LABELS = len(mixes.LABELS)
PROBES = len(probes.PROBES)
KINDS = {
    **{name: d.kind for name, d in mixes.DEVICES.items()},
    "crowd": mixes.CROWD,
    **{name: p.kind for name, p in probes.PROBES.items()},
    **{f"{name}_{i}": k for name, a in mixes.ATTACKS.items() for i, k in enumerate(a.kinds)},
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds_are_possible(name):
    kind = KINDS[name]
    transports = kind.tcp + kind.udp + kind.icmp + kind.arp
    # Only later fragments have no transport header.
    assert transports <= 1 + 1e-9 if "fragmentation" in name else transports == pytest.approx(1.0)
    assert all(0 <= share <= 1 for share in kind[4:])
    assert max(kind.fin, kind.syn, kind.rst, kind.psh, kind.ack) <= kind.tcp
    assert 40 <= kind.size <= 1500
    assert kind.http + kind.https + kind.telnet + kind.ssh <= kind.tcp + 1e-9


@pytest.mark.parametrize("name", scenarios.SCENARIOS)
def test_scenarios_have_shares_for_all_devices(name):
    scenario = scenarios.SCENARIOS[name]
    assert len(scenario.shares) == DEVICES
    assert sum(scenario.shares) == pytest.approx(1.0)


@pytest.mark.parametrize("dataset", ["ciciot2023", "ton_iot", "edge_iiotset"])
def test_every_class_of_the_datasets_has_one_label(dataset):
    level = next(iter(CONFIGS[dataset].values()))
    names = [n for families in mixes.FAMILIES.values() for n in families.get(dataset, ())]
    assert sorted(names) == sorted(level.taxonomy.names)
    assert tuple(mixes.FAMILIES) == mixes.LABELS


@pytest.fixture(scope="module")
def hidden():
    draw = jax.vmap(lambda key: ranges.draw(key, traffic.HIDDEN))
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
def site():
    return scenarios.Site(
        capacity=jnp.float32(CAPACITY), buffer_s=jnp.float32(0.2), base_s=jnp.float32(0.02),
        load=jnp.float32(0.5), fading=jnp.float32(0.1), mix=jnp.full(DEVICES, 1 / DEVICES),
        budget_ms=jnp.float32(100.0),
    )  # fmt: skip


@pytest.fixture(scope="module")
def recorded():
    """Forty rows of floods and six of scans, each row told apart by its time to live."""
    kinds = np.tile(np.float32([100.0, 10.0, 20.0, 0.0, *[0.0] * 14]), (46, 1))
    kinds[:, 3] = np.arange(46)
    rate = 1.0 + np.arange(46, dtype=np.float32) % 3
    label = np.r_[np.full(40, 1), np.full(6, mixes.LABELS.index("scan"))]
    return attacks.recording(kinds, rate, label)


EACH = 8


@pytest.fixture(scope="module")
def loads(site, recorded):
    """Eight episodes of each label, label by label: synthetic, and with recorded attacks."""
    labels = jnp.repeat(jnp.arange(LABELS), EACH)

    def keys():
        return jax.random.split(jax.random.key(4), LABELS * EACH)

    def one(key, label, rows):
        return traffic.offered(key, site, label, SECONDS, rows)

    run = jax.jit(jax.vmap(one, (0, 0, None)))
    return np.asarray(labels), *(jax.device_get(run(keys(), labels, r)) for r in (None, recorded))


def hostile(load):
    return load.volume[..., DEVICES + 1 : -PROBES]


def test_components_add_up_to_what_the_queue_sees(loads):
    _, *both = loads
    for load in both:
        by_second = load.slots.reshape(LABELS * EACH, SECONDS, -1).sum(2)
        np.testing.assert_allclose(load.volume.sum(2), by_second, rtol=1e-4)
        assert load.slots.min() > 0
        assert (load.kinds[..., 4:] <= 1).all()
        assert (load.kinds >= 0).all()


def test_the_probes_are_always_there(loads):
    _, load, _ = loads
    for i, probe in enumerate(probes.PROBES.values(), start=-PROBES):
        np.testing.assert_allclose(load.volume[..., i], probe.rate * probe.kind.size, rtol=1e-4)
        np.testing.assert_allclose(load.kinds[..., i, :], np.tile(probe.kind, (72, SECONDS, 1)))


def test_capacity_wanders_around_its_mean_where_it_fades(loads):
    _, load, _ = loads
    assert load.service.mean() == pytest.approx(CAPACITY / 100, rel=0.03)
    assert np.log(load.service).std() == pytest.approx(0.1, rel=0.15)


def test_attacks_begin_inside_the_episode_and_keep_to_their_intensity(loads):
    labels, load, _ = loads
    own = hostile(load).sum(2)
    assert not own[labels == 0].any()
    assert not load.active[labels == 0].any()
    active = load.active[labels > 0]
    assert not active[:, 0].any()
    assert (active.max(1) == 1).all()
    assert (own[labels > 0][active == 0] == 0).all()
    # Levels wander by 20 %, so a peak may exceed the class's range by that much a few times over;
    # a pulse may fill a part of its second only.
    for i, attack in enumerate(mixes.ATTACKS.values(), start=1):
        peak = own[labels == i].max(1) / CAPACITY
        assert peak.min() > attack.low / 3
        assert peak.max() < attack.high * 2.5


def test_floods_can_exceed_the_capacity_and_quiet_attacks_cannot():
    strong = {name for name, a in mixes.ATTACKS.items() if a.high > 1}
    assert strong == {"flood", "fragmentation"}
    assert all(a.high <= 0.3 for name, a in mixes.ATTACKS.items() if name not in strong)


def test_labels_are_drawn_by_weight_and_only_if_allowed():
    for seed, allowed in enumerate([tuple(range(1, LABELS)), (2, 5)]):
        keys = jax.random.split(jax.random.key(seed), 20000)
        draw = jax.jit(jax.vmap(lambda key, a=allowed: attacks.draw_label(key, a)))
        share = np.bincount(draw(keys), minlength=LABELS) / len(keys)
        weight = np.array([a.weight for a in mixes.ATTACKS.values()])
        weight = np.where(np.isin(np.arange(1, LABELS), allowed), weight, 0)
        np.testing.assert_allclose(share, np.r_[0.2, 0.8 * weight / weight.sum()], atol=0.015)


def test_pauses_between_pulses_belong_to_the_attack():
    hidden = {name: jnp.float32((r.low + r.high) / 2) for name, r in traffic.HIDDEN.items()}
    hidden |= {"pulses": jnp.float32(0.0), "pulse_duty": jnp.float32(0.5)}
    time = (jnp.arange(3000, dtype=jnp.float32) + 0.5) * 0.01
    height, under_way = attacks.shape(hidden, jnp.int32(1), time)
    on = np.asarray(height)[np.asarray(under_way) == 1] > 0
    assert on.mean() == pytest.approx(0.5, abs=0.15)
    assert np.abs(np.diff(on.astype(int))).sum() >= 4


def test_a_crowd_is_people_not_an_attack(loads):
    _, load, _ = loads
    people = load.volume[..., DEVICES]
    came = people.max(1) > 0
    assert 0.2 <= came.mean() <= 0.6
    assert people[came].max() / CAPACITY < traffic.HIDDEN["crowd"].high * 3


def test_recorded_attacks_are_contiguous_rows_of_their_own_label(loads, recorded):
    labels, _, load = loads
    way = slice(DEVICES + 1, DEVICES + 1 + mixes.WAYS)
    row = load.kinds[..., way, 3]
    for name, first, count in (("flood", 0, 40), ("scan", 40, 6)):
        own = row[labels == mixes.LABELS.index(name)]
        assert (own == own[..., :1]).all()  # whatever the way: the row says what packets look like
        own = own[..., 0] - first
        assert own.min() >= 0
        assert own.max() < count
        np.testing.assert_array_equal(np.diff(own) % count, 1)
        assert len(set(own[:, 0])) > 1
    assert set(np.asarray(recorded.count)) == {0, 40, 6}


def test_recorded_attacks_follow_their_rates_up_to_four_times_the_capacity(loads):
    labels, _, load = loads
    flood = labels == 1
    own = hostile(load).sum(2)[flood] / CAPACITY
    assert attacks.RECORDED == (0.1, 4.0, True)
    assert own.max() < 4.0 * 1.5 * 1.01  # a rate is at most 1.5 times the mean of its run
    # Seconds of full height differ by what the rows say: 1, 2 or 3 to a mean of 2.
    full = [v[v > 0.98 * v.max()].size for v in own]
    assert max(full) >= 3


def test_labels_without_recorded_rows_stay_synthetic(loads):
    labels, plain, load = loads
    quiet = labels == mixes.LABELS.index("web")
    for ours, theirs in zip(load, plain, strict=True):
        np.testing.assert_allclose(ours[quiet], theirs[quiet], rtol=1e-5)
    assert (load.volume[labels == 1] != plain.volume[labels == 1]).any()


@pytest.mark.parametrize("fault", ["share", "size", "rate", "benign"])
def test_impossible_recordings_are_refused(fault):
    kinds, rate = np.full((3, 18), 0.5, np.float32), np.ones(3, np.float32)
    kinds[:, 0] = 60.0
    label = np.full(3, 1)
    if fault == "share":
        kinds[1, 9] = 1.5
    elif fault == "size":
        kinds[1, 0] = 0.0
    elif fault == "rate":
        rate[1] = np.nan
    else:
        label[:] = 0
    with pytest.raises(ValueError, match="recorded attacks: expected"):
        attacks.recording(kinds, rate, label)
