"""``config.perf`` by measurement: short rounds of the run's own engine, and the answer kept.

Only ``perf.client_axis``, ``perf.chunk`` and ``perf.rounds_per_dispatch`` are ever chosen: knobs
that change results by rounding at most. A run records its choice and keeps it when resumed.
"""

import hashlib
import logging
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import ml_collections

from qoejax import trees
from qoejax.fed import tuning
from qoejax.fed.engine import Engine
from qoejax.run import cache, files
from qoejax.run.errors import RunError
from qoejax.types import Examples, Params

LOG = logging.getLogger("qoejax")

AUTO = "auto"
ROUNDS = 3
"""Timed rounds of a candidate, of which the fastest counts."""

TUNED = ("client_axis", "chunk", "devices", "rounds_per_dispatch", "tune_seconds")
"""Keys of ``perf`` that are chosen, or say how; others belong to the question."""

KEYS = {
    "fed": ("algorithm", "weight", "option", "personal"),
    "client": ("optimizer", "batch"),
    "server": ("optimizer", "aggregator", "byzantine"),
    "attack": ("name",),
    "privacy": ("mechanism", "microbatch"),
    "compress": ("method", "feedback"),
}
"""Further keys of the config, beside the whole model, that a cached answer is for."""

STEPS = 4
"""Mean local steps of a client in a timed round; all clients do the same share of theirs."""


class Trial(NamedTuple):
    """What can be timed.

    ``engine(config)`` makes the engine of short rounds, and says what share of a round's steps
    clients do in them. ``facts`` are what else the answer depends on.
    """

    engine: Callable[[ml_collections.ConfigDict], tuple[Engine, float]]
    params: Params
    examples: Examples
    cohort: int
    facts: dict[str, Any]


def wanted(config: ml_collections.ConfigDict) -> bool:
    """Whether anything is left to measurement."""
    return config.perf.client_axis == AUTO or config.perf.rounds_per_dispatch == 0


def _check_recorded(record: dict[str, Any]) -> None:
    """Refuses to go on with a choice that was made for other devices."""
    here = len(jax.devices())
    if record["devices"] != here:
        raise RunError(
            f"config.perf was chosen by measurement for {record['devices']} device(s), but "
            f"{here} are there: expected the same number, or another workdir"
        )


def resolve(
    config: ml_collections.ConfigDict,
    make_trial: Callable[[], Trial],
    record: dict[str, Any] | None = None,
    fresh: bool = False,
) -> tuple[ml_collections.ConfigDict, dict[str, Any] | None]:
    """The config with nothing left to choose, and how it was chosen for ``manifest.json``.

    Args:
      config: Of the run.
      make_trial: Makes what to time.
      record: What the run recorded when it began; it is taken as it is.
      fresh: Measure although the cache knows the answer.

    Raises:
      RunError: no candidate runs; several processes, which would choose each for itself.
    """
    if not wanted(config):
        return config, None
    if record is None:
        if jax.process_count() > 1:
            raise RunError(
                f"config.perf.client_axis is {config.perf.client_axis!r} and rounds_per_dispatch "
                f"{config.perf.rounds_per_dispatch}, but {jax.process_count()} processes would "
                "each measure for themselves: expected a mode and a number above 0"
            )
        record = _record(config, make_trial(), fresh)
    _check_recorded(record)
    return _chosen(config, record), record


def _chosen(config: ml_collections.ConfigDict, record: dict[str, Any]) -> ml_collections.ConfigDict:
    resolved = ml_collections.ConfigDict(config.to_dict())
    choice = record["choice"]
    resolved.perf.update({k: choice[k] for k in ("client_axis", "chunk", "rounds_per_dispatch")})
    return resolved.lock()


def recorded(
    config: ml_collections.ConfigDict, record: dict[str, Any]
) -> ml_collections.ConfigDict:
    """The config that names what another run of it has measured; nothing is left open."""
    resolved = _chosen(config, record).copy_and_resolve_references()
    resolved.perf.devices = record["cpu_devices"]
    return resolved


def _record(config: ml_collections.ConfigDict, trial: Trial, fresh: bool) -> dict[str, Any]:
    options = _options(config, trial)
    key = _key(config, trial, options)
    name = hashlib.sha256(files.dumps(key).encode()).hexdigest()[:24]
    where = cache.folder()
    path = None if where is None else where / "tuned" / f"{name}.json"
    found = None if fresh or path is None else _read(path, options)
    if found is None:
        found = measure(config, trial, options)
        if path is not None:
            _write(path, {"key": key, "candidates": found})
        source = "measured"
    else:
        source = f"cache {path}"
    number = tuning.best([row["seconds"] for row in found])
    seconds = found[number]["seconds"]
    rounds = config.perf.rounds_per_dispatch or tuning.rounds_per_dispatch(
        seconds, (config.evaluation.every, config.checkpoint.every)
    )
    choice = options[number]._asdict() | {"rounds_per_dispatch": rounds}
    LOG.info("tuned (%s): %s", source, ", ".join(f"{k} {v}" for k, v in choice.items()))
    return {
        "choice": choice, "round_seconds": seconds, "source": source,
        "devices": len(jax.devices()), "candidates": found,
        "cpu_devices": len(jax.devices()) if jax.default_backend() == "cpu" else 1,
    }  # fmt: skip


def _options(config: ml_collections.ConfigDict, trial: Trial) -> list[tuning.Candidate]:
    devices = jax.devices()
    if config.perf.client_axis == AUTO:
        return tuning.candidates(devices[0].platform, len(devices), trial.cohort)
    mesh = len(devices) if config.perf.client_axis == "shard" else 1
    return [tuning.Candidate(config.perf.client_axis, config.perf.chunk, mesh)]


def _key(
    config: ml_collections.ConfigDict, trial: Trial, options: list[tuning.Candidate]
) -> dict[str, Any]:
    """All that the fastest way may depend on."""
    chosen = {
        f"{part}.{name}": config[part][name] for part, names in KEYS.items() for name in names
    }
    others = {k: v for k, v in config.perf.to_dict().items() if k not in TUNED}
    return {
        "config": {"model": config.model.to_dict(), "perf": others, **chosen},
        "params": {name: leaf.shape for name, leaf in trees.named_leaves(trial.params)},
        "row": trial.examples.x.shape[1:],
        "cohort": trial.cohort,
        **trial.facts,
        "candidates": options,
        "devices": [d.device_kind for d in jax.devices()],
        "cores": os.cpu_count(),
        "jax": jax.__version__,
    }


def measure(
    config: ml_collections.ConfigDict, trial: Trial, options: list[tuning.Candidate]
) -> list[dict[str, Any]]:
    """Seconds of a whole round by candidate, until ``perf.tune_seconds`` are over.

    The first is timed in any case, and no later one once the time is over. ``seconds`` is None
    where a candidate was not tried, or did not fit into memory; ``note`` says which.
    """
    end = time.monotonic() + config.perf.tune_seconds
    rows = []
    for i, option in enumerate(options):
        row: dict[str, Any] = {**option._asdict(), "seconds": None, "compile_seconds": None}
        if i and time.monotonic() > end:
            rows.append(row | {"note": "not tried: over config.perf.tune_seconds"})
            continue
        trial_config = ml_collections.ConfigDict(config.to_dict())
        trial_config.perf.update(client_axis=option.client_axis, chunk=option.chunk)
        try:
            engine, share = trial.engine(trial_config)
            first, fastest = _time(engine, trial, end)
        except jax.errors.JaxRuntimeError as e:
            if "RESOURCE_EXHAUSTED" not in str(e):
                raise
            rows.append(row | {"note": "out of device memory"})
            continue
        seconds = fastest / share
        rows.append(row | {"seconds": seconds, "compile_seconds": max(first - fastest, 0.0)})
        LOG.info("tuning: %s: %.4g s a round", _name(option), seconds)
    if all(row["seconds"] is None for row in rows):
        raise RunError(
            "config.perf: no way to run the clients fits into the device's memory; expected a "
            f"smaller model or batch (tried {', '.join(_name(o) for o in options)})"
        )
    return rows


def _name(option: tuning.Candidate) -> str:
    return f"{option.client_axis} {option.chunk} on {option.devices} device(s)"


def _time(engine: Engine, trial: Trial, end: float) -> tuple[float, float]:
    """Seconds of the first round, with compilation, and of the fastest after it."""
    examples = engine.place(trial.examples)
    state, key = engine.init(trial.params), jax.random.key(0)
    seconds: list[float] = []
    while len(seconds) < 2 or (len(seconds) <= ROUNDS and time.monotonic() < end):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(engine.block(state, examples, key, 1))
        seconds.append(time.perf_counter() - start)
    return seconds[0], min(seconds[1:])


def _read(path: pathlib.Path, options: list[tuning.Candidate]) -> list[dict[str, Any]] | None:
    """The cached candidates, or None; what cannot be read is said and left out."""
    if not path.exists():
        return None
    try:
        rows = files.read_json(path, "a cached measurement")["candidates"]
        tried = [tuning.Candidate(**{k: row[k] for k in tuning.Candidate._fields}) for row in rows]
        ran = [row["seconds"] for row in rows if row["seconds"] is not None]
        if tried != options or not ran or not all(seconds > 0 for seconds in ran):
            raise ValueError("it holds other candidates, or none that ran")
    except (RunError, KeyError, TypeError, ValueError) as e:
        LOG.warning("the cached measurement %s is ignored and made anew: %s", path, e)
        return None
    return rows


def _write(path: pathlib.Path, value: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.write_json(path, value)
    except OSError as e:
        LOG.warning("the measurement is not cached: %s: %s", path, e.strerror or e)
