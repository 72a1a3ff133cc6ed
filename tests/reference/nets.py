"""NumPy re-implementations of the nets' parts, by loops."""

import itertools

import numpy as np


def conv1d(x, kernel, bias, stride, padding):
    """x [L, A], kernel [k, A, D] -> [N, D]: cross-correlation, zeros outside."""
    length, taps = x.shape[0], kernel.shape[0]
    if padding == "SAME":
        count = -(-length // stride)
        before = max((count - 1) * stride + taps - length, 0) // 2
    else:
        count, before = (length - taps) // stride + 1, 0
    out = np.tile(bias.astype(np.float64), (count, 1))
    for n in range(count):
        for t in range(taps):
            at = n * stride + t - before
            if 0 <= at < length:
                out[n] += x[at] @ kernel[t]
    return out


def attention(q, k, v, causal):
    """One head: [N, A] each."""
    out = np.zeros_like(v)
    for i in range(len(q)):
        last = i + 1 if causal else len(k)
        weight = np.exp([q[i] @ k[j] / np.sqrt(q.shape[1]) for j in range(last)])
        out[i] = sum(w * v[j] for j, w in enumerate(weight / weight.sum()))
    return out


def layer(h, kernel, bias):
    """h [F, A], kernel [F, A, E] -> [F, E]: each feature's own ReLU layer."""
    return np.stack([np.maximum(h[f] @ kernel[f] + bias[f], 0) for f in range(len(h))])


def ramps(value, knots):
    """Piecewise-linear encoding of one scalar; the outer components go on beyond the knots."""
    out = [(value - a) / (b - a) for a, b in itertools.pairwise(knots)]
    return np.array(
        [
            r if len(out) == 1 else min(r, 1) if i == 0
            else max(r, 0) if i == len(out) - 1 else min(max(r, 0), 1)
            for i, r in enumerate(out)
        ]
    )  # fmt: skip


def waves(value, frequency):
    """Sines, then cosines, of one scalar."""
    angle = 2 * np.pi * frequency * value
    return np.concatenate([np.sin(angle), np.cos(angle)])
