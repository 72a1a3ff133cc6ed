"""The same rounds in the clear, sealed and signed, and as masked sums: what protection costs."""

import concurrent.futures
import contextlib
import multiprocessing
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from qoejax.fed import ring
from qoejax.run import build, cache, files, plots, train
from qoejax.run.checkpoint import Checkpoints
from qoejax.run.studies import draw, fits
from qoejax.run.study import FAILS, HOLDS, Context, Outcome, once, scaled
from qoejax.run.writer import read_rows

ROUNDS = 8
STEPS = {"pqc": None, "secagg": 1}
"""Rounds after which parameters are compared, None for all: rounding of sums grows chaotically."""

LIMIT = 0.10
"""Of a round's time, in which nothing but protection goes on."""


class Cost(NamedTuple):
    """Of a mode: largest difference of parameters and its bound, share of time, loss."""

    difference: float  # to the same rounds in the clear
    bound: float
    share: float  # median over rounds after the first, of time waited
    macro_f1: float
    slower: float  # seconds of a round over those in the clear


def judge(found: dict[str, Cost], plain: float) -> tuple[str, str]:
    """Differences within their bounds, and less than a tenth of a round waited."""
    text = "; ".join(
        f"{mode}: parameters differ by {c.difference:.2g} (allowed {c.bound:.2g}), {c.share:.1%} "
        f"of the round waited, rounds {c.slower:.2f} times as long with clients and server on one "
        f"machine, macro-F1 {c.macro_f1 - plain:+.4f}"
        for mode, c in found.items()
    )
    passed = all(c.difference <= c.bound and c.share < LIMIT for c in found.values())
    return HOLDS if passed else FAILS, text


def study(context: Context) -> Outcome:
    """See ``claims.CLAIMS``."""
    rounds = scaled(context.scale, ROUNDS, 3)
    spawn, begin = multiprocessing.get_context("spawn"), cache.keep_compiled
    with concurrent.futures.ProcessPoolExecutor(1, spawn, initializer=begin) as process:
        runs = {mode: _run(context, process, mode, rounds) for mode in ("none", *STEPS)}
    plain = runs["none"]
    found = {
        mode: Cost(
            _difference(context, mode, rounds if step is None else step, rounds),
            runs[mode]["bound"], runs[mode]["share"], runs[mode]["macro_f1"],
            runs[mode]["seconds"] / plain["seconds"],
        )
        for mode, step in STEPS.items()
    }  # fmt: skip
    rows = [
        {
            "exchange": mode, "rounds": rounds, "macro-F1": run["macro_f1"],
            "bytes up a client and round": run["bytes_up"],
            "seconds a round": run["seconds"],
            "share of the round waited": run["share"],
        }
        for mode, run in runs.items()
    ]  # fmt: skip
    shown = {mode: (run["seconds"], 0.0) for mode, run in runs.items()}
    plots.save(draw.bars(shown, "seconds a round (median)"), context.folder / "protection.png")
    return Outcome(*judge(found, plain["macro_f1"]), rows, ["protection.png"])


def _difference(context: Context, mode: str, step: int, rounds: int) -> float:
    """Largest absolute difference of the parameters after ``step`` rounds to those in the clear."""
    one, other = (_params(_workdir(context, m, rounds), step, rounds) for m in (mode, "none"))
    gaps = jax.tree.map(lambda a, b: np.abs(a.astype(float) - b).max(), one, other)
    return float(max(jax.tree.leaves(gaps)))


def _params(workdir: pathlib.Path, step: int, rounds: int) -> Any:
    """Parameters of a run after ``step`` of its rounds."""
    with contextlib.closing(Checkpoints(workdir / "checkpoints", rounds)) as kept:
        return kept.params(step)


def _workdir(context: Context, mode: str, rounds: int) -> pathlib.Path:
    return context.folder / f"{mode}-{rounds}-{context.scale:g}"


def _run(
    context: Context, process: concurrent.futures.Executor, mode: str, rounds: int
) -> dict[str, Any]:
    """A training in another process, kept with its workdir."""
    c = fits.config(context, fits.SIMULATED)
    c.fed.update(algorithm="fedavg", rounds=rounds)
    c.client.schedule = "constant"
    c.exchange.mode = mode
    c.evaluation.every = rounds
    c.checkpoint.update(every=1, keep=rounds)  # not counted in a round's seconds
    c.perf.rounds_per_dispatch = 1  # as the wire has it
    plain = build.plain_config(c)
    work = {"exchange": mode, "rounds": rounds, "config": plain}
    workdir = _workdir(context, mode, rounds)

    return once(context.folder, work, lambda: process.submit(_train, plain, str(workdir)).result())


def _train(plain: dict[str, Any], workdir: str) -> dict[str, Any]:
    """Runs in the other process, which has the devices that the config asks for."""
    config, where = build.from_plain(plain), pathlib.Path(workdir)
    train.train(config, where)
    rows = read_rows(where / "metrics.jsonl")
    later = rows[1:] or rows  # the first compiles
    wired = [r["wire"] for r in later if "wire" in r]
    found = files.read_json(where / "evaluation.json", "the metrics of a run")
    count = files.read_json(where / "data.json", "the rows of a run")["clients"]["rows"]
    clipped = sum(r["wire"].get("clipped", 0) for r in rows if "wire" in r)
    return {
        "macro_f1": found["macro_f1"],
        "seconds": float(np.median([r["seconds"] for r in later])),
        "share": float(np.median([w["share"] for w in wired])) if wired else 0.0,
        "bytes_up": float(np.median([w["client"]["bytes_up"] for w in wired])) if wired
        else float(rows[0]["update_bytes"]),
        "bound": _bound(config, count, where, clipped) if config.exchange.mode == "secagg" else 0.0,
    }  # fmt: skip


def _bound(config: Any, count: list[int], workdir: pathlib.Path, clipped: int) -> float:
    """How far masked sums of one round may move a parameter; 0 if anything was clipped.

    ``ring.error`` of the mean, and float32 rounding where parameters are added up.
    """
    if clipped:
        return 0.0
    heaviest, total = float(max(count)), float(sum(count))
    fitted = ring.fit(config.exchange.clip, heaviest, len(count))
    params = jax.tree.leaves(_params(workdir, 1, config.fed.rounds))
    largest = max(float(np.abs(leaf).max()) for leaf in params)
    return ring.error(fitted, len(count), total, config.exchange.clip) + 2.0**-22 * largest
