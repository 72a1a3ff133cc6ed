"""Waits found among packets: the same as a plain loop finds, in one block or in many."""

import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoejax.data import latency, packets
from tests.data import pcaps
from tests.data.test_packets import frames
from tests.reference import capture as reference


def decoded(pairs):
    made = frames([frame for _, frame in pairs])
    made = made._replace(time=np.array([t for t, _ in pairs]))
    return packets.decode(made, collections.Counter())


def match(some, cuts=()):
    """(service, row, seconds) of all answers, the packets given in pieces."""
    out, state, start = [], latency.NONE_OPEN, 0
    for stop in (*sorted(cuts), len(some.time)):
        piece = packets.Packets(*(c[start:stop] for c in some))
        found, state = latency.match(state, piece)
        rows = zip(found.service.tolist(), (found.row + start).tolist(), found.seconds, strict=True)
        out += rows
        start = stop
    return sorted((s, r, pytest.approx(w, abs=1e-5)) for s, r, w in out), state


def test_waits_of_made_up_sessions():
    some = decoded(pcaps.benign(3, sessions=6))
    found, state = match(some)
    waits = {q: [w.expected for s, _, w in found if s == q] for q in range(3)}
    assert [len(waits[q]) for q in range(3)] == [6, 6, 18]
    assert waits[0] == pytest.approx([0.01, 0.02, 0.03, 0.01, 0.02, 0.03], abs=1e-5)
    assert waits[1] == pytest.approx([0.03] * 6, abs=1e-5)
    assert not len(state.key)


@given(st.lists(st.integers(0, 120), max_size=6))
def test_blocks_are_invisible(cuts):
    some = decoded(pcaps.benign(3, sessions=6))
    assert match(some, cuts)[0] == match(some)[0]


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["ask", "answer", "refuse"]), st.floats(0, 5)),
        max_size=30,
    )
)
def test_handshakes_match_as_a_loop_matches_them(steps):
    events, pairs, now = [], [], 0.0
    flags = {"ask": pcaps.SYN, "answer": pcaps.SYN_ACK, "refuse": pcaps.RST | pcaps.ACK}
    for host, role, pause in steps:
        now += pause
        there = (pcaps.CLIENT, 40_000 + host, pcaps.SERVER, 80)
        way = there if role == "ask" else (*there[2:], *there[:2])
        events.append((host, role, now))
        pairs.append((now, pcaps.ethernet(pcaps.tcp(*way, flags[role]))))
    if pairs:
        found, _ = match(decoded(pairs))
        assert [(r, w) for _, r, w in found] == [
            (r, pytest.approx(w, abs=1e-6)) for r, w in reference.answers(events)
        ]


def test_old_requests_are_forgotten_and_few_are_kept(monkeypatch):
    def syn(i, t):
        return t, pcaps.ethernet(pcaps.tcp(pcaps.CLIENT, 40_000 + i, pcaps.SERVER, 80, pcaps.SYN))

    _, state = latency.match(latency.NONE_OPEN, decoded([syn(0, 0.0), syn(1, 61.0)]))
    assert len(state.key) == 1
    monkeypatch.setattr(latency, "MOST_OPEN", 3)
    _, state = latency.match(latency.NONE_OPEN, decoded([syn(i, float(i)) for i in range(9)]))
    assert state.time.tolist() == [6.0, 7.0, 8.0]


def test_scores():
    seconds = np.array([0.001, 0.02, 1.0, np.inf, 0.3, 0.301, np.inf])
    answers = latency.Answers(np.arange(7), np.array([0, 1, 0, 0, 2, 2, 2]), seconds)
    np.testing.assert_allclose(latency.score(answers), [5, 5, 1, 1, 1, 0, 0], atol=1e-5)
    middle = latency.Answers(np.zeros(1, int), np.zeros(1, int), np.array([0.1]))
    expected = 5 - 4 * np.log(0.1 / latency.BEST_S) / np.log(latency.WORST_S / latency.BEST_S)
    np.testing.assert_allclose(latency.score(middle), [expected], rtol=1e-5)
    none = latency.Answers(np.zeros(0, int), np.zeros(0, int), np.zeros(0))
    assert len(latency.score(none)) == 0
