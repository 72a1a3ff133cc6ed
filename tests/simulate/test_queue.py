import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.simulate import queue

fifo = jax.jit(jax.vmap(queue.fifo))


def served(arrivals, service, buffer):
    """One queue, on the host."""
    one = [jnp.asarray(a, jnp.float32)[None] for a in (arrivals, service, buffer)]
    return jax.tree.map(lambda a: np.asarray(a[0], np.float64), fifo(*one))


def by_hand(arrivals, service, buffer):
    """Backlog and loss of each slot, with branches."""
    backlog, rows = 0.0, []
    for offered in arrivals:
        total = backlog + offered
        gone = min(total, service)
        kept = total - gone
        lost = kept - buffer if kept > buffer else 0.0
        backlog = kept - lost
        rows.append((backlog, lost / offered if offered else 0.0))
    return np.array(rows).T


@pytest.fixture(scope="module")
def bursty():
    arrivals = np.random.default_rng(0).gamma(0.5, 2.0, 3000)
    arrivals[::7] = 0.0
    return arrivals


def test_equals_the_recursion_by_hand(bursty):
    got = served(bursty, 1.1, 4.0)
    backlog, loss = by_hand(bursty, 1.1, 4.0)
    np.testing.assert_allclose(got.backlog, backlog, atol=1e-3)
    np.testing.assert_allclose(got.loss, loss, atol=1e-3)
    assert loss.max() > 0.1


def test_nothing_appears_or_vanishes_and_the_server_never_idles_over_work(bursty):
    got = served(bursty, 1.1, 4.0)
    accepted = bursty * (1 - got.loss)
    before = np.r_[0.0, got.backlog[:-1]]
    done = before + accepted - got.backlog
    assert done.min() > -1e-4
    assert done.max() < 1.1 + 1e-4
    np.testing.assert_allclose(done[got.backlog > 1e-3], 1.1, atol=1e-3)
    assert accepted.sum() == pytest.approx(done.sum() + got.backlog[-1], rel=1e-6)


def test_overload_fills_the_buffer_in_a_straight_line_and_then_loses_the_excess():
    got = served(np.full(50, 3.0), 2.0, 20.0)
    np.testing.assert_allclose(got.backlog, np.minimum(np.arange(1, 51), 20.0))
    np.testing.assert_allclose(got.loss, np.where(np.arange(1, 51) > 20, 1 / 3, 0.0), rtol=1e-6)


def test_without_arrivals_nothing_is_lost():
    got = served(np.zeros(50), 2.0, 0.0)
    assert not got.backlog.any()
    assert not got.loss.any()


@pytest.mark.parametrize("rho", [0.5, 0.8])
def test_mean_waiting_number_is_that_of_md1(rho):
    # Poisson arrivals, one served a slot: the queue of M/D/1, L_q = rho^2 / (2 (1 - rho)).
    arrivals = np.random.default_rng(2).poisson(rho, (16, 3000)).astype(np.float32)
    many = fifo(arrivals, np.ones(16, np.float32), np.full(16, 1e6, np.float32))
    waiting = np.asarray(many.backlog)[:, 300:].mean()
    assert waiting == pytest.approx(rho**2 / (2 * (1 - rho)), rel=0.08)


def test_loss_is_that_of_the_finite_markov_chain():
    rho, buffer = 0.9, 4
    pmf = np.cumprod(np.r_[np.exp(-rho), rho / np.arange(1, 60)])
    move, lost = np.zeros((buffer + 1, buffer + 1)), np.zeros(buffer + 1)
    for q in range(buffer + 1):
        for a, p in enumerate(pmf):
            left = q + a - 1
            move[q, min(max(left, 0), buffer)] += p
            lost[q] += p * max(left - buffer, 0)
    stationary = np.linalg.matrix_power(move, 500)[0]
    arrivals = np.random.default_rng(3).poisson(rho, (16, 3000)).astype(np.float32)
    many = fifo(arrivals, np.ones(16, np.float32), np.full(16, buffer, np.float32))
    got = float((np.asarray(many.loss) * arrivals).sum() / arrivals.sum())
    assert got == pytest.approx(float(stationary @ lost) / rho, rel=0.08)
