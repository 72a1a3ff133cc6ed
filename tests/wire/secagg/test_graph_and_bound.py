"""Who masks with whom, and bounds held against simulation."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from qoejax.wire.secagg import bound, graph

SIZES = [(2, 1), (3, 2), (4, 3), (5, 4), (7, 4), (8, 6), (8, 7), (20, 6), (33, 8)]


def ids(n):
    return [i.to_bytes(16, "big") for i in range(n)]


@pytest.mark.parametrize(("n", "degree"), SIZES)
def test_every_edge_has_one_side_that_encapsulates(n, degree):
    found = graph.build(b"seed", ids(n), degree)
    pairs = set()
    for one in ids(n):
        ahead, behind = graph.clockwise(found, one), graph.anticlockwise(found, one)
        assert len({*ahead, *behind} - {one}) == len(ahead) + len(behind) == degree
        assert all(one in graph.anticlockwise(found, peer) for peer in ahead)
        pairs |= {frozenset((one, peer)) for peer in ahead}
        assert graph.holders(found, one)[0] == one
    assert len(pairs) == n * degree // 2


def test_neighbours_are_near_on_the_ring():
    found = graph.build(b"seed", ids(20), 6)
    for one in ids(20):
        at = found.position[one]
        gaps = {(found.position[p] - at + 10) % 20 - 10 for p in graph.neighbours(found, one)}
        assert gaps == {-3, -2, -1, 1, 2, 3}


def test_the_order_depends_on_the_seed_and_not_on_the_listing():
    first, second = graph.build(b"a", ids(9), 4), graph.build(b"b", ids(9), 4)
    assert first.ring != second.ring
    assert graph.build(b"a", reversed(ids(9)), 4) == first


def test_the_order_is_uniform():
    places = [graph.build(seed, ids(5), 2).position[ids(5)[0]] for seed in ids(2000)]
    assert scipy.stats.chisquare(np.bincount(places)).pvalue > 1e-3


def test_graphs_that_are_none():
    with pytest.raises(ValueError, match="no circulant graph of degree 3 on 8"):
        graph.build(b"", ids(8), 3)
    with pytest.raises(ValueError, match="listed twice"):
        graph.build(b"", [b"a", b"a"], 1)
    assert graph.build(b"", ids(4), 6).degree == 3  # complete when some have left


def test_the_tail_is_hypergeometric():
    for args in ((99, 20, 30, 12), (19, 5, 6, 1), (10, 3, 9, 3)):
        population, marked, drawn, least = args
        law = scipy.stats.hypergeom(population, marked, drawn)
        assert bound.tail(*args) == pytest.approx(law.sf(least - 1), rel=1e-9)
    assert bound.tail(10, 3, 2, 0) == 1.0


def pieces(n, degree, stay):
    """Connected components of a circulant graph without those that left, by search."""
    left, found = set(stay), []
    while left:
        todo, piece = [left.pop()], set()
        while todo:
            one = todo.pop()
            piece.add(one)
            near = {(one + d) % n for d in range(-degree // 2, degree // 2 + 1)} & left
            left -= near
            todo += near
        found.append(piece)
    return found


def test_two_blocks_are_what_it_takes_to_disconnect():
    """Exhaustive: the rest falls apart if and only if two gaps are at least half the degree."""
    n, degree = 12, 4
    for size in range(1, n):
        for gone in itertools.combinations(range(n), size):
            stay = sorted(set(range(n)) - set(gone))
            gaps = [
                (b - a) % n - 1 for a, b in zip(stay, stay[1:] + stay[:1], strict=True)
            ] if len(stay) > 1 else []  # fmt: skip
            broken = sum(gap >= degree // 2 for gap in gaps) >= 2
            assert (len(pieces(n, degree, stay)) > 1) == broken


TRIALS = 4000


def draw(rng, n, count):
    return rng.choice(n, count, replace=False)


def close(found, limit):
    """Below the bound as far as chance allows, and not so far that the bound says nothing."""
    noise = 4 * math.sqrt(limit / TRIALS) + 1 / TRIALS
    return found <= limit + noise and found >= limit / 3 - noise


@pytest.mark.parametrize(("n", "degree", "gone"), [(40, 4, 12), (60, 6, 24), (30, 2, 3)])
def test_disconnection_happens_no_more_often_than_bounded(n, degree, gone):
    rng = np.random.default_rng(n)
    broken = 0
    for _ in range(TRIALS):
        stay = set(range(n)) - set(draw(rng, n, gone).tolist())
        broken += len(pieces(n, degree, stay)) > 1
    assert close(broken / TRIALS, bound.disconnected(n, degree, gone))


@pytest.mark.parametrize(
    ("n", "degree", "marked", "threshold"), [(60, 10, 9, 6), (100, 20, 20, 11)]
)
def test_corrupt_and_missing_neighbours_happen_no_more_often_than_bounded(
    n, degree, marked, threshold
):
    rng = np.random.default_rng(n)
    offsets = np.concatenate([np.arange(-degree // 2, 0), np.arange(1, degree // 2 + 1)])
    alone = missing = one_side = 0
    for _ in range(TRIALS):
        mark = np.zeros(n, int)
        mark[draw(rng, n, marked)] = 1
        near = mark[(np.arange(n)[:, None] + offsets) % n]
        alone += (near.sum(1) >= threshold).any()
        missing += (near.sum(1) > degree - threshold).any()
        side = near.reshape(n, 2, -1).sum(2)
        one_side += (side >= threshold - degree // 2 - 1 + 4).any()
    assert close(alone / TRIALS, bound.opened_alone(n, degree, threshold, marked))
    assert close(missing / TRIALS, bound.unopened(n, degree, threshold, marked))
    assert close(one_side / TRIALS, bound.cut(n, degree, threshold + 4, marked))


def test_no_choice_of_who_leaves_opens_a_part_of_the_sum():
    """E3 by brute force: where it holds, a piece always has a member whose secret stays shut."""
    rng = np.random.default_rng(0)
    n, degree, split = 24, 8, 0
    half = degree // 2
    for _ in range(3000):
        corrupt = set(draw(rng, n, 4).tolist())
        most = max(
            len(corrupt & {(i + s * d) % n for d in range(1, half + 1)})
            for i in set(range(n)) - corrupt for s in (-1, 1)
        )  # fmt: skip
        threshold = half + 2 + most
        cuts = draw(rng, n, 2)
        gone = {(int(c) + d) % n for c in cuts for d in range(half + rng.integers(0, 2))} - corrupt
        stay = set(range(n)) - gone - corrupt
        found = pieces(n, degree, stay)
        for piece in found if len(found) > 1 else []:
            split += 1
            shares = [
                1 + len({(i + d) % n for d in range(-half, half + 1) if d} & (stay | corrupt))
                for i in piece
            ]
            assert min(shares) < threshold
    assert split > 300


def test_two_secrets_of_one_member_take_more_shares_than_there_are():
    for n, corrupt in ((20, 3), (50, 5), (100, 20)):
        choice = bound.choose(n, corrupt, n // 20)
        worst = (
            corrupt if choice.degree == n - 1 else 2 * (choice.threshold - choice.degree // 2 - 2)
        )
        assert 2 * choice.threshold > choice.degree + 1 + min(worst, corrupt)


@pytest.mark.parametrize("active", [False, True])
@pytest.mark.parametrize("n", [5, 20, 33, 100, 300])
def test_the_choice_keeps_both_bounds_and_is_the_smallest(n, active):
    corrupt = dropped = n // 10
    choice = bound.choose(n, corrupt, dropped, active=active)
    k, t = choice.degree, choice.threshold
    assert choice.privacy <= 2**-40
    assert choice.correctness <= 2**-20
    assert 2 * t > k + 1
    assert bound.unopened(n, k, t, dropped) == choice.correctness
    assert bound.privacy(n, k, t, corrupt, dropped, active) <= choice.privacy
    if n > bound.COMPLETE:
        smaller = [
            t for t in range(k // 2, k)
            if bound.privacy(n, k - 2, t, corrupt, dropped, active) <= 2**-40
            and bound.privacy(n - dropped, k - 2, t, corrupt, dropped, active) <= 2**-40
            and bound.unopened(n, k - 2, t, dropped) <= 2**-20 and 2 * t > k - 1
        ]  # fmt: skip
        assert not smaller
        assert choice.least == n - dropped


def test_what_cannot_be_kept_is_refused():
    with pytest.raises(ValueError, match="of 10 members, 5 that are corrupt and 5"):
        bound.choose(10, 5, 5)
    with pytest.raises(ValueError, match="expected 0 to 9"):
        bound.choose(10, 10, 0)
