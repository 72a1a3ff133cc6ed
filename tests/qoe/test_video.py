import csv
import functools
import gzip

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoejax.qoe import adaptation, video
from tests.reference import qoe_numpy

SLOTS, SECONDS = 6, 90
HD = 1920.0 * 1080.0
EDGES = np.float32([-3e38, -1e6, -1.0, 0.0, 1e-30, 0.5, 3.0, 59.9, 60.0, 1e4, 1e20, 3e38])

eighths = st.integers(0, 240).map(lambda n: n / 8)
events = st.lists(st.tuples(eighths.map(lambda x: 2 * x), eighths), max_size=SLOTS)
# Multiples of 0.35: neither they nor their means of five differ by just the threshold of 0.2.
tracks = st.lists(st.integers(0, 11), min_size=20, max_size=SECONDS).map(
    lambda levels: 1 + 0.35 * np.array(levels)
)


def stalls_of(pairs):
    at, length = np.zeros((2, SLOTS), np.float32)
    for i, (a, b) in enumerate(pairs):
        at[i], length[i] = a, b
    return video.Stalls(jnp.array(at), jnp.array(length), jnp.arange(SLOTS) < len(pairs))


def padded(track):
    """The track, then rubbish that must not matter."""
    return jnp.float32(np.r_[track, np.full(SECONDS - len(track), 2.5)])


stalling = jax.jit(video.stalling)
streaming = jax.jit(video.streaming)
session = jax.jit(adaptation.session)


@pytest.mark.parametrize(
    ("pairs", "o23"),
    [
        ([], 5.0),
        ([(20, 2)], 4.528),
        ([(10, 2), (25, 2), (40, 2)], 3.673),
        ([(30, 10)], 4.254),
    ],
)
def test_stalling_golden(pairs, o23):
    # O23 = 1 + 4 S of P.1203.3 for a minute of media.
    assert 1 + 4 * float(stalling(stalls_of(pairs), 60.0)) == pytest.approx(o23, abs=6e-4)


@given(events)
def test_stalling_equals_the_reference_in_any_order(pairs):
    expected = qoe_numpy.stalling(pairs, 60.0)
    assert float(stalling(stalls_of(pairs), 60.0)) == pytest.approx(expected, abs=1e-5)
    assert float(stalling(stalls_of(pairs[::-1]), 60.0)) == pytest.approx(expected, abs=1e-5)


@given(events, st.integers(0, SLOTS - 1), st.floats(0, 20, width=32))
def test_a_longer_or_further_stall_never_helps(pairs, which, more):
    before = float(stalling(stalls_of(pairs), 60.0))
    if which < len(pairs):
        at, length = pairs[which]
        changed = [*pairs[:which], (at, length + more), *pairs[which + 1 :]]
    elif len(pairs) < SLOTS:
        changed = [*pairs, (more, 1.0)]
    else:
        return
    assert float(stalling(stalls_of(changed), 60.0)) <= before + 1e-6


def test_stalls_without_length_or_after_the_end_do_not_count():
    assert float(stalling(stalls_of([(10, 0), (61, 5)]), 60.0)) == 1.0


@given(tracks, events)
def test_streaming_and_session_equal_the_reference_and_stay_on_the_scale(track, pairs):
    n = len(track)
    got = float(streaming(padded(track), stalls_of(pairs), float(n)))
    assert got == pytest.approx(qoe_numpy.final(qoe_numpy.baseline(track), pairs, n), abs=2e-4)
    assert 1.0 <= got <= 4.935
    audio = np.full(n, 4.5)
    whole = float(session(padded(audio), padded(track), stalls_of(pairs), float(n)))
    assert whole == pytest.approx(qoe_numpy.session(audio, list(track), pairs), abs=3e-4)
    assert 1.0 <= whole <= 4.935


@pytest.mark.slow
def test_oscillation_and_adaptation_cost_what_the_reference_says():
    # Eight seconds up, eight down: many turns, none of them long.
    track = np.where(np.arange(80) // 8 % 2 == 0, 4.5, 1.5)
    both = [qoe_numpy.audiovisual(4.5, v) for v in track]
    bias, oscillation, change = qoe_numpy.corrections(list(track), both, qoe_numpy.baseline(both))
    assert bias > 0.01
    assert oscillation > 0.1
    assert change > 0.01
    seconds = jnp.array(80)
    moves = adaptation.changes(padded(track), seconds)
    assert int(moves.turns) >= 8
    cost = float(adaptation.restlessness(moves, seconds))
    assert cost == pytest.approx(oscillation + change, abs=1e-4)
    steady = adaptation.changes(padded(np.full(80, 3.0)), seconds)
    assert float(adaptation.restlessness(steady, seconds)) == 0.0


@pytest.mark.slow
def test_a_batch_of_sessions_is_each_of_them():
    rng = np.random.default_rng(0)
    quality = jnp.float32(rng.uniform(1, 5, (3, SECONDS)))
    pairs = [[(5, 2), (20, 1)], [], [(0, 4), (10, 3), (50, 9)]]
    stalls = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(stalls_of, pairs))
    duration = jnp.float32([30, 60, 90])
    together = jax.vmap(adaptation.session)(quality, quality, stalls, duration)
    apart = [
        session(q, q, stalls_of(p), d) for q, p, d in zip(quality, pairs, duration, strict=True)
    ]
    np.testing.assert_allclose(together, apart, rtol=1e-5)


KBPS = np.r_[0, np.geomspace(1, 1e5, 120)].astype(np.float32)
SCREENS = {**video.SCREENS, "slow": video.Screen(640.0 * 360.0, 1920.0 * 1080.0, 12.0)}


@pytest.mark.parametrize("name", SCREENS)
def test_coded_equals_the_reference_and_rises_with_bitrate(name):
    screen = SCREENS[name]
    got = np.asarray(jax.jit(jax.vmap(functools.partial(video.coded, screen=screen)))(KBPS))
    expected = [qoe_numpy.coded(float(k), *screen) for k in KBPS]
    np.testing.assert_allclose(got, expected, atol=2e-3)
    assert np.diff(got).min() >= -2e-3
    assert got.min() >= 1.05
    assert got.max() <= 4.9


def test_rating_and_back():
    ratings = np.linspace(4, 100, 200, dtype=np.float32)
    back = jax.vmap(lambda r: video.mos_to_rating(video.rating_to_mos(r)))(ratings)
    np.testing.assert_allclose(back, ratings, atol=0.02)


def test_hand_held_screens_are_judged_more_kindly():
    scores = np.linspace(1, 4.9, 50, dtype=np.float32)
    held = np.asarray(jax.vmap(video.handheld)(scores))
    assert (held >= scores - 0.01).all()
    assert np.diff(held).min() > 0


BITRATES = np.r_[0, np.geomspace(1, 1e4, 40)].astype(np.float32)
FRAMES = np.float32([1, 2, 5, 10, 15, 25, 30])
LOSSES = np.r_[0, np.geomspace(0.01, 100, 40)].astype(np.float32)


def test_call_equals_the_reference_and_never_rises_with_loss():
    grid = jax.vmap(
        jax.vmap(jax.vmap(video.call, (None, None, 0)), (None, 0, None)), (0, None, None)
    )
    got = np.asarray(jax.jit(grid)(BITRATES, FRAMES, LOSSES))
    v = video.CALLS["mpeg4_qvga"]
    expected = [
        [[qoe_numpy.call(float(b), float(f), float(p), v) for p in LOSSES] for f in FRAMES]
        for b in BITRATES
    ]
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert np.diff(got, axis=2).max() <= 1e-6
    assert got.min() >= 1.0
    assert got.max() <= 1 + v.v3
    assert np.ptp(got) > 3


def by_stall_length(x):
    stalls = video.Stalls(jnp.full(SLOTS, 20.0), jnp.full(SLOTS, x), jnp.arange(SLOTS) < 2)
    return video.streaming(jnp.full(SECONDS, 4.0), stalls, jnp.float32(60.0))


def by_stall_position(x):
    at = jnp.where(jnp.arange(SLOTS) == 0, x, 30.0)
    stalls = video.Stalls(at, jnp.full(SLOTS, 2.0), jnp.arange(SLOTS) < 2)
    return video.streaming(jnp.full(SECONDS, 4.0), stalls, jnp.float32(60.0))


def by_long_stall_in_a_short_session(x):
    stalls = video.Stalls(jnp.zeros(SLOTS), jnp.full(SLOTS, 3e38), jnp.arange(SLOTS) < 2)
    return video.streaming(jnp.full(SECONDS, 4.0), stalls, x)


def by_duration(x):
    return video.streaming(jnp.full(SECONDS, 4.0), stalls_of([(5, 2)]), x)


def by_quality(x):
    return video.streaming(jnp.full(SECONDS, x), stalls_of([(5, 2)]), jnp.float32(60.0))


def by_session(x):
    track = jnp.where(jnp.arange(SECONDS) % 20 < 10, x, 3.0)
    return adaptation.session(jnp.full(SECONDS, 4.0), track, stalls_of([(5, 2)]), jnp.float32(60.0))


@pytest.mark.parametrize(
    "model",
    [
        by_stall_length,
        by_stall_position,
        by_long_stall_in_a_short_session,
        by_duration,
        by_quality,
        by_session,
        functools.partial(video.coded, screen=video.SCREENS["720p_on_1080p"]),
        video.handheld,
        lambda x: video.audiovisual(x, x),
        lambda x: video.call(x, jnp.float32(25.0), jnp.float32(1.0)),
        lambda x: video.call(jnp.float32(500.0), x, jnp.float32(1.0)),
        lambda x: video.call(jnp.float32(500.0), jnp.float32(25.0), x),
    ],
)
def test_values_and_gradients_are_finite_everywhere(model):
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(model)))(EDGES)
    assert np.isfinite(values).all()
    assert np.isfinite(slopes).all()
    assert (np.asarray(values) >= 1).all()
    assert (np.asarray(values) <= 5).all()
    np.testing.assert_allclose(
        values[7], model(jnp.array(EDGES[7])), rtol=1e-5
    )  # vmap equals one call


@pytest.mark.real
def test_constant_quality_agrees_with_the_standard_and_its_forest(real_data):
    """Sessions of one quality: what is missing is the random forest, a quarter of the score."""
    with gzip.open(real_data / "qoe" / "p1203.csv.gz", "rt") as file:
        rows = [r for r in csv.DictReader(file) if r["quality_switches"] == "0.0"]
    rows = [r for r in rows if r["height_min"] == r["height_max"] == "1080.0"]
    ours, theirs = [], []
    for row in rows:
        screen = video.Screen(HD, HD, float(row["fps_mean"]))
        picture = video.coded(jnp.float32(float(row["br_mean"])), screen)
        picture = video.handheld(picture) if row["context"] == "mobile" else picture
        both = video.audiovisual(jnp.float32(5.0), picture)
        duration, number = float(row["n_sec"]), round(float(row["stall_count"]))
        # Where the stalls were is not told: they are spread evenly.
        pairs = [(0.0, float(row["initial_delay_s"]))]
        each = float(row["stall_total_s"]) / max(number, 1)
        pairs += [(duration * (i + 1) / (number + 1), each) for i in range(number)]
        quality = jnp.full(300, both)
        ours.append(float(streaming(quality, stalls_of(pairs), jnp.float32(duration))))
        theirs.append(float(row["p1203_mode0_O46"]))
    assert len(ours) >= 30
    assert np.corrcoef(ours, theirs)[0, 1] > 0.97
    assert np.sqrt(np.mean((np.array(ours) - theirs) ** 2)) < 0.16
