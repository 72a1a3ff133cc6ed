"""Packets to equal windows, windows to features, features to sequences. NumPy only.

A conversation is all that two hosts say to each other. A window is the same for every class: so
many packets of one conversation, or so many seconds of it. What is left of a conversation, when it
is too short for a window, joins the *rest*: a conversation of its own, made of all such ends in the
order of time and cut by the same rule. A scan of many hosts, or a flood from made-up addresses, is
therefore not lost, and no class has windows of another size.

State is bounded: at most ``HELD`` packets wait for their window to fill, and at most
``CONVERSATIONS`` conversations are remembered; the ones that were silent longest go first.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt64

from qoejax.data.packet_features import FEATURES, features
from qoejax.data.packets import EMPTY, Packets

HELD = 1 << 17
CONVERSATIONS = 1 << 14
REST = np.uint64(0)
"""The key of the rest; hashes of hosts are never 0."""

PACKETS, SECONDS = "packets", "seconds"

LEAST = 4
"""In windows of time, a conversation with fewer packets than this joins the rest."""

LATE_S = 0.1
"""A window of time waits so long for packets that were captured out of order."""


class Windowing(NamedTuple):
    """``size`` packets or seconds a window, ``length`` windows a sequence."""

    unit: str
    size: int
    length: int


class Held(NamedTuple):
    """Packets that wait for their window to fill; ``score`` [n,Q] is NaN where there is none.

    ``key`` is the conversation that each belongs to: its pair of hosts, or the rest.
    """

    key: UInt64[np.ndarray, " n"]
    packets: Packets
    score: Float32[np.ndarray, "n Q"]


class Windows(NamedTuple):
    """w windows; ``score`` [w,Q] is the mean over a window's answers, NaN without any."""

    key: UInt64[np.ndarray, " w"]
    features: Float32[np.ndarray, "w F"]
    score: Float32[np.ndarray, "w Q"]
    start: Float64[np.ndarray, " w"]
    end: Float64[np.ndarray, " w"]
    tick: Int64[np.ndarray, " w"]  # number of the window of time; 0 in windows of packets
    client_high: UInt64[np.ndarray, " w"]
    client_low: UInt64[np.ndarray, " w"]
    server_high: UInt64[np.ndarray, " w"]
    server_low: UInt64[np.ndarray, " w"]
    protocol: Int64[np.ndarray, " w"]
    server_port: Int64[np.ndarray, " w"]


class Sequences(NamedTuple):
    """n examples: ``x`` [n,T,F] ends with the window that ``last`` has; oldest first.

    Where a conversation has had fewer than T windows, its first one stands for those before it.
    ``following`` [n,Q] are the scores of the conversation's next window, NaN where there are none.
    """

    x: Float32[np.ndarray, "n T F"]
    following: Float32[np.ndarray, "n Q"]
    last: Windows


class Past(NamedTuple):
    """Last windows of the conversations; all but each one's newest have been told.

    Of who does not wait for following windows, the newest have been told too.
    """

    windows: Windows
    told: Bool[np.ndarray, " w"]


def nothing(services: int) -> tuple[Held, Past]:
    """The state before a capture."""
    held = Held(EMPTY.pair, EMPTY, np.zeros((0, services), np.float32))
    none = np.zeros(0, np.int64)
    windows = _windows(held, none, none, 0.0)
    return held, Past(windows, np.zeros(0, bool))


def cut(held: Held, windowing: Windowing, origin: float, last: bool) -> tuple[Windows, Held]:
    """The windows that are full, and the packets that still wait.

    Args:
      held: packets that waited, then those that came.
      windowing: what a window is.
      origin: time at which the first window of time begins.
      last: nothing follows: what waits becomes the rest, and only less than one window of it is
        left (none, in windows of time).
    """
    if windowing.unit == SECONDS:
        return _by_time(held, windowing.size, origin, last)
    full, left = _by_count(held, windowing.size)
    surplus = len(left.key) if last else len(left.key) - HELD // 2
    if last or len(left.key) > HELD:
        more, left = _by_count(_retired(left, surplus), windowing.size)
        full = _joined(full, more)
    return full, left


def _by_count(held: Held, size: int) -> tuple[Windows, Held]:
    order = np.argsort(held.key, kind="stable")
    first, counts = _runs(held.key[order])
    place = np.arange(len(order)) - np.repeat(first, counts)
    full = place < np.repeat(counts - counts % size, counts)
    rows = order[full]
    starts = np.flatnonzero(place[full] % size == 0)
    found = _windows(_take(held, rows), starts, np.zeros(len(starts), np.int64), 0.0)
    return found, _take(held, np.sort(order[~full]))


def _by_time(held: Held, size: int, origin: float, last: bool) -> tuple[Windows, Held]:
    tick = _ticks(held.packets.time, size, origin)
    # A window with more packets than may wait is cut short.
    done = np.full(len(tick), last or len(tick) > HELD)
    if len(tick):
        oldest, newest = _ticks(held.packets.time[-1] + [-LATE_S, LATE_S], size, origin)
        done |= (tick < oldest) | (tick > newest)
    rows, left = np.flatnonzero(done), np.flatnonzero(~done)
    rows, starts, _ = _grouped(held.key, tick, rows)
    counts = np.diff(np.r_[starts, len(rows)])
    key = held.key.copy()
    key[rows[np.repeat(counts < LEAST, counts)]] = REST
    rows, starts, ticks = _grouped(key, tick, np.sort(rows))
    found = _windows(_take(held._replace(key=key), rows), starts, ticks, float(size))
    return found, _take(held, left)


def _ticks(time: Float64[np.ndarray, " n"], size: int, origin: float) -> Int64[np.ndarray, " n"]:
    return np.floor((time - origin) / size).astype(np.int64)


def _grouped(
    key: UInt64[np.ndarray, " n"], tick: Int64[np.ndarray, " n"], rows: Int64[np.ndarray, " r"]
) -> tuple[Int64[np.ndarray, " r"], Int64[np.ndarray, " w"], Int64[np.ndarray, " w"]]:
    """Rows ordered by conversation, then window of time; where each begins; its number."""
    rows = rows[np.lexsort((tick[rows], key[rows]))]
    new = np.r_[True, (np.diff(tick[rows]) != 0) | (key[rows][1:] != key[rows][:-1])]
    starts = np.flatnonzero(new[: len(rows)])
    return rows, starts, tick[rows][starts]


def silent(held: Held, since: float) -> Held:
    """The same packets, by time; those of conversations without one since then are rest."""
    _, of, _, seen = _conversations(held)
    return _as_rest(held, (seen < since)[of])


def _retired(held: Held, enough: int) -> Held:
    """The same packets; those of the conversations silent longest, ``enough`` or more, are rest."""
    keys, of, counts, seen = _conversations(held)
    order = np.argsort(seen, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    gone = np.zeros(len(keys), bool)
    gone[order[before < enough]] = True
    return _as_rest(held, gone[of])


def _conversations(held: Held) -> tuple[np.ndarray, ...]:
    """Keys, the conversation of each packet, the packets of each and when each was last seen."""
    keys, of, counts = np.unique(held.key, return_inverse=True, return_counts=True)
    seen = np.zeros(len(keys))
    np.maximum.at(seen, of, held.packets.time)
    return keys, of, counts, seen


def _as_rest(held: Held, gone: Bool[np.ndarray, " n"]) -> Held:
    by_time = np.argsort(held.packets.time, kind="stable")
    return _take(held._replace(key=np.where(gone, REST, held.key)), by_time)


def _windows(
    held: Held, starts: Int64[np.ndarray, " w"], ticks: Int64[np.ndarray, " w"], seconds: float
) -> Windows:
    """Windows of packets that lie window after window."""
    k = held.packets
    if not len(starts):
        empty = np.zeros((0, len(FEATURES)), np.float32)
        time, host = k.time[:0], held.key[:0]
        return Windows(
            host, empty, held.score[:0], time, time, ticks, host, host, host, host, ticks, ticks
        )
    rated = np.isfinite(held.score)
    total = np.add.reduceat(np.where(rated, held.score, 0.0), starts)
    count = np.add.reduceat(rated.astype(np.float32), starts)
    return Windows(
        key=held.key[starts],
        features=features(k, starts, seconds),
        score=np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32),
        start=np.minimum.reduceat(k.time, starts),
        end=np.maximum.reduceat(k.time, starts),
        tick=ticks,
        client_high=k.client_high[starts],
        client_low=k.client_low[starts],
        server_high=k.server_high[starts],
        server_low=k.server_low[starts],
        protocol=k.protocol[starts].astype(np.int64),
        server_port=k.server_port[starts],
    )


def sequences(
    past: Past, new: Windows, windowing: Windowing, last: bool, wait: bool = True
) -> tuple[Sequences, Past]:
    """Examples whose following window is known, or will not come; and what to remember.

    Args:
      past: what was remembered.
      new: windows that were cut since, each conversation's in order.
      windowing: what a window is, and T.
      last: nothing follows.
      wait: False if the following window's scores are not asked for: then no example waits for it.
    """
    told = np.r_[past.told, np.zeros(len(new.start), bool)]
    both = _joined(past.windows, new)
    order = np.argsort(both.key, kind="stable")
    both, told = Windows(*(column[order] for column in both)), told[order]
    first, counts = _runs(both.key)
    of = np.repeat(np.arange(len(first)), counts)
    rows = np.arange(len(of))
    follows = rows < (first + counts - 1)[of]  # has a following window
    over = max(0, len(first) - CONVERSATIONS)
    ends = np.full(len(first), last)
    ends[np.argsort(both.end[first + counts - 1], kind="stable")[:over]] = True
    tell = np.flatnonzero(~told & (follows | ends[of] | (not wait)))
    steps = np.arange(1 - windowing.length, 1)
    x = both.features[np.maximum(tell[:, None] + steps, first[of[tell], None])]
    after = np.minimum(tell + 1, max(0, len(of) - 1))
    next_ = follows[tell]
    if windowing.unit == SECONDS:
        next_ = next_ & (both.tick[after] == both.tick[tell] + 1)
    following = np.where(next_[:, None], both.score[after], np.nan).astype(np.float32)
    recent = rows >= (first + counts - windowing.length)[of]
    keep = np.flatnonzero(recent & ~ends[of])
    told_now = Sequences(x, following, Windows(*(column[tell] for column in both)))
    return told_now, Past(Windows(*(column[keep] for column in both)), (follows | (not wait))[keep])


def join(held: Held, packets: Packets, score: Float32[np.ndarray, "n Q"]) -> Held:
    """The packets that waited, then those that came."""
    columns = zip(held.packets, packets, strict=True)
    joined = Packets(*(np.concatenate(pair) for pair in columns))
    key = np.concatenate([held.key, packets.pair])
    return Held(key, joined, np.concatenate([held.score, score]))


def _joined(a: Windows, b: Windows) -> Windows:
    return Windows(*(np.concatenate(pair) for pair in zip(a, b, strict=True)))


def _take(held: Held, rows: Int64[np.ndarray, " r"]) -> Held:
    taken = Packets(*(column[rows] for column in held.packets))
    return Held(held.key[rows], taken, held.score[rows])


def _runs(
    values: UInt64[np.ndarray, " n"],
) -> tuple[Int64[np.ndarray, " r"], Int64[np.ndarray, " r"]]:
    """Where each run of equal values begins, and how long it is."""
    first = np.flatnonzero(np.r_[True, values[1:] != values[:-1]][: len(values)])
    return first, np.diff(np.r_[first, len(values)])
