"""Degree and threshold from bounds on what can go wrong. Standard library only.

Of n members, standing in random order on the ring of ``graph``, ``corrupt`` share what they know
with the server and ``dropped`` leave. A member has k neighbours, h = k / 2 on either side, and
k + 1 holders of its shares, itself among them.

Passive (the server follows the protocol; the events are those of Bell et al. 2020):

    E1  no member has t corrupt neighbours: else they open its secrets alone.
        n P[X >= t], X hypergeometric: k drawn of n - 1, ``corrupt`` marked.
    E2  honest members that stay are connected: else their sum falls into two.
        They are unless two blocks of h neighbours on the ring, with somebody between them on both
        sides, all left or are corrupt: whoever stands before a shorter gap still reaches across,
        and with one gap the rest is a path. There are n (n - k - 1) / 2 pairs of such blocks, each
        gone with chance C(n - k, s - k) / C(n, s), s = corrupt + dropped.

Active (the server chooses who leaves, and when, and tells everybody the same):

    E3  every honest member has t > h + 1 + y, y the corrupt ones among the h on either side. Then a
        sum falls into two nowhere: a member at the end of a piece has at most h honest neighbours
        in its piece, itself, and y corrupt ones beyond the cut, too few to open its secret. Adding
        both sides, 2 t > k + 1 + x, x all its corrupt neighbours: two secrets of one member, which
        take 2 t shares of which each honest holder gives one, are never opened, whatever each
        holder is told.
        2 n P[Y >= t - h - 1], Y hypergeometric: h drawn. In a complete graph x is ``corrupt`` and
        2 t > k + 1 + corrupt is all: then two sets of t confirmations share an honest member, so
        everybody who goes on also saw the same survivors (as in Bonawitz et al. 2017).

Correctness: everybody's secret can be opened.

    E4  no member has more than k - t neighbours that left.
        n P[Z >= k - t + 1], Z hypergeometric: k drawn, ``dropped`` marked.

The union bound over n is all that these sums lose. Some may leave before the graph is drawn, so the
bounds hold with n and with n - dropped; with fewer, or fewer survivors, a round does not go on.
"""

import math
from typing import NamedTuple

COMPLETE = 32
"""Up to so many members the graph is complete."""
PRIVATE, CORRECT = 2**-40, 2**-20
"""Largest chances of failure, by default."""


class Choice(NamedTuple):
    """Degree, threshold and least number of survivors, and the chances that they fail."""

    degree: int
    threshold: int
    least: int
    privacy: float
    correctness: float


def tail(population: int, marked: int, drawn: int, least: int) -> float:
    """P[X >= least] of a hypergeometric X, exact up to the last division."""
    if least <= 0:
        return 1.0
    ways = sum(
        math.comb(marked, x) * math.comb(population - marked, drawn - x)
        for x in range(least, min(marked, drawn) + 1)
    )
    return ways / math.comb(population, drawn)


def opened_alone(n: int, degree: int, threshold: int, corrupt: int) -> float:
    """E1: some member has ``threshold`` corrupt neighbours."""
    return min(1.0, n * tail(n - 1, corrupt, degree, threshold))


def disconnected(n: int, degree: int, gone: int) -> float:
    """E2: the members that are not among ``gone`` random ones fall into two pieces."""
    if degree >= n - 1 or gone < degree or n - gone < 2:
        return 0.0
    pairs = n * (n - degree - 1) / 2
    return min(1.0, pairs * (math.comb(n - degree, gone - degree) / math.comb(n, gone)))


def cut(n: int, degree: int, threshold: int, corrupt: int) -> float:
    """E3: a server that chooses who leaves could open a part of the sum, or a member twice."""
    if degree >= n - 1:
        return float(2 * threshold <= degree + 1 + corrupt)
    side = degree // 2
    return min(1.0, 2 * n * tail(n - 1, corrupt, side, threshold - side - 1))


def unopened(n: int, degree: int, threshold: int, dropped: int) -> float:
    """E4: some secret finds too few holders, and the round fails."""
    return min(1.0, n * tail(n - 1, dropped, degree, degree - threshold + 1))


def privacy(n: int, degree: int, threshold: int, corrupt: int, dropped: int, active: bool) -> float:
    """Chance that more than one sum over all honest members who stay can be learnt."""
    if active:
        return cut(n, degree, threshold, corrupt)
    alone = opened_alone(n, degree, threshold, corrupt)
    return min(1.0, alone + disconnected(n, degree, corrupt + dropped))


def choose(
    n: int,
    corrupt: int,
    dropped: int,
    *,
    active: bool = True,
    private: float = PRIVATE,
    correct: float = CORRECT,
) -> Choice:
    """The smallest degree, and threshold for it, whose bounds hold; complete up to 32 members.

    Args:
        n: members.
        corrupt: how many may work with the server.
        dropped: how many may leave, in whatever phase.
        active: whether the server may choose who leaves.
        private: largest chance that privacy fails.
        correct: largest chance that a round fails although no more than ``dropped`` left.

    Raises:
        ValueError: no threshold serves both; it says so with the numbers.
    """
    if not (n >= 2 and 0 <= corrupt < n and 0 <= dropped < n):
        raise ValueError(f"expected 0 to {n - 1} corrupt and dropped, got {corrupt} and {dropped}")
    degrees = [*range(2, n - 1, 2), n - 1] if n > COMPLETE else [n - 1]
    for degree in degrees:
        for threshold in range(max(2, (degree + 1) // 2 + 1), degree + 2):
            risk = max(
                privacy(size, min(degree, size - 1), threshold, corrupt, dropped, active)
                for size in (n, n - dropped)
                if size > threshold or size == n
            )
            if risk <= private:
                failing = unopened(n, degree, threshold, dropped)
                if failing <= correct:
                    least = threshold if degree == n - 1 else n - dropped
                    return Choice(degree, threshold, least, risk, failing)
                break  # a higher threshold opens even less
    raise ValueError(
        f"of {n} members, {corrupt} that are corrupt and {dropped} that leave are too many: no "
        "threshold keeps the sum together and still opens it"
    )
