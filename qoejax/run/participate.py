"""From ``config.participation`` to the clients of every round, and their simulated time."""

import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from qoejax import trees
from qoejax.data.cohort import steps_per_epoch
from qoejax.fed import buffered, devices, participation
from qoejax.fed.protocol import ClientUpdate, layout
from qoejax.run import algorithm, exchange, tables
from qoejax.run.choices import call, choose
from qoejax.run.errors import RunError
from qoejax.types import Cohort, Examples

SAMPLING = ("weighted", *participation.SAMPLINGS)
MODES = ("rounds", "buffered")
OFF = {
    "sampling": "uniform", "trace": "always", "dropout": 0.0, "stragglers": 0.0, "mode": "rounds",
    "devices": "none", "deadline": 0.0,
}  # fmt: skip
"""What every client always being there, and doing all its work, looks like."""


class Fleet(NamedTuple):
    """The devices of a simulated population."""

    mix: tuple[devices.Kind, ...]
    kinds: np.ndarray  # [P]
    load: devices.Load
    deadline: float
    schedule: participation.Schedule | None

    def row(self, number: int, cohort: Cohort) -> dict[str, Any]:
        """Simulated seconds and bytes of round ``number`` (from 0), for metrics.jsonl."""
        out = devices.cost(self.mix, self.kinds, cohort, self.load, self.deadline)
        if self.schedule is not None:
            end = self.schedule.seconds
            out["seconds"] = float(end[number] - (end[number - 1] if number else 0.0))
        return out


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses what cannot work, before data are read.

    Raises:
      RunError: names the key, its value, the reason and what to change.
    """
    p = config.participation
    choose(dict.fromkeys(SAMPLING), p.sampling, "participation.sampling")
    choose(dict.fromkeys(MODES), p.mode, "participation.mode")
    choose({"none": (), **devices.MIXES}, p.devices, "participation.devices")
    if not p.trace.endswith(".npy"):
        choose({"always": None, **participation.TRACES}, p.trace, "participation.trace")
    if p.deadline < 0 or (p.deadline and p.devices == "none"):
        raise RunError(
            f"config.participation.deadline is {p.deadline} with devices {p.devices!r}: expected "
            "0, or more than 0 and a mix of devices, whose times it limits"
        )
    if config.fed.algorithm == "centralised" and (keys := used(config)):
        raise RunError(
            f"config.participation.{keys[0]} is {p[keys[0]]!r}, but centralised training has one "
            f"client that is always there: expected {OFF[keys[0]]!r}"
        )
    _check_sampling(config)
    if p.mode == "buffered":
        _check_buffered(config)


def used(config: ml_collections.ConfigDict) -> list[str]:
    """Keys of ``participation`` that are not ``OFF``."""
    return [key for key, off in OFF.items() if config.participation[key] != off]


def _check_sampling(config: ml_collections.ConfigDict) -> None:
    p, private = config.participation, config.privacy.mechanism
    if p.sampling in ("poisson", "cyclic") and p.trace != OFF["trace"]:
        raise RunError(
            f"config.participation.trace is {p.trace!r}, but {p.sampling} sampling asks clients "
            f"whether they are there or not: expected {OFF['trace']!r}, or sampling 'uniform'"
        )
    others = [key for key in used(config) if key not in ("sampling", "devices")]
    if private in ("user", "ftrl") and others:
        raise RunError(
            f"config.participation.{others[0]} is {p[others[0]]!r}, which the accountant of "
            f"config.privacy.mechanism {private!r} does not know: expected {OFF[others[0]]!r}"
        )


def _check_buffered(config: ml_collections.ConfigDict) -> None:
    p = config.participation
    if config.exchange.mode != "none":
        raise RunError(
            f"config.participation.mode is 'buffered', but with exchange {config.exchange.mode!r} "
            "an update must name the round that is open: expected mode 'rounds', or exchange.mode "
            "'none'"
        )
    if config.fed.algorithm in ("scaffold", "feddyn", "shared_moments", "local_only"):
        raise RunError(
            f"config.participation.mode is 'buffered', but {config.fed.algorithm} needs answers to "
            "the newest model, or none: expected mode 'rounds', or an algorithm whose server keeps "
            "nothing"
        )
    for key in ("sampling", "trace", "deadline"):
        if p[key] != OFF[key]:
            raise RunError(
                f"config.participation.{key} is {p[key]!r}, but a buffered server takes whoever "
                f"is idle: expected {OFF[key]!r}, or mode 'rounds'"
            )
    if not config.fed.cohort:
        raise RunError(
            "config.participation.mode is 'buffered' and config.fed.cohort is 0: expected the "
            "number of answers that fill the buffer"
        )


def make(
    config: ml_collections.ConfigDict,
    count: np.ndarray,
    update: ClientUpdate,
    params: Any,
    loss_fn: Any,
    examples: Examples,
) -> tuple[participation.Participation, Fleet | None]:
    """Who takes part in every round, and the simulated devices if there are any.

    Args:
      config: Of the run.
      count: Rows of each client.
      update: The algorithm, whose messages are what travels.
      params: The parameters or their shapes.
      loss_fn: The loss, whose cost is that of a step.
      examples: The staged rows or their shapes.
    """
    p = config.participation
    population = len(count)
    mix = devices.MIXES.get(p.devices, ())
    kinds, load, schedule = np.zeros(population, int), devices.Load(0.0, 0, 0), None
    if mix:
        kinds = devices.assign(mix, population, tables.seed(config))
        load = _load(config, update, params, loss_fn, examples)
    if p.mode == "buffered":
        seconds = (
            devices.client_seconds(mix, kinds, local_steps(config, count), load) if mix else None
        )
        schedule = call(
            buffered.plan, "participation", population=population, rounds=config.fed.rounds,
            buffer=config.fed.cohort, concurrency=p.concurrency or config.fed.cohort,
            seed=tables.seed(config), seconds=seconds, most_stale=p.most_stale,
        )  # fmt: skip
    part = participation.Participation(
        sampling="uniform" if p.sampling == "weighted" else p.sampling,
        weight=count.astype(np.float32) if p.sampling == "weighted" else None,
        trace=_trace(config, population),
        dropout=p.dropout, stragglers=p.stragglers, least_work=p.least_work,
        limit=devices.step_limit(mix, kinds, load, p.deadline) if p.deadline else None,
        schedule=schedule,
    )  # fmt: skip
    if part.limit is not None and not part.limit.any():
        raise RunError(
            f"config.participation.deadline is {p.deadline} s, in which no client can fetch the "
            f"model, take a step and answer: expected at least "
            f"{(devices.overhead(mix, load) + devices.step_seconds(mix, load)).min():.1f} s"
        )
    return part, Fleet(mix, kinds, load, p.deadline, schedule) if mix else None


def local_steps(config: ml_collections.ConfigDict, count: np.ndarray) -> np.ndarray:
    """Steps [P] that clients with ``count`` rows are asked for in a round."""
    work = algorithm.local_work(config)
    if work["steps"]:
        return np.full(len(count), work["steps"])
    steps: Any = steps_per_epoch(jnp.asarray(count), config.client.batch)
    return (work["epochs"] or 0) * np.asarray(steps)


def _load(
    config: ml_collections.ConfigDict,
    update: ClientUpdate,
    params: Any,
    loss_fn: Any,
    examples: Examples,
) -> devices.Load:
    """Bytes of the messages, and the operations that XLA counts in one step's gradient."""
    server = update.server
    sent = jax.eval_shape(lambda p: server.send(p, server.init(p)), params)
    batch = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((config.client.batch, *leaf.shape[1:]), leaf.dtype),
        examples,
    )
    gradient = jax.jit(jax.grad(loss_fn, has_aux=True))
    counted: Any = gradient.lower(params, batch, jax.random.key(0)).cost_analysis()
    passes = {"ditto": 2, "scaffold": 2 if config.fed.option == "gradient" else 1}
    up = exchange.upload(config, layout(update, params))
    flops = passes.get(config.fed.algorithm, 1) * float(counted["flops"])
    return devices.Load(flops, up, trees.nbytes(sent))


def _trace(config: ml_collections.ConfigDict, population: int) -> np.ndarray | None:
    p = config.participation
    if p.trace == "always":
        return None
    if p.trace.endswith(".npy"):
        return _read_trace(pathlib.Path(p.trace), population)
    return call(
        participation.TRACES[p.trace], "participation", population=population,
        rounds=config.fed.rounds, seed=tables.seed(config), availability=p.availability,
        period=p.period, stay=p.stay,
    )  # fmt: skip


def _read_trace(path: pathlib.Path, population: int) -> np.ndarray:
    try:
        trace = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as e:
        raise RunError(f"config.participation.trace: {path} cannot be read as .npy: {e}") from None
    if trace.dtype != bool or trace.ndim != 2 or trace.shape[1] != population or not len(trace):
        raise RunError(
            f"config.participation.trace: {path} holds {trace.dtype} {list(trace.shape)}: expected "
            f"bool [rounds, {population}], one column a client"
        )
    return trace
