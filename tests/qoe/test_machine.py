import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoejax.qoe import machine
from tests.reference import qoe_numpy

N = 12
BUDGET = machine.FIVE_QI[3].delay_ms
slots = st.lists(
    st.tuples(st.floats(0, 200, width=16), st.floats(0, 1, width=16), st.integers(0, 5)),
    min_size=N,
    max_size=N,
)
delivered = jax.jit(lambda d, p, n: machine.delivered(d, p, n, BUDGET))
mean_age = jax.jit(lambda s, d, a: machine.mean_age_s(s, d, a, 10.0))


def columns(rows):
    return tuple(jnp.array(np.float32(c)) for c in zip(*rows, strict=True))


@given(slots)
def test_delivered_is_the_share_that_arrives_in_time(rows):
    got = float(delivered(*columns(rows)))
    expected = qoe_numpy.delivered(*zip(*rows, strict=True), BUDGET)
    assert got == pytest.approx(expected, abs=1e-5)
    assert 0.0 <= got <= 1.0


@given(slots, st.integers(0, N - 1), st.floats(0, 100, width=16), st.floats(0, 1, width=16))
def test_more_delay_or_loss_never_helps(rows, which, later, lost):
    before = float(delivered(*columns(rows)))
    delay, loss, number = rows[which]
    rows[which] = (delay + later, min(loss + lost, 1.0), number)
    assert float(delivered(*columns(rows))) <= before + 1e-6


def test_a_packet_just_in_time_counts_and_padding_does_not():
    delay = jnp.array([BUDGET, BUDGET + 0.01, 1e9, 0.0])
    packets = jnp.array([1.0, 1.0, 0.0, -3.0])
    assert float(machine.delivered(delay, jnp.zeros(4), packets, BUDGET)) == 0.5
    assert float(machine.delivered(delay, jnp.zeros(4), jnp.zeros(4), BUDGET)) == 1.0


def test_a_class_is_kept_up_to_its_error_rate():
    budget = machine.FIVE_QI[1]
    assert bool(machine.meets(jnp.float32(0.995), budget))
    assert not bool(machine.meets(jnp.float32(0.985), budget))


@pytest.mark.parametrize(
    ("five_qi", "delay_ms", "error_rate"),
    [(1, 100, 1e-2), (2, 150, 1e-3), (3, 50, 1e-3), (65, 75, 1e-2), (69, 60, 1e-6),
     (70, 200, 1e-6), (79, 50, 1e-2), (80, 10, 1e-6), (82, 10, 1e-4), (84, 30, 1e-5),
     (85, 5, 1e-5), (9, 300, 1e-6)],
)  # fmt: skip
def test_budgets_of_ts_23_501(five_qi, delay_ms, error_rate):
    assert machine.FIVE_QI[five_qi] == (delay_ms, error_rate)


updates = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 20), st.booleans()), min_size=N, max_size=N
)


@given(updates)
def test_mean_age_equals_brute_force(rows):
    sent, delay = (np.float32([r[i] for r in rows]) / 4 for i in (0, 1))
    arrived = np.array([r[2] for r in rows])
    got = float(mean_age(jnp.array(sent), jnp.array(delay), jnp.array(arrived)))
    expected = qoe_numpy.mean_age(sent, delay, arrived, 10.0, steps=20_000)
    assert got == pytest.approx(expected, abs=2e-3)


def test_age_by_hand():
    # Sent at 2, seen at 3: age runs to 3, falls to 1, runs to 8 at time 10.
    sent, delay = jnp.full(1, 2.0), jnp.full(1, 1.0)
    got = machine.mean_age_s(sent, delay, jnp.array([True]), 10.0)
    assert float(got) == pytest.approx((3 * 1.5 + 7 * 4.5) / 10)
    assert float(machine.mean_age_s(sent, delay, jnp.array([False]), 10.0)) == 5.0


def test_nothing_is_nan_and_loss_has_a_slope():
    edges = jnp.array(np.float32([-3e38, -1.0, 0.0, 1e-30, 1.0, BUDGET, 3e38]))

    def score(delay, loss):
        return machine.delivered(delay, loss, jnp.ones_like(delay), BUDGET)

    values, (by_delay, by_loss) = jax.vmap(jax.value_and_grad(score, (0, 1)))(
        edges[:, None], edges[::-1, None]
    )
    assert all(np.isfinite(v).all() for v in (values, by_delay, by_loss))
    slope = jax.grad(score, 1)(jnp.array([1.0, 1.0]), jnp.array([0.5, 0.2]))
    np.testing.assert_allclose(slope, [-0.5, -0.5])
    age = jax.grad(lambda d: machine.mean_age_s(edges, d, edges >= 0, 5.0))(edges)
    assert np.isfinite(age).all()
