"""Rounds as people read them: how many at a time, what is due when, rows of metrics.jsonl."""

from collections.abc import Iterator
from typing import Any

import ml_collections


def due(step: int, every: int, end: int) -> bool:
    """Whether something done ``every`` so many rounds, and at the ``end``, is due."""
    return step % every == 0 or step == end


def blocks(config: ml_collections.ConfigDict, first: int, end: int) -> Iterator[int]:
    """Sizes of the blocks to come; they end where something is due, whatever they began at."""
    done = first
    every = (config.perf.rounds_per_dispatch, config.evaluation.every, config.checkpoint.every)
    while done < end:
        n = min([e - done % e for e in every] + [end - done])
        yield n
        done += n


def row(number: int, sums: dict[str, Any], seconds: float, several: bool) -> dict[str, Any]:
    """A round's sums as ratios; accuracy only where there are ``several`` classes."""
    s = {k: float(v) for k, v in sums.items()}
    per = lambda a, b: s[a] / s[b] if s.get(b) else None  # noqa: E731
    mse = per("mos_se", "mos_count")
    return {
        "round": number,
        "loss": per("loss_sum", "count"),
        "accuracy": per("correct", "count") if several else None,
        "mos_rmse": None if mse is None else mse**0.5,
        "clients": int(s["clients"]),
        "refused": int(s["refused"]),
        "absent": int(s["absent"]),
        "examples": int(s["count"]),
        "seconds": round(seconds, 6),
    }


def line(row: dict[str, Any]) -> str:
    """A row in a few words."""
    known = row["loss"] is not None  # not where clients in other processes keep it to themselves
    parts = [f"loss {row['loss']:.4f}" if known else f"{row['clients'] or 'no'} client(s)"]
    parts += [f"{k} {v:.4f}" for k, v in row.get("test", {}).items() if isinstance(v, float)]
    return ", ".join(parts)
