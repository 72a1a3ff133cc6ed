"""The queue against the recursion written out, and against queueing theory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.simulate import queue

fifo = jax.jit(jax.vmap(queue.fifo))
QUEUES, SLOTS = 32, 6000
WARM_UP = 300


def served(arrivals, service, buffer):
    """One queue, on the host; a constant service may be a number."""
    service = np.broadcast_to(service, np.shape(arrivals))
    one = [jnp.asarray(a, jnp.float32)[None] for a in (arrivals, service, buffer)]
    return jax.tree.map(lambda a: np.asarray(a[0], np.float64), fifo(*one))


def many(arrivals, service, buffer):
    """Equal queues with their own arrivals [Q,S]; backlog and loss."""
    service = np.broadcast_to(np.float32(service), arrivals.shape)
    out = fifo(np.float32(arrivals), service, np.full(len(arrivals), buffer, np.float32))
    return np.asarray(out.backlog, np.float64), np.asarray(out.loss, np.float64)


def by_hand(arrivals, service, buffer):
    """Backlog and loss of each slot, with branches."""
    backlog, rows = 0.0, []
    for offered, able in zip(arrivals, service, strict=True):
        total = backlog + offered
        gone = min(total, able)
        kept = total - gone
        lost = kept - buffer if kept > buffer else 0.0
        backlog = kept - lost
        rows.append((backlog, lost / offered if offered else 0.0))
    return np.array(rows).T


@pytest.fixture(scope="module")
def bursty():
    rng = np.random.default_rng(0)
    arrivals = rng.gamma(0.5, 2.0, SLOTS)
    arrivals[::7] = 0.0
    return arrivals, rng.uniform(0.2, 2.0, SLOTS)


def test_equals_the_recursion_by_hand(bursty):
    got = served(*bursty, 4.0)
    backlog, loss = by_hand(*bursty, 4.0)
    np.testing.assert_allclose(got.backlog, backlog, atol=1e-3)
    np.testing.assert_allclose(got.loss, loss, atol=1e-3)
    assert loss.max() > 0.1


def test_nothing_appears_or_vanishes_and_the_server_never_idles_over_work(bursty):
    arrivals, service = bursty
    got = served(arrivals, service, 4.0)
    accepted = arrivals * (1 - got.loss)
    before = np.r_[0.0, got.backlog[:-1]]
    done = before + accepted - got.backlog
    assert done.min() > -1e-4
    assert (done - service).max() < 1e-4
    busy = got.backlog > 1e-3
    np.testing.assert_allclose(done[busy], service[busy], atol=1e-3)
    assert accepted.sum() == pytest.approx(done.sum() + got.backlog[-1], rel=1e-6)


def test_overload_fills_the_buffer_in_a_straight_line_and_then_loses_the_excess():
    got = served(np.full(SLOTS, 3.0), 2.0, 20.0)
    count = np.arange(1, SLOTS + 1)
    np.testing.assert_allclose(got.backlog, np.minimum(count, 20.0))
    np.testing.assert_allclose(got.loss, np.where(count > 20, 1 / 3, 0.0), rtol=1e-6)


def test_without_arrivals_nothing_is_lost():
    got = served(np.zeros(SLOTS), 2.0, 0.0)
    assert not got.backlog.any()
    assert not got.loss.any()


@pytest.mark.parametrize("rho", [0.5, 0.8])
def test_mean_waiting_number_is_that_of_md1(rho):
    # Poisson arrivals, one served a slot: the queue of M/D/1 by Pollaczek and Khinchine,
    # L_q = rho^2 / (2 (1 - rho)).
    arrivals = np.random.default_rng(2).poisson(rho, (QUEUES, SLOTS))
    backlog, _ = many(arrivals, 1.0, 1e6)
    assert backlog[:, WARM_UP:].mean() == pytest.approx(rho**2 / (2 * (1 - rho)), rel=0.05)


def test_loss_of_md1_with_a_finite_buffer_is_that_of_its_markov_chain():
    rho, buffer = 0.9, 4
    pmf = np.cumprod(np.r_[np.exp(-rho), rho / np.arange(1, 60)])
    move, lost = np.zeros((buffer + 1, buffer + 1)), np.zeros(buffer + 1)
    for q in range(buffer + 1):
        for a, p in enumerate(pmf):
            left = q + a - 1
            move[q, min(max(left, 0), buffer)] += p
            lost[q] += p * max(left - buffer, 0)
    stationary = np.linalg.matrix_power(move, 500)[0]
    arrivals = np.random.default_rng(3).poisson(rho, (QUEUES, SLOTS))
    _, loss = many(arrivals, 1.0, buffer)
    got = (loss * arrivals).sum() / arrivals.sum()
    assert got == pytest.approx(float(stationary @ lost) / rho, rel=0.05)


@pytest.mark.parametrize(("rho", "room"), [(0.7, 4), (1.3, 6)])
def test_number_and_loss_are_those_of_mm1k(rho, room):
    # Poisson arrivals and exponential service, watched in slots of a twentieth of a service time.
    # M/M/1/K: P_n = (1 - rho) rho^n / (1 - rho^(K+1)), and an arrival is lost with P_K.
    slot = 0.05
    rng = np.random.default_rng(4)
    arrivals = rng.poisson(rho * slot, (QUEUES, 4 * SLOTS))
    services = rng.poisson(slot, arrivals.shape)
    backlog, loss = many(arrivals, services, room)
    steady = backlog[:, 2 * WARM_UP :]
    want = (1 - rho) * rho ** np.arange(room + 1) / (1 - rho ** (room + 1))
    got = np.bincount(steady.round().astype(int).ravel(), minlength=room + 1) / steady.size
    np.testing.assert_allclose(got, want, atol=0.025)
    assert (loss * arrivals).sum() / arrivals.sum() == pytest.approx(want[-1], rel=0.1)
    # Negative control: the same test tells this load from one that is a fifth higher.
    other = (1 - 1.2 * rho) * (1.2 * rho) ** room / (1 - (1.2 * rho) ** (room + 1))
    assert abs(want[-1] - other) > 0.15 * want[-1]


def test_unfinished_work_is_that_of_mm1():
    # Poisson packets of exponential size 1, served at rate 1: P(V > x) = rho exp(-(1 - rho) x).
    rho, slot = 0.7, 0.1
    rng = np.random.default_rng(5)
    number = rng.poisson(rho * slot, (QUEUES, 4 * SLOTS))
    backlog, _ = many(rng.gamma(np.maximum(number, 1e-9)) * (number > 0), slot, 1e6)
    steady = backlog[:, 4 * WARM_UP :]
    for x in (0.5, 2.0, 5.0):
        want = rho * np.exp(-(1 - rho) * x)
        assert (steady > x).mean() == pytest.approx(want, rel=0.12)
