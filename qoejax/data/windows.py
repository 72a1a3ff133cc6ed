"""Consecutive bins to windows with a class and scores, and their split by capture (NumPy, host).

The MOS itself is the JAX function of ``qoejax.qoe.mos``. All records of a window ended by time t,
the end of its last bin; the scores to be forecast are of transactions that begin in (t, t + h].
"""

import functools
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Int32, Int64

from qoejax.data import sketch
from qoejax.data.bins import Dense
from qoejax.data.schema import ton_iot_windows as schema
from qoejax.qoe import mos

GAP_S = 600
"""A longer time without a record means that the capture had stopped: two blocks."""

TEST_FRACTION = 0.2
TEST_RANGE = (0.1, 0.3)
"""Share of windows that whole blocks may make up to be the test split."""


class Block(NamedTuple):
    """A capture: features [B, F], class [B] and scores [B, Q] of each of its bins, in order.

    Scores of bin b are those at its end: now, then at the horizon.
    """

    first: int
    x: Float32[np.ndarray, "B F"]
    label: Int32[np.ndarray, " B"]
    mos: Float32[np.ndarray, "B Q"]
    mos_mask: Bool[np.ndarray, "B Q"]


class Split(NamedTuple):
    """Last bins of the windows of each block, by side, and how they came to be."""

    rule: str
    train: list[Int64[np.ndarray, " n"]]
    test: list[Int64[np.ndarray, " m"]]


def block(first: int, pieces: Iterable[Dense], made: schema.Windows) -> Block:
    """What a model may see of each bin, and what it should say at the bin's end.

    ``pieces`` are the block's bins in order; features are made of one piece at a time.
    """
    x, label, asked = zip(
        *((features(piece, made.bin_s), classes(piece), piece.asked) for piece in pieces),
        strict=True,
    )
    asked = np.concatenate(asked)
    now, now_mask = scores(asked, -made.ahead)
    ahead, ahead_mask = scores(asked, made.ahead)
    return Block(
        first=first,
        x=np.concatenate(x),
        label=np.concatenate(label),
        mos=np.concatenate([now, ahead], 1),
        mos_mask=np.concatenate([now_mask, ahead_mask], 1),
    )


def features(dense: Dense, bin_s: int) -> Float32[np.ndarray, "B F"]:
    """The schema's columns; shares and means are 0 in a bin without what they are of."""
    records = dense.label.sum(1) + dense.unlabelled
    of = dict(zip(schema.SUMS, dense.sums.T, strict=True))
    done, failed, wait = np.moveaxis(dense.ended, 2, 0)
    packets = of["src_pkts"] + of["dst_pkts"]
    protocols, services, states = (
        _ratio(counts[:, :-2], records[:, None])  # without OTHER and NONE
        for counts in (dense.proto, dense.service, dense.conn_state)
    )
    columns = (
        records / bin_s,
        dense.sums[:, 1:] / bin_s,
        _ratio(of["src_ip_bytes"] + of["dst_ip_bytes"], packets),
        protocols,
        services,
        sketch.distinct(dense.bits),
        sketch.entropy(dense.spread),
        _ratio(of["duration"], records),
        dense.longest,
        states,
        _ratio(failed, done + failed),
        np.where(done > 0, np.exp(_ratio(wait, done)), 0.0),
    )
    stacked = np.concatenate([c.reshape(len(records), -1) for c in columns], 1)
    most = np.finfo(np.float32).max  # Sums of absurd cells, each of which fits, may not.
    return np.ascontiguousarray(np.minimum(stacked, most), np.float32)


def classes(dense: Dense) -> Int32[np.ndarray, " B"]:
    """The most frequent attack among a bin's records, 0 (normal) without any.

    -1 where no attack is known and some record has no known label.
    """
    attacks = dense.label[:, 1:]
    label = np.where(attacks.any(1), 1 + attacks.argmax(1), 0)
    return np.where((label == 0) & (dense.unlabelled > 0), -1, label).astype(np.int32)


def scores(
    asked: Float64[np.ndarray, "B Q 3"], bins: int
) -> tuple[Float32[np.ndarray, "B Q"], Bool[np.ndarray, "B Q"]]:
    """Response-time MOS over the ``bins`` after each bin, or, if negative, up to its end.

    MOS = f + (1 - f) * mean(web(d)), with f the failed share and d the durations of the others
    (G.1030). ``web`` is linear in the logarithm, so its mean is that of the geometric mean. False
    in the mask where the span leaves the block or holds fewer than ``LEAST`` transactions.
    """
    ends = np.arange(1, len(asked) + 1)
    low, high = np.sort([ends, ends + bins], axis=0)
    inside = (low >= 0) & (high <= len(asked))
    total = np.concatenate([np.zeros_like(asked[:1]), np.cumsum(asked, 0)])
    low, high = (np.clip(edge, 0, len(asked)) for edge in (low, high))
    done, failed, wait = np.moveaxis(total[high] - total[low], 2, 0)
    mean = np.exp(_ratio(wait, done)).astype(np.float32)
    rated = [
        jax.vmap(functools.partial(mos.web, worst_s=t.worst_s, best_s=t.best_s))(jnp.asarray(m))
        for t, m in zip(schema.TRANSACTIONS, mean.T, strict=True)
    ]
    f = _ratio(failed, done + failed)
    score = f + (1.0 - f) * np.stack(rated, 1)
    return score.astype(np.float32), (done + failed >= schema.LEAST) & inside[:, None]


def cut(
    x: Float32[np.ndarray, "B F"], last: Int64[np.ndarray, " n"], length: int
) -> Float32[np.ndarray, "n T F"]:
    """The windows of ``length`` bins that end with the bins ``last``."""
    return x[last[:, None] + np.arange(1 - length, 1)]


def split(blocks: list[Block], made: schema.Windows) -> Split:
    """Sides of all windows: whole captures where these can be parted, else the captures' ends.

    Whole: the run of consecutive captures whose share of windows is nearest to 20 % (10 to 30 %)
    and that has no class which the others lack. Otherwise the last 20 % of each capture are test
    windows, and those before are left out whose horizon reaches into a test window.
    """
    ends = [np.arange(made.length - 1, len(b.label), dtype=np.int64) for b in blocks]
    counts = np.array(
        [
            np.bincount(b.label[e] + 1, minlength=len(schema.TYPES) + 1)
            for b, e in zip(blocks, ends, strict=True)
        ]
    ).reshape(len(blocks), -1)
    none = np.zeros(0, np.int64)
    if (chosen := whole_blocks(counts)) is not None:
        sides = list(zip(ends, chosen, strict=True))
        train = [none if t else e for e, t in sides]
        return Split("whole blocks", train, [e if t else none for e, t in sides])
    train, test = [], []
    for e in ends:
        start = len(e) - round(TEST_FRACTION * len(e))
        before = max(0, start - (made.length - 1 + made.ahead))
        parted = before > 0
        train.append(e[:before] if parted else e)
        test.append(e[start:] if parted else none)
    return Split("ends of blocks", train, test)


def whole_blocks(counts: Int[np.ndarray, "blocks classes"]) -> Bool[np.ndarray, " blocks"] | None:
    """Which captures are test captures, from their windows of each class; None if none may be.

    Among equals the latest, so that test follows training.
    """
    total, best, chosen = max(1, int(counts.sum())), TEST_FRACTION, None
    number = np.arange(len(counts))
    for first in number:
        for last in number[first:]:
            run = (number >= first) & (number <= last)
            share = counts[run].sum() / total
            known = (counts[~run].any(0) | ~counts[run].any(0)).all()
            off = abs(share - TEST_FRACTION)
            if known and TEST_RANGE[0] <= share <= TEST_RANGE[1] and off <= best:
                best, chosen = off, run
    return chosen


def _ratio(
    part: Float64[np.ndarray, "..."], whole: Float64[np.ndarray, "..."]
) -> Float64[np.ndarray, "..."]:
    """``part / whole``, 0 where the whole is 0."""
    return part / np.where(whole > 0, whole, 1.0) * (whole > 0)
