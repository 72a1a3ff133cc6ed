"""Contenders fitted once for all studies: what each said of the test rows is kept.

Fits lie in ``fits`` beside the studies' own folders, named by all that decides them. Less work is
fewer training rows and then fewer rounds, for every contender alike.
"""

import io
import logging
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from qoejax.data import table
from qoejax.data.builders.simulated_iot.simulated_iot_dataset_builder import SETTINGS
from qoejax.run import baselines, build, files, study, tables
from qoejax.run.baselines import CONTENDERS, Contender, Problem, Said
from qoejax.run.errors import RunError

LOG = logging.getLogger("qoejax")

SIMULATED = "simulated_iot/small"
LEAST_ROWS = 2000
"""Training rows that less work never goes below, where there are as many."""

LEAST_ROUNDS = 3
AHEAD_S = 3
"""A score so many seconds ahead counts as a forecast: one second ahead persistence has won."""


class Task(NamedTuple):
    """A dataset, how the hybrid learns it in one place, and which test rows belong together."""

    name: str
    config: ml_collections.ConfigDict
    data: build.Data
    block: np.ndarray  # [N]: the episode of each test row, or the row itself
    sections: Mapping[str, Any] = {}  # what ``task`` was given

    @property
    def problem(self) -> Problem:
        """What contenders learn from."""
        return Problem(self.config, self.data.spec, self.data.train)


def forecasting(contender: Contender) -> Contender:
    """The same contender, taught only the scores of ``services``, since it fits each apart."""

    def fit(problem: Problem, settings: Mapping[str, Any], seed: int) -> baselines.Predict:
        ahead = np.isin(np.arange(problem.rows.mos.shape[1]), services(problem.spec))
        rows = problem.rows._replace(mos_mask=problem.rows.mos_mask & ahead)
        return contender.fit(problem._replace(rows=rows), settings, seed)

    return Contender(fit, contender.space)


def shuffled(contender: Contender) -> Contender:
    """The same contender, its training labels permuted."""

    def fit(problem: Problem, settings: Mapping[str, Any], seed: int) -> baselines.Predict:
        order = np.random.default_rng((seed, 7)).permutation(len(problem.rows.label))
        rows = problem.rows._replace(label=problem.rows.label[order])
        return contender.fit(problem._replace(rows=rows), settings, seed)

    return Contender(fit, contender.space)


EXTRA: dict[str, Contender] = {
    "qoenet_shuffled": shuffled(CONTENDERS["qoenet"]),
    "boosting_ahead": forecasting(CONTENDERS["histogram_boosting"]),
}
"""Contenders that only a study needs."""


def contender(name: str) -> Contender:
    """A contender of ``baselines`` or of ``EXTRA``."""
    return EXTRA[name] if name in EXTRA else CONTENDERS[name]


def prepared(context: study.Context) -> list[str]:
    """Datasets of ``context.configs`` whose rows are there; the simulated one can always be."""
    return [
        name
        for name in context.configs
        if name == SIMULATED
        or any(pathlib.Path(context.data_dir, name).glob("*/dataset_info.json"))
    ]


def config(context: study.Context, name: str, **sections: Mapping[str, Any]) -> Any:
    """A fresh copy of a dataset's config, which reads from ``context.data_dir``; overrides keys.

    Raises:
      RunError: no config is known for the dataset.
    """
    if name not in context.configs:
        raise RunError(f"no config is known for {name}: expected {', '.join(context.configs)}")
    c = build.from_plain(build.plain_config(context.configs[name]))
    c.data.dir = context.data_dir
    for section, values in sections.items():
        c[section].update(values)
    return c


def task(context: study.Context, name: str, **sections: Mapping[str, Any]) -> Task:
    """A dataset at the context's scale; ``sections`` override keys of its config."""
    c = config(context, name, **sections)
    data = build.data(c)
    rows, share = smaller(context.scale, len(data.train.label))
    c.fed.rounds = study.scaled(share, c.fed.rounds, LEAST_ROUNDS)
    if rows < len(data.train.label):
        c.data.max_rows = rows
        data = build.data(c)
    return Task(name, c, data, _blocks(c, data), sections)


def smaller(scale: float, rows: int) -> tuple[int, float]:
    """Training rows and the share of the rounds, whose product is ``scale`` of the work."""
    kept = min(rows, study.scaled(3 * scale, rows, LEAST_ROWS))
    return kept, min(1.0, scale * rows / kept)


def _blocks(config: ml_collections.ConfigDict, data: build.Data) -> np.ndarray:
    """Test rows of one episode, which are no independent evidence, share a number."""
    count, each = len(data.test.label), SETTINGS.examples()
    simulated = config.data.name.startswith("simulated_iot/") and config.data.split == "prepared"
    if not simulated:
        return np.arange(count)
    if count % each:
        raise RunError(f"{config.data.name}: {count} test rows are not episodes of {each} rows")
    return np.arange(count) // each


def said(
    context: study.Context,
    task: Task,
    name: str,
    seed: int,
    settings: Mapping[str, Any] | None = None,
) -> Said:
    """What a contender says of the test rows after one fit, or what it said before."""
    folder, settings = context.folder.parent / "fits", dict(settings or {})
    seed = _that_matters(name, seed, settings)
    work = _fit(task, name, seed, settings)
    path = study.kept(folder, work).with_suffix(".npz")

    def compute() -> dict[str, Any]:
        start = time.perf_counter()
        predict = contender(name).fit(task.problem, settings, seed)
        middle = time.perf_counter()
        out = predict(task.data.test)
        buffer = io.BytesIO()
        np.savez(buffer, **{k: np.float32(v) for k, v in out._asdict().items() if v is not None})  # type: ignore[arg-type]
        files.write_bytes(path, buffer.getvalue())
        seconds = middle - start
        LOG.info("%s: %s, seed %d: %.1f s", task.name, name, seed, seconds)
        return {"seconds": seconds, **baselines.judge(out, task.data.test, task.data.spec)}

    study.once(folder, work, compute)
    try:
        with np.load(path, allow_pickle=False) as kept:
            return Said(*(kept[k] if k in kept.files else None for k in Said._fields))
    except (OSError, ValueError) as e:
        raise RunError(f"{path} cannot be read as a kept fit ({e}): delete {folder}") from None


def _that_matters(name: str, seed: int, settings: Mapping[str, Any]) -> int:
    """The seed, or 0 where a fit draws nothing, so that one serves for all."""
    return seed if contender(name).seeded(settings) else 0


def _fit(task: Task, name: str, seed: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The unit of work of a fit."""
    return {
        "fit": name, "dataset": task.name, "seed": seed, "settings": settings,
        "config": build.plain_config(task.config),
    }  # fmt: skip


def all_seeds(
    context: study.Context, task: Task, name: str, settings: Mapping[str, Any] | None = None
) -> list[Said]:
    """``said`` of every seed of the context."""
    return [said(context, task, name, seed, settings) for seed in range(context.seeds)]


def ahead(
    context: study.Context, task: Task, wanted: Sequence[tuple[str, int, Mapping[str, Any]]]
) -> None:
    """Fits that will be asked for, side by side: name, number of seeds, settings.

    Seed by seed, so that what processes compile at a time differs and later seeds find it compiled.
    """
    folder = context.folder.parent / "fits"
    jobs = {
        study.kept(folder, _fit(task, name, own, settings)): (name, own, settings)
        for seed in range(max(seeds for _, seeds, _ in wanted))
        for name, seeds, settings in wanted
        for own in [_that_matters(name, seed, settings)]
        if seed < seeds
    }
    missing = [job for path, job in jobs.items() if not path.exists()]
    side_by_side(context, task, said, missing)


def tuned_ahead(context: study.Context, task: Task, names: Sequence[str], trials: int) -> None:
    """``tuned`` of each, side by side."""
    side_by_side(context, task, tuned, [(name, trials) for name in names])


def side_by_side(
    context: study.Context, task: Task, work: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]
) -> None:
    """``study.side_by_side`` of ``work(context, task, *job)``; a process reads a task once."""
    own = [(task.name, dict(task.sections), work, job) for job in jobs]
    study.side_by_side(context, _again, own)


_LATEST: dict[str, Task] = {}
"""Of this process, so that it reads the rows of a task once; no more than one."""


def _again(
    context: study.Context, name: str, sections: dict[str, Any], work: Any, job: tuple[Any, ...]
) -> None:
    """``work(context, task, *job)`` in another process."""
    config = files.dumps(build.plain_config(context.configs[name]), sort=True)
    key = files.dumps([context.data_dir, context.scale, name, sections, config])
    if key not in _LATEST:
        _LATEST.clear()
        _LATEST[key] = task(context, name, **sections)
    work(context, _LATEST[key], *job)


def tuned(context: study.Context, task: Task, name: str, trials: int) -> dict[str, Any]:
    """The settings of the best of ``trials`` on a fifth of the training rows, kept."""
    work = {"tuned": name, "trials": trials, "config": build.plain_config(task.config)}

    def compute() -> dict[str, Any]:
        start = time.perf_counter()
        seed = tables.seed(task.config)
        settings, value = baselines.tuned(contender(name), task.problem, trials, 0.2, seed)
        LOG.info("%s: %s tuned in %.1f s", task.name, name, time.perf_counter() - start)
        return {"settings": settings, "value": value}

    return study.once(context.folder.parent / "fits", work, compute)["settings"]


def services(spec: table.Spec, least_horizon: int = AHEAD_S, scale: str = "") -> list[int]:
    """Indices of the services so many seconds ahead, of one scale if named."""
    return [
        q
        for q, (s, now) in enumerate(zip(spec.services, table.persistence(spec), strict=True))
        if now is not None and (s.horizon_s or 0) >= least_horizon and scale in ("", s.scale)
    ]
