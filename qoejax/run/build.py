"""ConfigDict to objects: the one place where configuration is read.

Every section is unpacked into explicit keyword arguments, so an unknown or missing key, or a name
that is in no table, stops a run before anything compiles.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from qoejax.data import partition, preprocess, rated, table
from qoejax.data.cohort import stage
from qoejax.fed import aggregate, client, compress, engine, sampling, server
from qoejax.nets import NETS
from qoejax.objectives import losses
from qoejax.qoe import scales
from qoejax.run import privacy, tables
from qoejax.run.errors import RunError
from qoejax.types import Examples

ALGORITHMS = ("fedavg", "fedprox", "centralised", "local_only")
EXCHANGES = ("none", "pqc")
KEY_FILES = ("plain", "encrypted")


class Data(NamedTuple):
    """Cleaned, scaled rows on the host, and how they came about."""

    spec: table.Spec
    stats: preprocess.Stats
    train: Examples  # NumPy leaves, not yet ordered by client
    test: Examples
    group: np.ndarray  # natural client of every training row
    report: dict[str, Any]
    half_width: np.ndarray | None  # of the test scores' 95 % intervals, where known


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


def choose(options: Mapping[str, Any], name: str, key: str) -> Any:
    """``options[name]``, or a RunError that names the config key and what it may be."""
    if name not in options:
        raise RunError(f"config.{key} is {name!r}: expected one of {', '.join(sorted(options))}")
    return options[name]


def call(function: Callable[..., Any], section: str, **kwargs: Any) -> Any:
    """Calls a factory; an argument that it does not take, or refuses, is a config error."""
    try:
        return function(**kwargs)
    except (TypeError, ValueError) as e:
        raise RunError(f"config.{section}: {e}") from e


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
        ("perf.chunk", config.perf.chunk),
        ("perf.rounds_per_dispatch", config.perf.rounds_per_dispatch),
        ("evaluation.every", config.evaluation.every),
        ("evaluation.batch", config.evaluation.batch),
        ("checkpoint.every", config.checkpoint.every),
        ("checkpoint.keep", config.checkpoint.keep),
        ("exchange.workers", config.exchange.workers),
    ]
    for key, value in positive:
        if not value > 0:
            raise RunError(f"config.{key} is {value}: expected more than 0")
    if config.client.steps <= 0 and config.client.epochs <= 0:
        raise RunError("config.client needs epochs or steps above 0: no client would learn")
    choose(dict.fromkeys(ALGORITHMS), config.fed.algorithm, "fed.algorithm")
    tables.check(config)
    choose(dict.fromkeys(EXCHANGES), config.exchange.mode, "exchange.mode")
    choose(dict.fromkeys(KEY_FILES), config.exchange.key_files, "exchange.key_files")
    choose(NETS, config.model.net, "model.net")
    choose(sampling.SAMPLINGS, config.fed.sampling, "fed.sampling")
    if config.compress.method != "none":
        choose(compress.COMPRESSORS, config.compress.method, "compress.method")
    privacy.check(config)
    if config.fed.cohort > config.clients.count:
        raise RunError(
            f"config.fed.cohort is {config.fed.cohort}: expected at most config.clients.count "
            f"({config.clients.count}), or 0 for all"
        )
    for key, value in (
        ("exchange.mode", config.exchange.mode),
        ("compress.method", config.compress.method),
    ):
        if value != "none" and config.fed.algorithm in ("centralised", "local_only"):
            raise RunError(
                f"config.{key} is {value!r}, but {config.fed.algorithm} "
                "training exchanges nothing: expected 'none'"
            )


def data(config: ml_collections.ConfigDict) -> Data:
    """Reads, cleans and scales both splits; statistics come from training rows only."""
    d = config.data
    spec, train, test, report = tables.tables(config)
    if d.max_rows and d.max_rows < len(train.label):
        chosen = np.random.default_rng([config.seed, 1]).permutation(len(train.label))
        train = table.take(train, np.sort(chosen[: d.max_rows]))
    stats = statistics(config, spec, train)
    return Data(
        spec, stats, examples(spec, stats, train), examples(spec, stats, test), train.group, report,
        rated.half_width(spec, test),
    )  # fmt: skip


def statistics(
    config: ml_collections.ConfigDict, spec: table.Spec, train: table.Table
) -> preprocess.Stats:
    """What of the training rows becomes which feature."""
    d = config.data
    return preprocess.fit(
        spec, train, keep=tuple(d.keep), drop=tuple(d.drop), scale=d.scale,
        budget=d.features, max_levels=d.max_levels, seed=config.seed,
    )  # fmt: skip


def examples(spec: table.Spec, stats: preprocess.Stats, rows: table.Table) -> Examples:
    """Raw rows to model inputs (NumPy leaves); at least one service, masked where none is rated.

    Scores of machines (QoME) are stretched to the range of the head's ordinal bins.
    """
    none = ((0, 0), (0, 0 if rows.mos.shape[1] else 1))
    return Examples(
        x=preprocess.apply(stats, rows.x),
        label=rows.label.astype(np.int32),
        mos=np.pad(to_head(spec, rows.mos).astype(np.float32), none),
        mos_mask=np.pad(rows.mos_mask, none),
        weight=np.ones(len(rows.label), np.float32),
    )


def to_head(spec: table.Spec, scores: np.ndarray) -> np.ndarray:
    """Scores [N,Q] of each service's own scale, in the range of the head's bins."""
    stretched = scales.LOW + (scales.HIGH - scales.LOW) * scores
    return np.where(_machine(spec), stretched, scores)


def from_head(spec: table.Spec, scores: np.ndarray) -> np.ndarray:
    """Inverse of ``to_head``."""
    return np.where(_machine(spec), (scores - scales.LOW) / (scales.HIGH - scales.LOW), scores)


def _machine(spec: table.Spec) -> np.ndarray:
    return np.array([s.scale == table.QOME for s in spec.services], bool)


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
            clients=c.count, seed=config.seed, alpha=c.alpha, min_size=c.min_size,
            per_client=c.per_client,
        )  # fmt: skip
    staged, offset, count = stage(rows.train, parts)
    return Population(staged, offset, count, parts)


def objective(config: ml_collections.ConfigDict, spec: table.Spec, label_counts: Any) -> Any:
    """The network and its two-task loss; ``label_counts`` [C] are those of the training rows."""
    model = dict(config.model)
    make_net = choose(NETS, model.pop("net"), "model.net")
    services = max(1, len(spec.services))
    net = call(make_net, "model", classes=len(spec.label_names), services=services, **model)
    loss = dict(config.loss)
    weights = call(
        losses.class_weights, "loss.class_weight", counts=label_counts,
        scheme=loss.pop("class_weight"),
    )  # fmt: skip
    return call(losses.make_loss, "loss", net=net, class_weight=weights, **loss)


def client_update(config: ml_collections.ConfigDict, loss_fn: Any) -> client.ClientUpdate:
    """The local half of a round."""
    names = {"centralised": "persistent", "local_only": "local_only"}
    name = names.get(config.fed.algorithm, config.fed.algorithm)
    c = config.client
    make_optimizer = choose(client.OPTIMIZERS, c.optimizer, "client.optimizer")
    extra = {"mu": config.fed.mu} if name == "fedprox" else {}
    update = call(
        client.CLIENT_UPDATES[name], "client", loss_fn=privacy.gradient(config, loss_fn),
        optimizer=make_optimizer(clip=c.clip, weight_decay=c.weight_decay),
        lr=c.lr, batch_size=c.batch, **extra,
    )  # fmt: skip
    smaller = compressor(config)
    return update if smaller is None else compress.compressed(update, smaller)


def compressor(config: ml_collections.ConfigDict) -> compress.Compressor | None:
    """What makes a client's message smaller, or None."""
    c = config.compress
    if c.method == "none":
        return None
    make = choose(compress.COMPRESSORS, c.method, "compress.method")
    plain = call(make, "compress", fraction=c.fraction, rank=c.rank)
    return compress.with_feedback(plain) if c.feedback else plain


def make_engine(
    config: ml_collections.ConfigDict, loss_fn: Any, offset: np.ndarray, count: np.ndarray
) -> engine.Engine:
    """The compiled rounds."""
    c = config
    make_server = choose(server.SERVER_OPTIMIZERS, c.server.optimizer, "server.optimizer")
    make_schedule = choose(client.SCHEDULES, c.client.schedule, "client.schedule")
    plain = choose(aggregate.AGGREGATORS, c.server.aggregator, "server.aggregator")()
    smaller = compressor(c)
    return call(
        engine.make_engine, "perf",
        client_update=client_update(c, loss_fn),
        aggregator=privacy.aggregator(c, len(count), plain),
        server_opt=make_server(c.server.lr),
        schedule=call(make_schedule, "client.schedule", rounds=c.fed.rounds),
        offset=offset, count=count, cohort_size=c.fed.cohort or len(count),
        epochs=None if c.client.steps else c.client.epochs, steps=c.client.steps or None,
        batch_size=c.client.batch, weight=c.fed.weight,
        sampling=c.fed.sampling, decode=smaller and smaller.decode,
        client_axis=c.perf.client_axis, chunk=c.perf.chunk,
    )  # fmt: skip


def set_devices(config: ml_collections.ConfigDict) -> None:
    """Simulated CPU devices, one per core, when clients are sharded; before JAX starts.

    Raises:
      RunError: JAX runs already, with another number of CPU devices.
    """
    wanted = config.perf.devices
    if config.perf.client_axis != "shard" or not wanted:
        return
    try:
        jax.config.update("jax_num_cpu_devices", wanted)
    except RuntimeError:
        there = jax.local_device_count("cpu")
        if there != wanted:
            raise RunError(
                f"config.perf.devices is {wanted}, but JAX has started with {there} CPU device(s): "
                "set it before JAX starts, or choose config.perf.client_axis='turn'"
            ) from None
