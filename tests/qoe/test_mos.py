import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoejax.qoe import mos
from tests.reference import qoe_mos, qoe_numpy

# (delay ms, loss percent, codec, MOS): G.107 with the codec constants of G.113, float64.
GOLDEN = [
    (100, 0, "g711_plc", 4.4093),
    (200, 0, "g711_plc", 4.3428),
    (300, 0, "g711_plc", 3.9637),
    (400, 0, "g711_plc", 3.5559),
    (100, 1, "g711", 3.8337),
    (100, 5, "g711_plc", 3.9228),
    (200, 2, "g729a", 3.6507),
    (300, 10, "g711", 1.0653),
]
DELAYS = np.r_[0, 50, 99.9, 100, 100.1, np.geomspace(101, 1e5, 200)].astype(np.float32)
LOSSES = np.r_[0, np.geomspace(1e-3, 100, 200)].astype(np.float32)


@functools.cache
def voice_grid(codec):
    fn = functools.partial(mos.voice, codec=mos.CODECS[codec])
    grid = jax.jit(jax.vmap(jax.vmap(fn, (None, 0)), (0, None)))
    return np.asarray(grid(DELAYS, LOSSES))


@pytest.mark.parametrize(("delay", "loss", "codec", "expected"), GOLDEN)
def test_voice_golden(delay, loss, codec, expected):
    got = mos.voice(jnp.float32(delay), jnp.float32(loss), mos.CODECS[codec])
    assert float(got) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("codec", mos.CODECS)
def test_voice_equals_the_reference(codec):
    constants = mos.CODECS[codec]
    expected = [
        [qoe_mos.voice(d, p, constants.impairment, constants.robustness) for p in LOSSES]
        for d in DELAYS
    ]
    np.testing.assert_allclose(voice_grid(codec), expected, atol=1e-4)


@pytest.mark.parametrize("codec", mos.CODECS)
def test_voice_never_rises_with_delay_or_loss(codec):
    grid = voice_grid(codec)
    assert np.diff(grid, axis=0).max() <= 2e-5  # float32 noise of the delay impairment
    assert np.diff(grid, axis=1).max() <= 2e-5
    assert grid.min() >= 1.0
    assert grid.max() <= 4.4094
    assert np.ptp(grid) > 2.9


def test_bursty_loss_hurts_more_than_random_loss():
    codec = mos.CODECS["g711_plc"]
    loss, delay = jnp.float32(10.0), jnp.float32(80.0)
    random, bursty = (mos.voice(delay, loss, codec, burst_ratio=b) for b in (1.0, 2.0))
    assert float(bursty) < float(random) - 0.05


def test_rating_outside_its_range_is_clipped():
    ratings = np.linspace(-50, 150, 401, dtype=np.float32)
    got = jax.vmap(mos.r_to_mos)(ratings)
    np.testing.assert_allclose(got, [qoe_mos.r_to_mos(float(r)) for r in ratings], atol=1e-5)


def test_de_jitter_buffer():
    # A tenth lost; of what arrives a fifth is late: 0.1 + 0.9 * 0.2.
    got = mos.unplayed(jnp.float32(0.1), jnp.float32(0.2))
    assert float(got) == pytest.approx(0.28)
    total = mos.mouth_to_ear_ms(jnp.float32(30.0), 60.0, mos.CODECS["g729a"])
    assert float(total) == pytest.approx(115.0)


@pytest.mark.parametrize("codec", mos.COLE_ROSENBLUTH)
def test_cole_rosenbluth_equals_the_reference_and_falls(codec):
    curve = mos.COLE_ROSENBLUTH[codec]
    fn = functools.partial(mos.cole_rosenbluth, curve=curve)
    ratios = LOSSES / 100
    got = np.asarray(jax.jit(jax.vmap(jax.vmap(fn, (None, 0)), (0, None)))(DELAYS, ratios))
    expected = [[qoe_numpy.cole_rosenbluth(d, p, *curve) for p in ratios] for d in DELAYS]
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert np.diff(got, axis=0).max() <= 1e-5
    assert np.diff(got, axis=1).max() <= 1e-5
    assert got.min() >= 1.0
    assert got.max() <= 4.44


PACKETS = 16
late_ratio = jax.jit(functools.partial(mos.late_ratio, buffer_ms=60.0))
packets = st.lists(
    st.tuples(st.integers(0, 200), st.integers(0, 3)), min_size=PACKETS, max_size=PACKETS
).map(lambda rows: np.float32(rows).T)


@given(packets)
def test_late_ratio_equals_the_reference(rows):
    expected = qoe_numpy.late_ratio(*rows.astype(float), 60.0)
    assert float(late_ratio(*jnp.array(rows))) == pytest.approx(expected, abs=1e-6)


@given(packets, st.floats(1, 4))
def test_more_jitter_never_helps_a_conversation(rows, factor):
    delay, weight = rows

    def conversation(delay_ms):
        late = late_ratio(jnp.array(delay_ms), jnp.array(weight))
        lost = 100.0 * mos.unplayed(jnp.float32(0.01), late)
        to_ear = mos.mouth_to_ear_ms(jnp.float32(delay.min()), 60.0, mos.CODECS["g711_plc"])
        return float(mos.voice(to_ear, lost, mos.CODECS["g711_plc"]))

    wider = np.float32(delay.min() + factor * (delay - delay.min()))
    assert conversation(wider) <= conversation(delay) + 1e-5


def test_late_ratio_has_no_nan_where_nothing_arrives():
    delay = jnp.array([3.0, jnp.inf, 2.0])
    value, slope = jax.value_and_grad(mos.late_ratio)(delay, jnp.zeros(3), 60.0)
    assert float(value) == 0.0
    assert np.isfinite(slope).all()


WAITS = np.r_[0, np.geomspace(0.01, 200, 200)].astype(np.float32)
WAITING = {
    "web": (
        functools.partial(mos.web, worst_s=15.0, best_s=0.3),
        functools.partial(qoe_mos.web, worst=15.0, best=0.3),
    ),
    "command": (mos.command, qoe_mos.command),
    **{
        name: (functools.partial(mos.iqx, fit=fit), lambda s, fit=fit: qoe_mos.iqx(s, *fit))
        for name, fit in mos.IQX.items()
    },
}


@pytest.mark.parametrize("name", WAITING)
def test_other_models_equal_the_reference_fall_and_stay_on_the_scale(name):
    model, reference = WAITING[name]
    got = np.asarray(jax.vmap(model)(WAITS))
    np.testing.assert_allclose(got, [reference(float(w)) for w in WAITS], atol=2e-5)
    assert np.diff(got).max() <= 1e-6
    assert got.min() >= 1.0
    assert got.max() <= 5.0


def test_command_delay_hits_its_two_points():
    scores = jax.vmap(mos.command)(jnp.float32([0.0, 0.8, 2.0]))
    np.testing.assert_allclose(scores, [5.0, 4.0, 2.95], atol=0.01)


def test_web_ends_and_middle():
    scores = jax.vmap(functools.partial(mos.web, worst_s=6.0, best_s=0.06))(
        jnp.float32([0.06, 0.6, 6.0])
    )
    np.testing.assert_allclose(scores, [5.0, 3.0, 1.0], atol=1e-5)


EDGES = np.float32([-3e38, -1e6, -1.0, 0.0, 1e-20, 0.06, 15.0, 99.0, 100.0, 101.0, 1e6, 1e30, 3e38])


@pytest.mark.parametrize(
    "model",
    [
        lambda x: mos.voice(x, jnp.float32(1.0), mos.CODECS["g711"]),
        lambda x: mos.voice(jnp.float32(120.0), x, mos.CODECS["g729a"]),
        lambda x: mos.cole_rosenbluth(x, jnp.float32(0.01), mos.COLE_ROSENBLUTH["g711"]),
        lambda x: mos.cole_rosenbluth(jnp.float32(120.0), x, mos.COLE_ROSENBLUTH["g729a"]),
        *(model for model, _ in WAITING.values()),
    ],
)
def test_values_and_gradients_are_finite_everywhere(model):
    values, slopes = jax.vmap(jax.value_and_grad(model))(EDGES)
    assert np.isfinite(values).all()
    assert np.isfinite(slopes).all()
    assert (np.asarray(slopes) <= 1e-6).all()
