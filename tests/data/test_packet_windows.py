"""Windows are equal for all, however the capture comes; features are those of a loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoejax.data import packet_windows as windows
from qoejax.data import packets
from qoejax.data.packet_features import FEATURES, features
from qoejax.data.packet_windows import PACKETS, SECONDS, Windowing
from tests.data import pcaps
from tests.data.test_latency import decoded
from tests.reference import capture as reference

NAMES = [name for name, _, _ in FEATURES]
COUNT, TIME = Windowing(PACKETS, 10, 3), Windowing(SECONDS, 2, 3)


def mixture(seed):
    pairs = pcaps.benign(seed, sessions=5) + pcaps.scan(seed + 1, 1.7e9 + 1, 40)
    pairs += pcaps.flood(seed + 2, 1.7e9 + 2, 60)
    return decoded(sorted(pairs, key=lambda pair: pair[0]))


def cut_all(some, windowing, cuts=()):
    """All windows, and the packets left, of a capture that comes in pieces."""
    held, _ = windows.nothing(1)
    out, start = [], 0
    for stop in (*sorted(cuts), len(some.time)):
        if stop > start:
            piece = packets.Packets(*(c[start:stop] for c in some))
            row = np.arange(start, stop, dtype=np.float32)[:, None]
            held = windows.join(held, piece, row)
            full, held = windows.cut(held, windowing, some.time[0], last=False)
            out.append(full)
        start = stop
    full, held = windows.cut(held, windowing, some.time[0], last=True)
    return windows.Windows(*(np.concatenate(c) for c in zip(*out, full, strict=True))), held


def same(a, b):
    orders = [np.lexsort((w.end, w.start, w.key)) for w in (a, b)]
    return all(
        np.array_equal(x[orders[0]], y[orders[1]], equal_nan=True)
        for x, y in zip(a, b, strict=True)
    )


def test_windows_of_packets_are_those_of_a_loop():
    some = mixture(0)
    found, left = cut_all(some, COUNT)
    expected = reference.by_count(some.pair.tolist(), COUNT.size)
    assert (found.features[:, NAMES.index("packets")] == COUNT.size).all()
    # The score here is the row's number: the mean over a window tells which rows it has.
    np.testing.assert_allclose(
        np.sort(found.score[:, 0]), np.sort([np.mean(rows) for rows in expected]), rtol=1e-5
    )
    assert len(some.time) == COUNT.size * len(expected) + len(left.score)
    assert len(left.score) < COUNT.size


@settings(max_examples=8)
@given(st.lists(st.integers(0, 400), max_size=5))
@pytest.mark.parametrize("windowing", [COUNT, TIME])
def test_blocks_are_invisible(windowing, cuts):
    some = mixture(1)
    assert same(cut_all(some, windowing, cuts)[0], cut_all(some, windowing)[0])


def test_windows_of_time_lose_nothing():
    some = mixture(2)
    found, left = cut_all(some, TIME)
    n = found.features[:, NAMES.index("packets")]
    assert n.sum() == len(some.time)
    assert len(left.score) == 0
    assert (found.end - found.start < TIME.size).all()
    others = found.key != windows.REST
    assert (n[others] >= windows.LEAST).all()
    keys = set(zip(found.key.tolist(), found.tick.tolist(), strict=True))
    assert len(keys) == len(n)


def test_scans_and_made_up_sources_become_windows_like_any_other():
    for pairs in (pcaps.scan(0), pcaps.flood(0)):
        some = decoded(pairs)
        found, left = cut_all(some, Windowing(PACKETS, 20, 1))
        assert len(found.key) == len(pairs) // 20
        assert (found.key == windows.REST).all()
        assert (found.features[:, NAMES.index("pairs")] >= 0.5).all()
        assert len(left.score) == len(pairs) % 20


def test_features_are_those_of_a_loop():
    some = mixture(3)
    starts = np.array([0, 7, 8, 30, 101])
    found = features(some, starts)
    columns = {n: getattr(some, n).tolist() for n in packets.Packets._fields}
    for w, (start, stop) in enumerate(zip(starts, [*starts[1:], len(some.time)], strict=True)):
        if stop - start > 1:
            rows = [{n: c[i] for n, c in columns.items()} for i in range(start, stop)]
            for name, value in reference.features(rows).items():
                assert found[w, NAMES.index(name)] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_a_window_of_one_packet_is_finite():
    found = features(packets.Packets(*(c[:1] for c in mixture(0))), np.array([0]))
    assert np.isfinite(found).all()
    assert found[0, NAMES.index("gap_min")] == 0


def test_neither_hosts_ports_nor_the_time_of_day_are_seen():
    there = mixture(4)
    moved = there._replace(
        time=there.time + 86_400 * 365.0,
        client_low=there.client_low + np.uint64(9),
        server_low=there.server_low + np.uint64(9),
        server_port=there.server_port + 1000,
    )
    starts = np.array([0, 20, 40])
    np.testing.assert_allclose(
        features(there, starts), features(moved, starts), rtol=1e-3, atol=1e-5
    )


def test_ratios_are_ratios():
    found, _ = cut_all(mixture(5), COUNT)
    for j, (name, unit, why) in enumerate(FEATURES):
        if why.startswith("share") or why.startswith("different"):
            assert unit == "", name
            assert (found.features[:, j] >= 0).all(), name
            assert (found.features[:, j] <= 1).all(), name
    assert len(set(NAMES)) == len(NAMES)


def run(some, windowing, cuts=()):
    """All sequences, in pieces, ordered."""
    held, past = windows.nothing(1)
    out, start = [], 0
    for stop in (*sorted(cuts), len(some.time)):
        if stop > start:
            piece = packets.Packets(*(c[start:stop] for c in some))
            held = windows.join(held, piece, np.arange(start, stop, dtype=np.float32)[:, None])
            full, held = windows.cut(held, windowing, some.time[0], last=False)
            told, past = windows.sequences(past, full, windowing, last=False)
            out.append(told)
        start = stop
    full, held = windows.cut(held, windowing, some.time[0], last=True)
    told, past = windows.sequences(past, full, windowing, last=True)
    assert len(past.told) == 0
    out.append(told)
    x, following = (np.concatenate([getattr(s, f) for s in out]) for f in ("x", "following"))
    last = windows.Windows(*(np.concatenate(c) for c in zip(*(s.last for s in out), strict=True)))
    order = np.lexsort((last.end, last.start, last.key))
    return x[order], following[order], windows.Windows(*(c[order] for c in last))


@settings(max_examples=8)
@given(st.lists(st.integers(0, 400), max_size=4))
@pytest.mark.parametrize("windowing", [COUNT, TIME])
def test_sequences_do_not_depend_on_blocks(windowing, cuts):
    some = mixture(6)
    for a, b in zip(run(some, windowing, cuts)[:2], run(some, windowing)[:2], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("windowing", [COUNT, TIME])
def test_sequences_are_consecutive_windows_of_a_conversation(windowing):
    some = mixture(7)
    x, following, last = run(some, windowing, cuts=(50, 200))
    found, _ = cut_all(some, windowing)
    assert len(x) == len(found.key)
    for pair in np.unique(last.key):
        mine = np.flatnonzero(last.key == pair)
        for k, i in enumerate(mine):
            # The oldest window stands for those before it.
            rows = [mine[max(0, k - back)] for back in (2, 1, 0)]
            np.testing.assert_array_equal(x[i], last.features[rows])
            after = mine[k + 1] if k + 1 < len(mine) else None
            if windowing.unit == SECONDS and after is not None:
                after = after if last.tick[after] == last.tick[i] + 1 else None
            expected = np.nan if after is None else last.score[after, 0]
            np.testing.assert_array_equal(following[i, 0], expected)


def test_state_is_bounded_and_nothing_is_lost(monkeypatch):
    monkeypatch.setattr(windows, "HELD", 40)
    monkeypatch.setattr(windows, "CONVERSATIONS", 2)
    some = mixture(8)
    held, past = windows.nothing(1)
    told = 0
    for start in range(0, len(some.time), 25):
        piece = packets.Packets(*(c[start : start + 25] for c in some))
        held = windows.join(held, piece, np.zeros((len(piece.time), 1), np.float32))
        full, held = windows.cut(held, COUNT, 0.0, last=False)
        out, past = windows.sequences(past, full, COUNT, last=False)
        told += len(out.x)
        assert len(held.score) <= windows.HELD + COUNT.size
        assert len(past.told) <= windows.CONVERSATIONS * COUNT.length
    full, held = windows.cut(held, COUNT, 0.0, last=True)
    told += len(windows.sequences(past, full, COUNT, last=True)[0].x)
    assert told * COUNT.size + len(held.score) == len(some.time)


@settings(max_examples=8)
@given(st.lists(st.integers(0, 400), max_size=6), st.integers(0, 99))
def test_windows_of_time_bear_packets_out_of_order(cuts, seed):
    """Packets that are late by less than ``LATE_S`` fall into their own window, in any blocks."""
    some = mixture(9)
    late = np.random.default_rng(seed).uniform(0, windows.LATE_S / 2, len(some.time))
    order = np.argsort(some.time + late, kind="stable")
    mixed = packets.Packets(*(column[order] for column in some))
    found = (cut_all(mixed, TIME, cuts)[0], cut_all(mixed, TIME)[0])
    a, b = (windows.Windows(*(c[np.lexsort((f.tick, f.key))] for c in f)) for f in found)
    np.testing.assert_array_equal(a.features, b.features)


@pytest.mark.parametrize("windowing", [COUNT, TIME])
def test_sequences_at_once_are_those_that_wait(windowing):
    some = mixture(10)
    waited = run(some, windowing)[0]
    held, past = windows.nothing(1)
    now, last = [], []
    for start in range(0, len(some.time), 33):
        piece = packets.Packets(*(c[start : start + 33] for c in some))
        held = windows.join(held, piece, np.zeros((len(piece.time), 1), np.float32))
        full, held = windows.cut(held, windowing, some.time[0], last=False)
        told, past = windows.sequences(past, full, windowing, last=False, wait=False)
        assert len(told.x) == len(full.key)
        now.append(told.x)
        last.append(told.last)
    full, held = windows.cut(held, windowing, some.time[0], last=True)
    told, past = windows.sequences(past, full, windowing, last=False, wait=False)
    x = np.concatenate([*now, told.x])
    last = windows.Windows(*(np.concatenate(c) for c in zip(*last, told.last, strict=True)))
    np.testing.assert_array_equal(x[np.lexsort((last.end, last.start, last.key))], waited)


def test_silent_conversations_join_the_rest_and_no_packet_is_lost():
    some = mixture(11)
    held = windows.join(windows.nothing(1)[0], some, np.zeros((len(some.time), 1), np.float32))
    since = float(np.quantile(some.time, 0.7))
    out = windows.silent(held, since)
    assert sorted(out.packets.flow) == sorted(some.flow)
    for pair in np.unique(some.pair):
        mine = out.packets.pair == pair
        gone = out.packets.time[mine].max() < since
        assert (out.key[mine] == (windows.REST if gone else pair)).all()
    assert (out.key == windows.REST).any()
    assert (out.key != windows.REST).any()
