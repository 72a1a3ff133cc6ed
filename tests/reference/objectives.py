"""NumPy re-implementations of losses and metrics, by loops."""

import numpy as np


def softmax(logits):
    e = np.exp(np.asarray(logits, np.float64) - np.max(logits))
    return e / e.sum()


def class_loss(logits, label, smoothing=0.0, gamma=0.0):
    p = softmax(logits)
    total = 0.0
    for c in range(len(p)):
        target = (1 - smoothing) * (c == label) + smoothing / len(p)
        total -= target * (1 - p[c]) ** gamma * np.log(p[c])
    return total


def two_hot(mos, bins):
    grid = np.linspace(1, 5, bins)
    out = np.zeros(bins)
    mos = min(max(mos, 1), 5)
    low = min(int((mos - 1) / (grid[1] - grid[0])), bins - 2)
    share = (mos - grid[low]) / (grid[1] - grid[0])
    out[low], out[low + 1] = 1 - share, share
    return out


def rps(logits, mos):
    p, t = softmax(logits), two_hot(mos, len(logits))
    step = 4 / (len(p) - 1)
    return sum((p[: m + 1].sum() - t[: m + 1].sum()) ** 2 * step for m in range(len(p) - 1))


def two_hot_cross_entropy(logits, mos):
    return -np.sum(two_hot(mos, len(logits)) * np.log(softmax(logits)))


def objective(out, batch, class_weight, mos_loss, mos_weight):
    """Loss and sums of a batch with fixed task weights and plain cross-entropy."""
    sums = dict.fromkeys(
        ("loss_sum", "count", "class_loss_sum", "correct", "class_count", "mos_loss_sum",
         "mos_se", "mos_ae", "mos_count"), 0.0,
    )  # fmt: skip
    for i, w in enumerate(batch.weight):
        loss, label = 0.0, batch.label[i]
        if label >= 0:
            term = class_weight[label] * class_loss(out["logits"][i], label)
            loss += term
            sums["class_loss_sum"] += w * term
            sums["class_count"] += w
            sums["correct"] += w * (np.argmax(out["logits"][i]) == label)
        rated = [q for q in range(batch.mos.shape[1]) if batch.mos_mask[i, q]]
        for q in rated:
            logits, mos = out["mos"][i, q], batch.mos[i, q]
            term = mos_loss(logits, mos)
            loss += mos_weight * term / len(rated)
            error = softmax(logits) @ np.linspace(1, 5, len(logits)) - mos
            sums["mos_loss_sum"] += w * term
            sums["mos_se"] += w * error**2
            sums["mos_ae"] += w * abs(error)
            sums["mos_count"] += w
        sums["loss_sum"] += w * loss
        sums["count"] += w * (label >= 0 or bool(rated))
    return sums["loss_sum"] / sums["count"], sums


def ece(probability, label, bins=15):
    total = 0.0
    confidence, pred = probability.max(1), probability.argmax(1)
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            gap = (pred == label)[inside].mean() - confidence[inside].mean()
            total += inside.sum() / len(label) * abs(gap)
    return total
