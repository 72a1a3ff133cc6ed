"""From ``config.fed`` to the local half of a round, and what rules an algorithm out."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import ml_collections

from qoejax import trees
from qoejax.fed import client, compress
from qoejax.fed.algorithms import CLIENT_UPDATES
from qoejax.fed.protocol import ClientUpdate
from qoejax.run import privacy
from qoejax.run.choices import call, choose
from qoejax.run.errors import RunError

ALGORITHMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "fedavg": ("fedavg", ()),
    "fedprox": ("fedprox", ("mu",)),
    "scaffold": ("scaffold", ("option",)),
    "fednova": ("fednova", ()),
    "feddyn": ("feddyn", ("alpha",)),
    "shared_moments": ("shared_moments", ()),
    "fedper": ("fedper", ("personal",)),
    "fedrep": ("fedrep", ("personal", "head_share")),
    "fedbn": ("fedper", ("personal",)),
    "site_embedding": ("fedper", ("personal",)),
    "ditto": ("ditto", ("mu",)),
    "centralised": ("persistent", ()),
    "local_only": ("local_only", ()),
}
"""Choices of ``fed.algorithm``: an entry of ``CLIENT_UPDATES``, and keys of ``fed`` it takes."""

PERSONAL = {
    "fedper": ("net/heads/*",),
    "fedrep": ("net/heads/*",),
    "fedbn": ("*norm*/scale", "*norm*/bias"),
    "site_embedding": ("*_position",),
}
"""Parameters that stay local where ``fed.personal`` names none."""


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses what the algorithm's own arithmetic rules out."""
    name, optimizer = config.fed.algorithm, config.client.optimizer
    if name in ("scaffold", "fednova") and optimizer != "sgd":
        raise RunError(
            f"config.client.optimizer is {optimizer!r}, but {name} takes a delta for so many plain "
            "gradient steps: expected 'sgd'"
        )
    if name == "shared_moments" and optimizer == "sgd":
        raise RunError(
            "config.client.optimizer is 'sgd', which has no moments that shared_moments could "
            "average: expected 'momentum', 'adam' or 'adamw', or fed.algorithm 'fedavg'"
        )
    if name == "feddyn" and (config.server.optimizer, config.server.lr) != ("sgd", 1.0):
        raise RunError(
            f"config.server is {config.server.optimizer!r} at {config.server.lr}, but feddyn's "
            "server takes its own whole step: expected optimizer 'sgd' and lr 1.0"
        )
    if config.fed.weight == "qoe" and name in ("centralised", "local_only"):
        raise RunError(
            f"config.fed.weight is 'qoe', but {name} training averages nothing: expected 'examples'"
        )
    _check_compression(config)


def _check_compression(config: ml_collections.ConfigDict) -> None:
    name, method = config.fed.algorithm, config.compress.method
    if _compressor(config) is None:
        return
    if name in ("centralised", "local_only"):
        raise RunError(
            f"config.compress.method is {method!r}, but {name} training exchanges nothing: "
            "expected 'none'"
        )
    if name in ("scaffold", "fednova", "feddyn", "shared_moments"):
        raise RunError(
            f"config.compress.method is {method!r}, but {name}'s clients and server both build on "
            "what a message says, and would take it for different things: expected 'none', or an "
            "algorithm that sends plain deltas"
        )


def client_update(
    config: ml_collections.ConfigDict, loss_fn: Any, rates: Mapping[str, Any] | None = None
) -> ClientUpdate:
    """The local half of a round; ``rates`` replace numbers of the config (``fed.mu``), traced."""
    rates = rates or {}
    name, keys = ALGORITHMS[config.fed.algorithm]
    c = config.client
    make_optimizer = choose(client.OPTIMIZERS, c.optimizer, "client.optimizer")
    extra = {key: rates.get(f"fed.{key}", config.fed[key]) for key in keys}
    if "personal" in extra:
        extra["personal"] = tuple(extra["personal"]) or PERSONAL[config.fed.algorithm]
    update = call(
        CLIENT_UPDATES[name], "fed", loss_fn=privacy.gradient(config, loss_fn),
        optimizer=make_optimizer(clip=c.clip, weight_decay=c.weight_decay),
        lr=rates.get("client.lr", c.lr), batch_size=c.batch, **extra,
    )  # fmt: skip
    smaller = _compressor(config)
    return update if smaller is None else compress.compressed(update, smaller)


def _compressor(config: ml_collections.ConfigDict) -> compress.Compressor | None:
    """What makes a client's message smaller, or None."""
    c = config.compress
    if c.method == "none":
        return None
    make = choose(compress.COMPRESSORS, c.method, "compress.method")
    plain = call(make, "compress", fraction=c.fraction, rank=c.rank)
    return compress.with_feedback(plain) if c.feedback else plain


def schedule(config: ml_collections.ConfigDict) -> Callable[[Any], Any]:
    """Multiplier of the clients' learning rate, by round."""
    make = choose(client.SCHEDULES, config.client.schedule, "client.schedule")
    return call(make, "client.schedule", rounds=config.fed.rounds)


def local_work(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """How much a client of a cohort does, and what it weighs before it is judged."""
    c = config.client
    return {
        "epochs": None if c.steps else c.epochs,
        "steps": c.steps or None,
        "batch_size": c.batch,
        "weight": "examples" if config.fed.weight == "qoe" else config.fed.weight,
    }


def check_memory(
    config: ml_collections.ConfigDict,
    update: ClientUpdate,
    params: Any,
    population: int,
    history: int = 0,
) -> None:
    """Refuses states of clients, or past models, that would not fit; needs shapes only.

    Raises:
      RunError: names the algorithm, what it would take, and what to change.
    """
    try:
        state = jax.eval_shape(update.init, params)
        sent = jax.eval_shape(lambda p: update.server.send(p, update.server.init(p)), params)
    except ValueError as e:
        raise RunError(f"config.fed: {e}") from e
    total = (population * trees.nbytes(state) + history * trees.nbytes(sent)) / 2**20
    if total > config.perf.state_memory_mb:
        raise RunError(
            f"config.fed.algorithm {config.fed.algorithm!r} keeps {trees.nbytes(state):,} bytes "
            f"for each of {population:,} clients, and {history} past models: {total:,.0f} MB; "
            f"config.perf.state_memory_mb allows {config.perf.state_memory_mb:,}: expected fewer "
            "clients, a smaller model, an algorithm without states, or a higher limit"
        )
