import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.simulate import episodes, mixes, observe, probes, scenarios

SETTINGS = episodes.Settings(seconds=30, length=4, horizons=(0, 2), stride=5)
WORLD = episodes.World(settings=SETTINGS)
KEY = jax.random.key(11)
EPISODES, SECONDS = 99, 30
MIXED = scenarios.SCENARIOS["mixed"]


@jax.jit
def made(site, number):
    one = functools.partial(episodes.examples, world=WORLD)
    return jax.vmap(one, (None, 0, 0))(KEY, site, number)


@jax.jit
def run(keys, sites, labels):
    one = functools.partial(episodes.simulate, seconds=SECONDS)
    return jax.vmap(one)(keys, sites, labels)


def draws():
    keys = jax.random.split(jax.random.key(6), EPISODES)
    return keys, jnp.arange(EPISODES) % len(mixes.LABELS)


@pytest.fixture(scope="module")
def world():
    """Eleven episodes of each label, each at a site of its own."""
    draw = jax.jit(jax.vmap(lambda key: scenarios.draw_site(key, MIXED)))
    sites = draw(jax.random.split(jax.random.key(5), EPISODES))
    keys, labels = draws()
    return sites, jax.device_get(run(keys, sites, labels))


def test_sites_stay_in_their_ranges(world):
    sites, _ = world
    for name, unit, (low, high, _) in (
        ("capacity", 1e6 / 8, MIXED.capacity_mbps),
        ("buffer_s", 1e-3, MIXED.buffer_ms),
        ("base_s", 1e-3, MIXED.base_ms),
        ("load", 1.0, MIXED.load),
    ):
        values = np.asarray(getattr(sites, name)) / unit
        assert low * 0.999 <= values.min() < values.max() <= high * 1.001
        assert values.max() - values.min() > 0.8 * (high - low)
    np.testing.assert_allclose(np.asarray(sites.mix).sum(1), 1.0, rtol=1e-5)
    assert np.asarray(sites.mix).std(0).min() > 0.003
    np.testing.assert_array_equal(sites.budget_ms, np.full(EPISODES, 200.0))


def test_features_are_finite_possible_and_alive(world):
    _, episode = world
    x = episode.x
    assert x.shape == (EPISODES, SECONDS, len(observe.FEATURES))
    assert np.isfinite(x).all()
    assert (x >= 0).all()
    shares = [f.unit == observe.SHARE for f in observe.FEATURES]
    assert (x[..., shares] <= 1).all()
    assert (x.std((0, 1)) > 0).all()


def test_observed_means_are_those_of_the_components():
    """Noise apart (log-normal of median 1), features are packet-weighted means."""
    kinds = np.float32([mixes.CROWD, probes.PROBES["voice"].kind])
    volume = np.float32([[33000.0, 20000.0]])
    see = jax.jit(lambda key: observe.observe(key, jnp.asarray(volume), jnp.asarray(kinds[None])))
    rows = np.asarray(jax.vmap(see)(jax.random.split(jax.random.key(0), 4000)))[:, 0]
    packets = volume[0] / kinds[:, 0]
    share = packets / packets.sum()
    mean = share @ kinds
    std = np.sqrt(share @ (kinds[:, 0] ** 2 + kinds[:, 1] ** 2) - mean[0] ** 2)
    want = np.r_[packets.sum(), volume.sum(), mean[0], std, mean[2:]]
    np.testing.assert_allclose(np.median(rows, 0), want, rtol=0.02)
    assert np.log(rows[:, 2]).std() == pytest.approx(observe.NOISE, rel=0.05)


def test_each_episode_has_at_most_one_attack_after_a_benign_start(world):
    _, episode = world
    assert not episode.label[:, 0].any()
    own = np.asarray(draws()[1])
    assert all(set(row) <= {0, label} for row, label in zip(episode.label, own, strict=True))
    assert set(episode.label.ravel()) == set(range(len(mixes.LABELS)))


def test_features_say_nothing_that_only_the_queue_knows(world):
    sites, episode = world
    other = sites._replace(buffer_s=sites.buffer_s * 0.5, base_s=sites.base_s + 0.2)
    keys, labels = draws()
    moved = jax.device_get(run(keys, other, labels))
    np.testing.assert_array_equal(moved.x, episode.x)
    np.testing.assert_array_equal(moved.label, episode.label)
    assert (moved.delay_ms > episode.delay_ms).any()
    assert (np.abs(moved.score - episode.score).max((0, 1)) > 0.1).all()


def test_delay_loss_and_scores_stay_in_their_ranges_and_agree(world):
    sites, episode = world
    # A capacity that fades below its mean empties a full buffer more slowly than the mean.
    most = 1e3 * (np.asarray(sites.base_s) + 1.4 * np.asarray(sites.buffer_s))[:, None]
    assert (episode.delay_ms <= most).all()
    assert (episode.delay_ms >= 1e3 * np.asarray(sites.base_s)[:, None] * 0.999).all()
    assert 0 <= episode.loss.min() < 0.1 < episode.loss.max() <= 1
    for q, probe in enumerate(probes.PROBES.values()):
        score = episode.score[..., q]
        low, high = (0, 1) if probe.machine else (1, 5)
        assert low <= score.min() < score.max() <= high
        assert score[episode.loss > 0.3].mean() < low + 0.6 * (high - low)
        assert np.median(score[(episode.loss == 0) & (episode.delay_ms < 60)]) > score.mean()


def test_floods_hurt_people_and_machines_and_quiet_attacks_hardly_do(world):
    _, episode = world
    for q in range(len(probes.PROBES)):
        score = episode.score[..., q]
        mean = [score[episode.label == i].mean() for i in range(len(mixes.LABELS))]
        names = dict(zip(mixes.LABELS, mean, strict=True))
        spread = score.std()
        for strong in ("flood", "fragmentation"):
            assert names[strong] < names["benign"] - 0.25 * spread
        for quiet in ("slow", "scan", "brute_force", "spoofing", "botnet"):
            assert names[quiet] > min(names["flood"], names["fragmentation"])


def test_windows_line_up():
    second = jnp.arange(30)
    score = 100.0 * jnp.arange(2.0)[None] + second[:, None].astype(jnp.float32)
    episode = episodes.Episode(
        x=second[:, None].astype(jnp.float32), label=second, score=score,
        delay_ms=jnp.zeros(30), loss=jnp.zeros(30),
    )  # fmt: skip
    cut = episodes.windows(episode, jnp.array([3, 10]), SETTINGS)
    np.testing.assert_array_equal(cut.x[..., 0], [[0, 1, 2, 3], [7, 8, 9, 10]])
    np.testing.assert_array_equal(cut.label, [3, 10])
    np.testing.assert_array_equal(cut.score, [[[3, 5], [103, 105]], [[10, 12], [110, 112]]])


@pytest.mark.parametrize(("settings", "expected"), [(episodes.Settings(), 10), (SETTINGS, 5)])
def test_examples_of_an_episode_fit_into_it(settings, expected):
    assert settings.examples() == expected
    last = settings.length - 1 + settings.stride - 1 + settings.stride * (expected - 1)
    assert last + max(settings.horizons) <= settings.seconds - 1


def test_numbers_follow_from_identity_not_from_the_batch():
    site, number = np.int32([0, 0, 1, 1]), np.int32([0, 1, 0, 1])
    forward = jax.device_get(made(site, number))
    order = [3, 0, 2, 1]
    for ours, theirs in zip(forward, made(site[order], number[order]), strict=True):
        np.testing.assert_array_equal(ours[order], theirs)
    assert len({forward.x[i].tobytes() for i in range(4)}) == 4


def test_too_short_an_episode_is_refused(world):
    sites, _ = world
    site = jax.tree.map(lambda leaf: leaf[0], sites)
    with pytest.raises(ValueError, match="at least 20 seconds, got 10"):
        episodes.simulate(jax.random.key(0), site, jnp.int32(1), 10)
