"""Video, gaming and machine models again: float64, loops, branches, straight from the standards."""

import itertools
import math

import numpy as np


def clip(value, low, high):
    return min(max(value, low), high)


def p1203_mos(rating):
    r = clip(rating, 0, 100)
    return clip(1.05 + 3.85 * r / 100 + r * (r - 60) * (100 - r) * 7e-6, 1.05, 4.9)


def p1203_rating(mos):
    """Bisection on the rising part of the cubic; R = 3.25 is where P.1203.1's own table starts."""
    mos = clip(mos, 1.05, 4.9)
    if mos <= p1203_mos(3.25):
        return 3.25 * (mos - 1.05) / (p1203_mos(3.25) - 1.05)
    low, high = 3.25, 100.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if p1203_mos(middle) < mos else (low, middle)
    return low


def coded(kbps, coded_pixels, shown_pixels, frame_rate):
    kbps = clip(kbps, 1, 1e6)
    inner = math.log(kbps) + math.log(kbps**2 / (coded_pixels * frame_rate) + 0.13183165961)
    quantisation = 11.9983519 - 2.99991847 * math.log(41.2475074001 + inner)
    mos = clip(4.66 - 0.07 * math.exp(4.06 * quantisation), 1, 5)
    lost = 100 - p1203_rating(mos)
    scaling = clip(72.61 * math.log10(0.32 * (max(shown_pixels / coded_pixels, 1) - 1) + 1), 0, 100)
    jerky = 0.0
    if frame_rate < 24:
        jerky = (100 - lost - scaling) * (30.98 - 1.29 * frame_rate) / (64.65 + frame_rate)
        jerky = clip(jerky, 0, 100)
    return p1203_mos(100 - clip(lost + scaling + jerky, 0, 100))


def audiovisual(audio, video):
    both = -0.00069084 + 0.15374283 * audio + 0.97153861 * video + 0.02461776 * audio * video
    return clip(both, 1, 5)


def baseline(quality):
    top = bottom = 0.0
    for t, q in enumerate(quality):
        early = 0.00666620027943848
        late = 0.0000404018840273729 * math.exp(t / len(quality) / 0.156497800436237)
        weight = (early + late) * (0.143179744942738 - 0.0238641564518876 * q)
        top += weight * q
        bottom += weight
    return top / bottom


def stalling(events, duration):
    """``events``: (position, length) in media order."""
    events = sorted((at, length) for at, length in events if length > 0 and at <= duration)
    total = sum(
        length * (0.48412879 + (1 - 0.48412879) * 0.5 ** ((duration - at) / 10))
        for at, length in events
    )
    gaps = [b[0] - a[0] for a, b in itertools.pairwise(events)]
    gap = sum(gaps) / len(gaps) if gaps else 0.0
    return (
        math.exp(-len(events) / 9.35158684)
        * math.exp(-total / duration / 0.91890815)
        * math.exp(-gap / duration / 11.0567558)
    )


def final(o35, events, duration):
    mos = clip(1 + (o35 - 1) * stalling(events, duration), 1, 5)
    return 0.02833052 + 0.98117059 * mos


def directions(video):
    """Sign of the smoothed quality's move at every third second: 1, 0 or -1."""
    padded = [video[0]] * 4 + list(video) + [video[-1]] * 4
    smooth = [sum(padded[i : i + 5]) / 5 for i in range(len(padded) - 4)][::3]
    moves = [b - a for a, b in itertools.pairwise(smooth)]
    return [0 if abs(m) <= 0.2 else (1 if m > 0 else -1) for m in moves]


def corrections(video, both, mean):
    n = len(video)
    weighted = [
        (q - mean) * (1.87403625 + (1 - 1.87403625) * 0.5 ** ((n - 1 - t) / 7.85416481))
        for t, q in enumerate(both)
    ]
    bias = max(0.0, -float(np.percentile(weighted, 10))) * 0.01853820
    signs = directions(video)
    turns, current = [], 0
    for i, sign in enumerate(signs):
        if sign not in (0, current):
            turns.append(i)
            current = sign
    marks = [0, *turns, len(signs)]
    longest = 3 * max(b - a for a, b in itertools.pairwise(marks))
    spread = max(video) - min(video)
    rate = sum(abs(b - a) > 0.2 for a, b in itertools.pairwise(video)) / n
    oscillation = adaptation = 0.0
    if longest / n < 0.25:
        if longest < 30:
            depth = max(0.0, 1 + math.log10(spread + 0.001))
            oscillation = depth * math.exp(0.67756080 * len(turns) - 8.05533303)
            oscillation = clip(oscillation, 0, 1.5)
        adaptation = clip(0.17332553 * spread * rate - 0.01035647, 0, 0.5)
    return bias, oscillation, adaptation


def session(audio, video, events):
    both = [audiovisual(a, v) for a, v in zip(audio, video, strict=True)]
    mean = baseline(both)
    return final(mean - sum(corrections(video, both, mean)), events, len(video))


def call(kbps, frame_rate, loss_percent, v):
    """G.1070 with v[0] = v1."""
    best_rate = clip(v[0] + v[1] * kbps, 1, 30)
    at_best = v[2] - v[2] / (1 + (kbps / v[3]) ** v[4])
    width = v[5] + v[6] * kbps
    distance = math.log(frame_rate) - math.log(best_rate)
    coding = clip(at_best * math.exp(-(distance**2) / (2 * width**2)), 0, 4)
    robust = v[9] + v[10] * math.exp(-frame_rate / v[7]) + v[11] * math.exp(-kbps / v[8])
    return 1 + coding * math.exp(-loss_percent / robust)


def gaming(delay, loss, slicing, mbps, frame_rate, pixels, c, s):
    """G.1072 with the 13 coefficients of a coding class and the 12 of a sensitivity class."""
    kept = frame_rate
    if delay >= 16:
        rate = 0.08526 + 0.00073 * frame_rate + 1.425e-4 * mbps * frame_rate
        kept = frame_rate * math.exp(-rate * (0.09656 * delay - 1.5) * loss)
    frozen = 100 * (frame_rate - kept) / frame_rate
    bits = mbps * 1e6 / (pixels * frame_rate)
    complexity = c[4] * math.exp(c[5] * bits) + c[6]
    coding = clip(c[0] * math.exp(c[1] * bits) + c[2] * complexity + c[3], 0, 65)
    magnitude = max(c[9] - coding, 0) * slicing / (coding * c[10] + slicing) if slicing else 0.0
    breaking = c[7] * math.log1p(c[8] * c[11] * math.expm1(c[12] * magnitude))
    temporal = s[0] + s[1] * frame_rate**2 + s[2] * frame_rate + s[3] * math.log(1 + frozen)
    frames = s[4] + s[5] * frame_rate**2 + s[6] * frame_rate + s[7] * math.log(1 + frozen)
    reaction = clip(s[8] / (1 + math.exp(s[9] - s[10] * delay)) + s[11], 0, 68.98)
    rating = 100 - 0.788 * coding - 0.896 * breaking - 0.227 * clip(temporal, 0, 61.29)
    rating = clip(rating - 0.625 * clip(frames, 0, 68.98) - 0.848 * reaction, 0, 78.49)
    mos = 1.3 + 3.34 * rating / 100 + rating * (rating - 60) * (100 - rating) * 7e-6
    return clip(mos, 1.3, 4.64)


def cole_rosenbluth(delay, loss_ratio, a, b, c):
    late = 0.024 * delay + (0.11 * (delay - 177.3) if delay > 177.3 else 0.0)
    r = 94.2 - late - a - b * math.log(1 + c * loss_ratio)
    if r <= 0:
        return 1.0
    return max(1.0, 1 + 0.035 * r + r * (r - 60) * (100 - r) * 7e-6)


def late_ratio(delays, weights, buffer):
    arrived = [(d, w) for d, w in zip(delays, weights, strict=True) if w > 0]
    if not arrived:
        return 0.0
    least = min(d for d, _ in arrived)
    return sum(w for d, w in arrived if d - least > buffer) / sum(w for _, w in arrived)


def delivered(delays, losses, packets, budget):
    sent = good = 0.0
    for delay, loss, number in zip(delays, losses, packets, strict=True):
        sent += number
        good += number * (1 - loss) if delay <= budget else 0.0
    return good / sent if sent else 1.0


def mean_age(sent, delays, arrived, until, steps=200_000):
    """By brute force on a fine grid of times."""
    times = (np.arange(steps) + 0.5) * until / steps
    newest = np.zeros(steps)
    for at, delay, seen in zip(sent, delays, arrived, strict=True):
        if seen:
            newest = np.where(times >= at + delay, np.maximum(newest, at), newest)
    return float(np.mean(times - newest))
