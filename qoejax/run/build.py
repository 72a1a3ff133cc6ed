"""ConfigDict to objects: the one place where configuration is read.

Every section is unpacked into explicit keyword arguments, so an unknown or missing key, or a name
that is in no table, stops a run before anything compiles.
"""

import functools
import inspect
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from qoejax.data import partition, preprocess, rated, table
from qoejax.data.cohort import stage
from qoejax.fed import engine, server, strict
from qoejax.nets import NETS
from qoejax.objectives import losses
from qoejax.run import (
    algorithm,
    defence,
    exchange,
    outputs,
    participate,
    parties,
    privacy,
    runtime,
    tables,
    wired,
)
from qoejax.run.choices import call, choose
from qoejax.run.errors import RunError
from qoejax.types import Examples

EXCHANGES = ("none", "pqc", *exchange.MASKED)
KEY_FILES = ("plain", "encrypted")

LOG = logging.getLogger("qoejax")


class Data(NamedTuple):
    """Cleaned, scaled rows on the host, and how they came about."""

    spec: table.Spec
    stats: preprocess.Stats
    train: Examples  # NumPy leaves, not yet ordered by client
    test: Examples
    group: np.ndarray  # natural client of every training row
    test_group: np.ndarray  # and of every test row
    held_out: Examples | None  # rows of no client, where weights of clients need them
    report: dict[str, Any]
    half_width: np.ndarray | None  # of the test scores' 95 % intervals, where known
    root: Examples | None = None  # training rows that the server keeps for itself


class Population(NamedTuple):
    """Training rows ordered by client; client ``i`` holds ``count[i]`` rows from ``offset[i]``."""

    examples: Examples
    offset: np.ndarray
    count: np.ndarray
    parts: list[np.ndarray]


def plain_config(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The config as nested dicts of plain values, tuples as lists."""
    return _plain(config.to_dict())


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def from_plain(config: dict[str, Any]) -> ml_collections.ConfigDict:
    """Inverse of ``plain_config``."""
    return ml_collections.ConfigDict(
        {k: {a: tuple(b) if isinstance(b, list) else b for a, b in v.items()}
         if isinstance(v, dict) else v for k, v in config.items()}
    )  # fmt: skip


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses what cannot work, before data are read.

    Raises:
      RunError: names the key, its value and what was expected.
    """
    positive = [
        ("fed.rounds", config.fed.rounds),
        ("clients.count", config.clients.count),
        ("client.batch", config.client.batch),
        ("client.lr", config.client.lr),
        ("server.max_norm", config.server.max_norm),
        ("perf.chunk", config.perf.chunk),
        ("perf.tune_seconds", config.perf.tune_seconds),
        ("evaluation.every", config.evaluation.every),
        ("evaluation.batch", config.evaluation.batch),
        ("checkpoint.every", config.checkpoint.every),
        ("checkpoint.keep", config.checkpoint.keep),
        ("exchange.workers", config.exchange.workers),
    ]
    for key, value in positive:
        if not value > 0:
            raise RunError(f"config.{key} is {value}: expected more than 0")
    if config.perf.rounds_per_dispatch < 0:
        raise RunError(
            f"config.perf.rounds_per_dispatch is {config.perf.rounds_per_dispatch}: expected more "
            "than 0, or 0 for a number that is measured"
        )
    if config.client.steps <= 0 and config.client.epochs <= 0:
        raise RunError("config.client needs epochs or steps above 0: no client would learn")
    choose(algorithm.ALGORITHMS, config.fed.algorithm, "fed.algorithm")
    tables.check(config)
    choose(dict.fromkeys(EXCHANGES), config.exchange.mode, "exchange.mode")
    choose(dict.fromkeys(KEY_FILES), config.exchange.key_files, "exchange.key_files")
    wired.check(config.exchange)
    parties.check(config.exchange)
    choose(NETS, config.model.net, "model.net")
    if config.fed.cohort > config.clients.count:
        raise RunError(
            f"config.fed.cohort is {config.fed.cohort}: expected at most config.clients.count "
            f"({config.clients.count}), or 0 for all"
        )
    if config.exchange.mode != "none" and config.fed.algorithm in ("centralised", "local_only"):
        raise RunError(
            f"config.exchange.mode is {config.exchange.mode!r}, but {config.fed.algorithm} "
            "training exchanges nothing: expected 'none'"
        )
    algorithm.check(config)
    participate.check(config)
    defence.check(config)
    privacy.check(config)
    exchange.check(config)


def data(config: ml_collections.ConfigDict) -> Data:
    """Reads, cleans and scales both splits; statistics come from training rows only."""
    d = config.data
    spec, train, test, report = tables.tables(config)
    if d.max_rows and d.max_rows < len(train.label):
        chosen = np.random.default_rng([tables.seed(config), 1]).permutation(len(train.label))
        train = table.take(train, np.sort(chosen[: d.max_rows]))
    held_out = root = None
    if config.server.root_rows:
        train, root = defence.keep_root(config, train)
    stats = statistics(config, spec, train)
    if config.fed.weight == "qoe":
        train, rest = _hold_out(config, train)
        held_out = examples(spec, stats, rest)
    return Data(
        spec=spec, stats=stats, train=examples(spec, stats, train),
        test=examples(spec, stats, test), group=train.group, test_group=test.group,
        held_out=held_out, root=None if root is None else examples(spec, stats, root),
        report=report, half_width=rated.half_width(spec, test),
    )  # fmt: skip


def statistics(
    config: ml_collections.ConfigDict, spec: table.Spec, train: table.Table
) -> preprocess.Stats:
    """What of the training rows becomes which feature."""
    d = config.data
    return preprocess.fit(
        spec, train, keep=tuple(d.keep), drop=tuple(d.drop), scale=d.scale,
        budget=d.features, max_levels=d.max_levels, seed=tables.seed(config),
    )  # fmt: skip


def _hold_out(
    config: ml_collections.ConfigDict, rows: table.Table
) -> tuple[table.Table, table.Table]:
    """Training rows that stay with clients, and those that only the server has."""
    n, count = len(rows.label), config.fed.held_out
    if not 0 < count <= n // 2:
        raise RunError(
            f"config.fed.held_out is {count}: expected 1 to {n // 2}, half the training rows"
        )
    return tables.set_aside(rows, count, (tables.seed(config), 4))


def examples(spec: table.Spec, stats: preprocess.Stats, rows: table.Table) -> Examples:
    """Raw rows to model inputs (NumPy leaves); at least one service, masked where none is rated.

    Scores of machines (QoME) are stretched to the range of the head's ordinal bins.
    """
    none = ((0, 0), (0, 0 if rows.mos.shape[1] else 1))
    return Examples(
        x=preprocess.apply(stats, rows.x),
        label=rows.label.astype(np.int32),
        mos=np.pad(outputs.to_head(spec, rows.mos).astype(np.float32), none),
        mos_mask=np.pad(rows.mos_mask, none),
        weight=np.ones(len(rows.label), np.float32),
    )


def mos_mean(rows: Examples) -> np.ndarray:
    """Mean score [Q] of the rated rows, in the head's range; 0 where nobody rated a service."""
    rated = np.maximum(rows.mos_mask.sum(0), 1)
    return np.where(rows.mos_mask, rows.mos, 0.0).sum(0, dtype=np.float64) / rated


def population(config: ml_collections.ConfigDict, rows: Data) -> Population:
    """Shares the training rows among clients and orders them by client."""
    c = config.clients
    n = len(rows.train.label)
    if config.fed.algorithm == "centralised":
        parts = [np.arange(n)]
    else:
        share = choose(partition.PARTITIONS, c.partition, "clients.partition")
        by = rows.group if c.partition == "natural" else rows.train.label
        parts = call(
            functools.partial(share, by), "clients",
            clients=c.count, seed=tables.seed(config), alpha=c.alpha, min_size=c.min_size,
            per_client=c.per_client,
        )  # fmt: skip
    staged, offset, count = stage(rows.train, parts)
    if enemy := defence.adversary(config, len(count)):
        mine = np.repeat(enemy.malicious, count)
        staged = enemy.attack.poison(staged, mine, len(rows.spec.label_names))
    return Population(staged, offset, count, parts)


def owners(population: Population, rows: Data) -> np.ndarray:
    """The client to which each test row's natural group belongs; -1 for a group of no client."""
    owner = {
        group: client
        for client, part in enumerate(population.parts)
        for group in np.unique(rows.group[part]).tolist()
    }
    return np.array([owner.get(group, -1) for group in rows.test_group.tolist()], np.int32)


def objective(config: ml_collections.ConfigDict, spec: table.Spec, label_counts: Any) -> Any:
    """The network and its two-task loss; ``label_counts`` [C] are those of the training rows."""
    model = dict(config.model)
    make_net = choose(NETS, model.pop("net"), "model.net")
    services = max(1, len(spec.services))
    own = _of_net(make_net, model)
    net = call(make_net, "model", classes=len(spec.label_names), services=services, **own)
    loss = dict(config.loss)
    weights = call(
        losses.class_weights, "loss.class_weight", counts=label_counts,
        scheme=loss.pop("class_weight"),
    )  # fmt: skip
    return call(losses.make_loss, "loss", net=net, class_weight=weights, **loss)


def _of_net(make_net: Callable[..., Any], model: dict[str, Any]) -> dict[str, Any]:
    """The keys without those of other nets only, which remain when a config's net is changed."""
    mine = inspect.signature(make_net).parameters
    known = {key for make in NETS.values() for key in inspect.signature(make).parameters}
    if unused := sorted(model.keys() & known - mine.keys()):
        LOG.info("config.model: this net has no %s", ", ".join(unused))
    return {k: v for k, v in model.items() if k not in unused}


def server_optimizer(
    config: ml_collections.ConfigDict, rates: Mapping[str, Any] | None = None
) -> Any:
    """What applies the round's delta; ``rates`` as for ``algorithm.client_update``."""
    make = choose(server.SERVER_OPTIMIZERS, config.server.optimizer, "server.optimizer")
    return make((rates or {}).get("server.lr", config.server.lr))


def make_engine(
    config: ml_collections.ConfigDict,
    loss_fn: Any,
    offset: np.ndarray,
    count: np.ndarray,
    root: Examples | None = None,
    rates: Mapping[str, Any] | None = None,
    **options: Any,
) -> engine.Engine:
    """The compiled rounds; ``root`` are the server's own rows, ``rates`` traced numbers.

    ``options`` are further arguments of ``engine.make_engine``.
    """
    c = config
    update, work = algorithm.client_update(c, loss_fn, rates), algorithm.local_work(c)
    schedule = algorithm.schedule(c)
    make: Callable[..., engine.Engine] = strict.make_engine
    if c.perf.client_axis != "strict":
        make = functools.partial(engine.make_engine, client_axis=c.perf.client_axis)
    root_delta = None
    if root is not None:
        root_delta = defence.make_root_delta(root, update, schedule, **work)
    return call(
        make, "perf",
        client_update=update,
        aggregator=privacy.aggregator(c, len(count), defence.make_aggregator(c, root_delta)),
        server_opt=server_optimizer(c, rates), schedule=schedule,
        offset=offset, count=count, cohort_size=c.fed.cohort or len(count),
        chunk=c.perf.chunk, placement=c.perf.placement,
        max_norm=c.server.max_norm, adversary=defence.adversary(c, len(count)),
        **work, **options,
    )  # fmt: skip


def set_devices(
    config: ml_collections.ConfigDict,
    recorded: Mapping[str, Any] | None = None,
    processes: int = 1,
) -> None:
    """Simulated CPU devices, one per core, when clients may be sharded; before JAX starts.

    With client axis "auto" there are as many as cores, or as many as the run had when its choice
    was ``recorded``; if JAX runs already, or ``XLA_FLAGS`` say how many, those.

    ``perf.devices`` are those of all processes together, which share them equally. With client
    axis "strict", the number of XLA's threads too.

    Raises:
      RunError: JAX runs already, with another number of CPU devices or threads.
    """
    wanted, axis = config.perf.devices // processes, config.perf.client_axis
    if axis == "strict":
        runtime.fix_threads(config.perf.threads, wanted)
    if axis == "auto":
        if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
            return
        wanted = os.cpu_count() if recorded is None else recorded["cpu_devices"]
    elif axis not in ("shard", "strict") or not wanted:
        return
    try:
        jax.config.update("jax_num_cpu_devices", wanted)
    except RuntimeError:
        there = jax.local_device_count("cpu")
        if there != wanted and axis != "auto":
            raise RunError(
                f"config.perf.devices is {config.perf.devices}, but JAX has started with {there} "
                "CPU device(s): set it before JAX starts, or choose config.perf.client_axis='turn'"
            ) from None
