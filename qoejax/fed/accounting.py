"""What a privacy guarantee has cost so far: epsilon at a given delta. NumPy; host only.

All figures are those of dp-accounting. Two data sets are neighbours when one record (a row, or a
client with all its rows) is replaced by a null record that adds nothing; how many records there are
is public (dp-accounting's ``REPLACE_SPECIAL``, "zero-out" in Ponomareva et al. 2023, section 2).
"""

import functools
from collections.abc import Callable

import dp_accounting
import numpy as np
from dp_accounting import pld, rdp
from jaxtyping import Float, Int

RELATION = dp_accounting.NeighboringRelation.REPLACE_SPECIAL
INTERVAL = 1e-3
"""Width of the cells of a privacy loss; errors are on the safe side, and below 0.002 in epsilon."""

_ORDERS = [float(order) for order in (*range(2, 64), 80, 96, 128, 192, 256, 384, 512)]


def event(noise: float, rate: float = 1.0) -> dp_accounting.DpEvent:
    """One release: noise of ``noise`` times the bound, each record in with chance ``rate``.

    Raises:
      ValueError: noise that is not above 0, or a rate outside 0..1.
    """
    if not noise > 0 or not 0 < rate <= 1:
        raise ValueError(f"expected noise above 0 and a rate of 0 to 1, got {noise} and {rate}")
    gaussian = dp_accounting.GaussianDpEvent(noise)
    return gaussian if rate == 1 else dp_accounting.PoissonSampledDpEvent(rate, gaussian)


@functools.lru_cache(maxsize=4096)
def epsilon(steps: int, noise: float, rate: float, delta: float) -> float:
    """Epsilon of ``steps`` such releases (privacy loss distributions, Koskela et al. 2020)."""
    if steps == 0:
        return 0.0
    accountant = pld.PLDAccountant(RELATION, value_discretization_interval=INTERVAL)
    accountant.compose(event(noise, rate), int(steps))
    return float(accountant.get_epsilon(delta))


@functools.lru_cache(maxsize=4096)
def _renyi(noise: float, rate: float) -> Float[np.ndarray, " _"]:
    accountant = rdp.RdpAccountant(_ORDERS, RELATION)
    accountant.compose(event(noise, rate))
    return accountant.rdp


def bound(steps: int, noise: float, rate: float, delta: float) -> float:
    """A looser epsilon of the same releases at next to no cost (Renyi, Mironov 2017)."""
    return _converted(steps * _renyi(noise, rate), delta)


def _converted(curve: Float[np.ndarray, " _"], delta: float) -> float:
    return float(rdp.compute_epsilon(_ORDERS, curve.tolist(), delta)[0])


def skellam(steps: int, length: float, variance: float, size: int, delta: float) -> float:
    """Epsilon of ``steps`` sums of integers with Skellam noise (Agarwal et al. 2021, cor. 3.6).

    Args:
      steps: Sums, in each of which everybody's integers take part.
      length: Largest Euclidean norm of one client's integers.
      variance: Of the noise of all clients together.
      size: Numbers of a sum; bounds the 1-norm by ``min(sqrt(size) * length, length**2)``.
      delta: Of the guarantee.
    """
    orders, taxicab = np.array(_ORDERS), min(size**0.5 * length, length**2)
    gaussian = orders * length**2 / (2 * variance)
    rest = np.minimum(
        ((2 * orders - 1) * length**2 + 6 * taxicab) / (4 * variance**2),
        3 * taxicab / (2 * variance),
    )
    return _converted(steps * (gaussian + rest), delta)


def moves(
    coefficients: Float[np.ndarray, " b"], rounds: int, groups: int
) -> Float[np.ndarray, " R"]:
    """How far 1, 2, ... R rounds of a matrix mechanism move when one client becomes null.

    In units of the bound, for clients that come once in ``groups`` rounds. C is lower-triangular
    Toeplitz with these ``coefficients``, positive and falling, so the client of the first round
    moves it most (Kalinin & Lampert 2024, theorem 2). With fresh noise of ``noise`` times the
    bound, n rounds together are one ``event(noise / moves[n - 1])``.
    """
    turns = np.arange(rounds) % groups == 0
    each = np.convolve(turns, np.asarray(coefficients, np.float64))[:rounds]
    return np.sqrt(np.cumsum(each**2))


def worst(
    steps: Int[np.ndarray, " P"], noise: float, rate: Float[np.ndarray, " P"], delta: float
) -> float:
    """The largest ``epsilon`` of P clients whose records are disjoint.

    Clients are tried in the order of ``bound``; the rest is skipped once what was found exceeds
    the bound of all that are left, so the result is exact and costs a few evaluations.
    """
    pairs = sorted({(int(s), float(q)) for s, q in zip(steps, rate, strict=True) if s > 0})
    ranked = sorted(((bound(s, noise, q, delta), s, q) for s, q in pairs), reverse=True)
    found = 0.0
    for limit, s, q in ranked:
        if limit <= found:
            break
        found = max(found, epsilon(s, noise, q, delta))
    return found


def largest(allowed: int, cost: Callable[[int], float], budget: float) -> int:
    """The largest number of rounds up to ``allowed`` whose ``cost(rounds)`` is within ``budget``.

    ``cost`` must not fall; a budget of 0 is none.
    """
    if not budget or cost(allowed) <= budget:
        return allowed
    low, high = 0, allowed  # cost(low) is within, cost(high) is not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= budget else (low, middle)
    return low


def noise_for(
    budget: float, steps: int, rate: float, delta: float, tolerance: float = 1e-3
) -> float:
    """The noise multiplier, to ``tolerance``, with which ``steps`` releases cost ``budget``."""

    def releases(noise: float | int) -> dp_accounting.DpEvent:
        if noise == 0:
            return dp_accounting.NonPrivateDpEvent()
        return dp_accounting.SelfComposedDpEvent(event(float(noise), rate), steps)

    found = dp_accounting.calibrate_dp_mechanism(
        lambda: pld.PLDAccountant(RELATION, value_discretization_interval=INTERVAL),
        releases,
        budget,
        delta,
        dp_accounting.LowerEndpointAndGuess(0, 1),
        tol=tolerance,
    )
    return float(found)
