"""Each service's score against the MOS models, packet by packet in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.qoe import machine, mos, video
from qoejax.simulate import probes
from qoejax.simulate.queue import SLOTS

SECONDS = 3
BUDGET_MS = 75.0


@pytest.fixture(scope="module")
def path():
    """One clean second, one with late slots, one that loses a fifth."""
    rng = np.random.default_rng(0)
    delay = np.full(SECONDS * SLOTS, 40.0, np.float32)
    delay[SLOTS : 2 * SLOTS : 10] += 120.0
    delay[2 * SLOTS :] += rng.uniform(0, 100, SLOTS).astype(np.float32)
    loss = np.repeat(np.float32([0, 0, 0.2]), SLOTS)
    return delay, loss


@pytest.fixture(scope="module")
def scores(path):
    budget = jnp.float32(BUDGET_MS)
    return {name: np.asarray(jax.jit(p.score)(*path, budget)) for name, p in probes.PROBES.items()}


def packets(slots, every):
    return slots.reshape(SECONDS, SLOTS)[:, ::every].astype(np.float64)


def unplayed(path, every, slack):
    """Percent of each second's packets lost or late."""
    delay, loss = (packets(v, every) for v in path)
    late = delay > delay.min(1, keepdims=True) + slack
    arrived = ((1 - loss) * ~late).sum(1)
    return 100 * (1 - arrived / delay.shape[1])


def test_voice(path, scores):
    to_ear = packets(path[0], 2).min(1) + probes.DEJITTER_MS + 20
    percent = unplayed(path, 2, probes.DEJITTER_MS)
    want = [mos.voice(jnp.float32(d), jnp.float32(p), probes.CODEC) for d, p in zip(to_ear, percent, strict=True)]  # fmt: skip  # noqa: E501
    np.testing.assert_allclose(scores["voice"], want, rtol=1e-4)
    assert scores["voice"][0] > 4.3 > 3.5 > scores["voice"][2]


def test_video_call(path, scores):
    percent = unplayed(path, 2, probes.VIDEO_LATE_MS)
    rate, fps = jnp.float32(probes.VIDEO_KBPS), jnp.float32(probes.VIDEO_FPS)
    want = [video.call(rate, fps, jnp.float32(p)) for p in percent]
    np.testing.assert_allclose(scores["video"], want, rtol=1e-4)
    assert scores["video"][0] > 3.7 > 2 > scores["video"][2]


def test_command_is_the_mean_over_what_may_happen(path, scores):
    delay, loss = (packets(v, 20) for v in path)
    want = np.zeros(SECONDS)
    for second in range(SECONDS):
        for d, p in zip(delay[second], loss[second], strict=True):
            once = probes.COMMAND_S + 1e-3 * (d + delay.min())
            chance = 1.0
            for wait in probes.TIMEOUTS_S:
                want[second] += chance * (1 - p) * float(mos.command(jnp.float32(once + wait)))
                chance *= p
            want[second] += chance * 1.0
    np.testing.assert_allclose(scores["command"], want / delay.shape[1], rtol=1e-4)


def test_telemetry_is_the_share_in_time(path, scores):
    delay, loss = (packets(v, 5) for v in path)
    np.testing.assert_allclose(
        scores["telemetry"], ((1 - loss) * (delay <= BUDGET_MS)).mean(1), rtol=1e-5
    )
    assert scores["telemetry"][0] == 1


@pytest.mark.parametrize("name", probes.PROBES)
def test_a_dead_link_is_the_worst_and_scores_keep_to_their_scale(name):
    probe = probes.PROBES[name]
    score = jax.jit(probe.score)
    low, high = (0, 1) if probe.machine else (1, 5)
    slots = np.zeros(SLOTS * SECONDS, np.float32)
    best = np.asarray(score(slots + 1, slots, jnp.float32(50)))
    dead = np.asarray(score(slots + 400, slots + 1, jnp.float32(50)))
    np.testing.assert_allclose(dead, low, atol=1e-3)
    assert (best <= high).all()
    assert (best > low + 0.6 * (high - low)).all()


def test_video_rate_is_what_is_scored():
    probe = probes.PROBES["video"]
    assert probe.rate * probe.kind.size * 8 == pytest.approx(1e3 * probes.VIDEO_KBPS)
    assert all(machine.FIVE_QI[i].delay_ms > 0 for i in (70, 9, 69, 3, 82))
