"""What an experiment behind a claim is given, and what it answers.

A study is ``run(context) -> Outcome``. It keeps each unit of work (one fit of one contender with
one seed, say) by ``once``, so a run that stopped goes on where it was, and it scales that work by
``context.scale``. Units of work name all that decides their result.
"""

import concurrent.futures
import hashlib
import logging
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

from qoejax.run import files
from qoejax.run.errors import RunError

LOG = logging.getLogger("qoejax")

HOLDS, FAILS, UNTESTED = "holds", "fails", "not testable here"
VERDICTS = (HOLDS, FAILS, UNTESTED)


class Context(NamedTuple):
    """What a study may use."""

    data_dir: str  # prepared datasets; what is missing and can be simulated is prepared
    folder: pathlib.Path  # the study's own; units of work are kept in it
    seeds: int  # fits of each thing that is compared
    scale: float  # 1 as published; below it, proportionally less work
    configs: Mapping[str, Any] = {}  # by dataset: how the hybrid is trained on it in one place
    pool: concurrent.futures.Executor | None = None  # processes for ``side_by_side``


class Outcome(NamedTuple):
    """What a study found."""

    verdict: str  # of VERDICTS
    reason: str  # one or two sentences with the figures that decide
    rows: Sequence[Mapping[str, Any]]  # a table; its columns are the keys, in order
    figures: Sequence[str] = ()  # PNG files in the study's folder
    shown: Sequence[str] = ()  # the columns that a page has room for; all if empty


def side_by_side(
    context: Context, work: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]
) -> None:
    """Does units of work in the processes of the context, if it has any.

    Args:
      context: Each process gets it without its pool.
      work: ``work(context, *job)`` keeps what it does, so that the same call here then finds it. A
        function of a module; ``either`` where jobs differ in it.
      jobs: Arguments of each call; they can be pickled.
    """
    if context.pool is None:
        return
    alone, futures = context._replace(pool=None), []
    try:
        futures = [context.pool.submit(work, alone, *job) for job in jobs]
        for done, future in enumerate(concurrent.futures.as_completed(futures), 1):
            future.result()
            LOG.info("%s: %d of %d done", context.folder.name, done, len(jobs))
    except concurrent.futures.BrokenExecutor as e:
        LOG.warning("%s: no processes any more (%s); going on in this one", context.folder.name, e)
    finally:
        for future in futures:
            future.cancel()


def either(context: Context, work: Callable[..., Any], *job: Any) -> Any:
    """``work(context, *job)``: different works, done side by side."""
    return work(context, *job)


def kept(folder: pathlib.Path, work: Mapping[str, Any]) -> pathlib.Path:
    """Where ``once`` keeps a unit of work."""
    text = files.dumps(work, sort=True)
    name = re.sub(r"[^A-Za-z0-9]+", "-", str(next(iter(work.values()), "work")))[:40]
    return folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def scaled(scale: float, full: int, least: int = 1) -> int:
    """So much of ``full`` work (rounds, contenders, scenes) as a scale pays for, or the least."""
    return max(least, round(min(1.0, scale) * full))


def seeds_of(context: Context, most: int) -> int:
    """Fits of each thing in a study that makes at most so many: one or more, as the scale pays."""
    return scaled(context.scale, min(context.seeds, most))


def once(folder: pathlib.Path, work: Mapping[str, Any], compute: Callable[[], Any]) -> Any:
    """``compute()``, or what it returned when this ``work`` was done before.

    Args:
      folder: Holds one JSON file a unit of work.
      work: What decides the result; JSON-able.
      compute: Its answer is JSON-able.

    Raises:
      RunError: a kept file is not what this function writes.
    """
    path = kept(folder, work)
    if path.exists():
        found = files.read_json(path, "a kept result of a study")
        if not isinstance(found, dict) or found.keys() != {"work", "result"}:
            raise RunError(f"{path}: expected the fields work and result; delete the file")
        if files.dumps(found["work"], sort=True) != files.dumps(work, sort=True):
            raise RunError(f"{path}: holds the result of other work; delete the file")
        return found["result"]
    result = files.plain(compute())
    files.write_json(path, {"work": work, "result": result})
    return result


def student(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval by Student's t; 0 for one value."""
    values = np.asarray(values, np.float64)
    n, mean = len(values), float(values.mean())
    return mean, float(scipy.stats.t.ppf(0.975, n - 1) * scipy.stats.sem(values)) if n > 1 else 0.0


def over_seeds(differences: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % interval by Student's t of paired differences of a few seeds, at least two."""
    mean, half = student(differences)
    return mean, mean - half, mean + half


def over_blocks(
    differences: Sequence[float] | np.ndarray, seed: int = 0
) -> tuple[float, float, float]:
    """Mean and 95 % percentile-bootstrap interval of paired differences of many units.

    Units are what was drawn independently: episodes, clients, blocks of rows. For fewer than about
    twenty the interval is too narrow; ``over_seeds`` is for those.
    """
    values = np.asarray(differences, np.float64)
    if np.ptp(values) == 0:
        return (float(values[0]),) * 3
    found = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=9999, method="percentile", rng=np.random.default_rng(seed)
    ).confidence_interval
    return float(values.mean()), float(found.low), float(found.high)
