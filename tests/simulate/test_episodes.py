import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import f1_score, r2_score

from qoejax.qoe import mos
from qoejax.simulate import episodes, mixes

SETTINGS = episodes.Settings(seconds=30, length=4, horizon=2, stride=5)
KEY = jax.random.key(11)


@functools.partial(jax.jit, static_argnames="settings")
def made(site, number, settings=SETTINGS):
    one = functools.partial(episodes.examples, settings=settings)
    return jax.vmap(one, (None, 0, 0))(KEY, site, number)


@jax.jit
def run(keys, sites):
    return jax.vmap(lambda key, site: episodes.simulate(key, site, 30))(keys, sites)


def episode_keys():
    return jax.random.split(jax.random.key(6), 64)


@pytest.fixture(scope="module")
def world():
    """64 episodes, each at a site of its own."""
    sites = jax.jit(jax.vmap(episodes.draw_site))(jax.random.split(jax.random.key(5), 64))
    return sites, jax.device_get(run(episode_keys(), sites))


def test_sites_stay_in_their_ranges(world):
    sites, _ = world
    for name, (low, high, _) in episodes.SITE.items():
        values = np.asarray(getattr(sites, name))
        assert low * 0.999 <= values.min() < values.max() <= high * 1.001
    np.testing.assert_allclose(np.asarray(sites.mix).sum(1), 1.0, rtol=1e-5)
    assert np.asarray(sites.mix).std(0).min() > 0.003


def test_features_are_finite_possible_and_alive(world):
    _, episode = world
    x = episode.x
    assert x.shape == (64, 30, len(episodes.FEATURES))
    assert np.isfinite(x).all()
    assert (x >= 0).all()
    shares = [f.unit == episodes.SHARE for f in episodes.FEATURES]
    assert (x[..., shares] <= 1).all()
    assert (x.std((0, 1)) > 0).all()


def test_each_episode_has_at_most_one_attack_after_a_benign_start(world):
    _, episode = world
    assert not episode.label[:, 0].any()
    assert all(len(set(row) - {0}) <= 1 for row in episode.label.tolist())
    assert set(episode.label.ravel()) == set(range(len(mixes.LABELS)))


def test_features_say_nothing_that_only_the_queue_knows(world):
    sites, episode = world
    other = sites._replace(buffer_s=sites.buffer_s * 0.5, base_s=sites.base_s + 0.2)
    moved = jax.device_get(run(episode_keys(), other))
    np.testing.assert_array_equal(moved.x, episode.x)
    np.testing.assert_array_equal(moved.label, episode.label)
    assert (moved.delay_ms > episode.delay_ms).any()
    assert np.abs(moved.mos - episode.mos).max() > 0.1


def test_delay_loss_and_mos_stay_in_their_ranges_and_agree(world):
    sites, episode = world
    most = 1e3 * (np.asarray(sites.base_s) + np.asarray(sites.buffer_s))[:, None]
    assert (episode.delay_ms <= most * 1.001).all()
    assert (episode.delay_ms >= 1e3 * np.asarray(sites.base_s)[:, None] * 0.999).all()
    assert 0 <= episode.loss.min() < 0.1 < episode.loss.max() <= 1
    score = episode.mos[..., 0]
    assert 1 <= score.min() < 2 < 4.3 < score.max() <= 4.41
    assert score[episode.loss > 0.2].max() < 3.5
    assert np.median(score[(episode.loss == 0) & (episode.delay_ms < 60)]) > 4.3


def test_voice_by_hand():
    codec = episodes.CODEC
    score = jax.jit(episodes.voice_mos)
    # 40 ms and no loss: 40 + 60 + 20 ms to the ear.
    clean = mos.voice(jnp.float32(120.0), jnp.float32(0.0), codec)
    dead = mos.voice(jnp.float32(120.0), jnp.float32(100.0), codec)
    delay = np.full(300, 0.04, np.float32)
    delay[100:200:8] += 0.1
    loss = np.repeat(np.float32([0, 0, 1]), 100)
    got = score(delay, loss)
    # 13 of 50 packets come 100 ms late, beyond the buffer of 60.
    late = mos.voice(jnp.float32(120.0), jnp.float32(26.0), codec)
    np.testing.assert_allclose(got, jnp.stack([clean, late, dead]), atol=1e-4)


def test_windows_line_up():
    second = jnp.arange(30)
    episode = episodes.Episode(
        x=second[:, None].astype(jnp.float32),
        label=second,
        mos=100.0 + second[:, None].astype(jnp.float32),
        delay_ms=jnp.zeros(30),
        loss=jnp.zeros(30),
    )
    cut = episodes.windows(episode, jnp.array([3, 10]), length=4, horizon=2)
    np.testing.assert_array_equal(cut.x[..., 0], [[0, 1, 2, 3], [7, 8, 9, 10]])
    np.testing.assert_array_equal(cut.label, [3, 10])
    np.testing.assert_array_equal(cut.mos[:, 0], [105, 112])


@pytest.mark.parametrize(
    ("settings", "expected"), [(episodes.Settings(), 10), (episodes.Settings(30, 4, 2, 5), 5)]
)
def test_examples_of_an_episode_fit_into_it(settings, expected):
    assert settings.examples() == expected
    last = settings.length - 1 + settings.stride - 1 + settings.stride * (expected - 1)
    assert last + settings.horizon <= settings.seconds - 1


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
        episodes.simulate(jax.random.key(0), site, 10)


def boosted(train, test, view):
    """Macro-F1 of the class and R2 of the MOS, by boosted trees on a view of the windows."""
    kw = {"max_iter": 60, "max_leaf_nodes": 12, "min_samples_leaf": 40, "random_state": 0}
    classes = HistGradientBoostingClassifier(**kw).fit(view(train.x), train.label)
    scores = HistGradientBoostingRegressor(**kw).fit(view(train.x), train.mos[:, 0])
    return (
        f1_score(test.label, classes.predict(view(test.x)), average="macro"),
        r2_score(test.mos[:, 0], scores.predict(view(test.x))),
    )


def current(x):
    return x[:, -1]


def history(x):
    return np.concatenate([x[:, -1], x[:, -3:].mean(1), x.mean(1), x.max(1), x.min(1)], axis=1)


@pytest.mark.slow
def test_the_task_is_neither_trivial_nor_hopeless():
    """The gate of the data set: one second must not tell all, and eight must tell more."""
    settings = episodes.Settings()
    site, number = np.divmod(np.arange(1600, dtype=np.int32), 80)
    parts = [
        jax.device_get(made(site[i : i + 80], number[i : i + 80], settings))
        for i in range(0, 1600, 80)
    ]
    whole = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    split = [
        jax.tree.map(lambda leaf, m=mask: leaf[m].reshape(-1, *leaf.shape[2:]), whole)
        for mask in (number % 5 != 4, number % 5 == 4)
    ]
    now, eight = boosted(*split, current), boosted(*split, history)
    assert 0.7 < now[0] < 0.93
    assert 0.3 < now[1] < 0.95
    assert eight[0] > now[0] + 0.02
    assert eight[1] > now[1]
    assert eight[0] < 0.97


def test_floods_hurt_a_conversation_and_quiet_attacks_do_not(world):
    _, episode = world
    score = episode.mos[..., 0]
    means = [score[episode.label == i].mean() for i in range(len(mixes.LABELS))]
    names = dict(zip(mixes.LABELS, means, strict=True))
    assert names["ddos"] < names["benign"] - 0.4
    for quiet in ("slow_dos", "scan", "brute_force"):
        assert names[quiet] > names["ddos"]
