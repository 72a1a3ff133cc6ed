"""From ``config.attack`` and ``config.server`` to who attacks, and the rule that has to hold."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from qoejax.data import table
from qoejax.data.cohort import cohort
from qoejax.fed import aggregate, attacks
from qoejax.fed.protocol import ClientUpdate
from qoejax.run import tables
from qoejax.run.algorithm import PERSONAL
from qoejax.run.choices import call, choose
from qoejax.run.errors import RunError
from qoejax.types import Examples

WEIGHING = ("weighted_mean", "geometric_median", "norm_bounding")
"""Aggregators to which a client's weight is more than whether it is there."""

MORE = {"scaffold": "a control variate", "shared_moments": "the optimizer's moments"}
"""What the messages of an algorithm hold beside the change of the model."""


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses attacks on nobody, and rules that cannot hold against the clients they expect.

    Raises:
      RunError: names the key, its value and what was expected.
    """
    choose(attacks.ATTACKS, config.attack.name, "attack.name")
    if config.attack.name != "none" and config.fed.algorithm in ("centralised", "local_only"):
        raise RunError(
            f"config.attack.name is {config.attack.name!r}, but in {config.fed.algorithm} training "
            "nobody sends anything: expected 'none'"
        )
    if not 0 <= config.attack.fraction < 1:
        raise RunError(f"config.attack.fraction is {config.attack.fraction}: expected 0 to below 1")
    c = config.server
    choose(aggregate.AGGREGATORS, c.aggregator, "server.aggregator")
    if c.byzantine and c.aggregator not in aggregate.ROBUST:
        raise RunError(
            f"config.server.byzantine is {c.byzantine}, but {c.aggregator} tolerates no Byzantine "
            f"client: expected 0, or config.server.aggregator of {', '.join(aggregate.ROBUST)}"
        )
    if (c.aggregator == "fltrust") != (c.root_rows > 0):
        raise RunError(
            f"config.server.root_rows is {c.root_rows} with the aggregator {c.aggregator!r}: "
            "expected more than 0 with fltrust, which trusts what it learns from them, else 0"
        )
    check_messages(config, c.aggregator, config.attack.name)
    least = make_aggregator(config, lambda params, number, key: params).least
    size = config.fed.cohort or config.clients.count
    if size < least:
        raise RunError(
            f"config.server.aggregator {c.aggregator!r} needs {least} clients a round to tolerate "
            f"config.server.byzantine={c.byzantine}, but a round has {size}: raise "
            "config.fed.cohort or config.clients.count, or lower config.server.byzantine"
        )


def check_messages(config: ml_collections.ConfigDict, rule: str, attack: str) -> None:
    """Refuses a rule or an attack that the algorithm's messages or weights leave without sense.

    Raises:
      RunError: names the key, the reason and what was expected.
    """
    name = config.fed.algorithm
    if config.fed.weight == "qoe" and rule not in WEIGHING:
        raise RunError(
            f"config.fed.weight is 'qoe', but the aggregator {rule!r} gives all clients the same "
            f"weight: expected config.server.aggregator of {', '.join(WEIGHING)}"
        )
    if rule == "fltrust" and (name in MORE or name in PERSONAL):
        why = f"a client of {name} starts from a state that the server does not have"
        if name in MORE:
            why = f"a message of {name} holds {MORE[name]} too"
        raise RunError(
            f"config.server.aggregator is 'fltrust', but {why}, so that its root rows give nothing "
            "to compare with: expected another aggregator, or an algorithm whose clients start "
            "from the parameters"
        )
    if attack == "free_rider" and name in MORE:
        raise RunError(
            "config.attack.name is 'free_rider', which sends back the last change of the model, "
            f"but a message of {name} holds {MORE[name]} too: expected another attack or algorithm"
        )


def adversary(config: ml_collections.ConfigDict, population: int) -> attacks.Adversary | None:
    """Who is malicious, drawn by the seed, and how; None where nobody is."""
    c = config.attack
    strength = {"strength": c.strength} if c.strength else {}
    attack = call(choose(attacks.ATTACKS, c.name, "attack.name"), "attack", **strength)
    if c.name == "none":
        return None
    return attacks.Adversary(attack, attacks.choose(population, c.fraction, tables.seed(config)))


def keep_root(
    config: ml_collections.ConfigDict, train: table.Table
) -> tuple[table.Table, table.Table]:
    """Training rows of the clients, and ``config.server.root_rows`` that only the server has."""
    kept, rows = config.server.root_rows, len(train.label)
    if kept >= rows:
        raise RunError(
            f"config.server.root_rows is {kept}: expected fewer than the {rows} training rows, "
            "since clients need some"
        )
    return tables.set_aside(train, kept, (tables.seed(config), 2))


def make_aggregator(
    config: ml_collections.ConfigDict, root_delta: Callable[..., Any] | None = None
) -> aggregate.Aggregator:
    """The server's rule; ``root_delta`` as ``fltrust`` wants it."""
    c = config.server
    options: dict[str, Any] = {"byzantine": c.byzantine} if c.aggregator in aggregate.ROBUST else {}
    if c.aggregator == "fltrust":
        options["root_delta"] = root_delta
    rule = choose(aggregate.AGGREGATORS, c.aggregator, "server.aggregator")
    if config.perf.client_axis == "strict":
        rule = aggregate.EXACT.get(c.aggregator, rule)
    return call(rule, "server", **options)


def make_root_delta(
    root: Examples, update: ClientUpdate, schedule: Callable[[Any], Any], **work: Any
) -> Callable[..., Any]:
    """``root_delta(params, round, key)``: what a client that holds the root rows would send.

    ``work`` says how much it does, as for ``data.cohort.cohort``.
    """
    first, rows = jnp.zeros(1, jnp.int32), jnp.array([len(root.label)], jnp.int32)
    alone = jax.tree.map(lambda leaf: leaf[0], cohort(first, first, rows, **work))
    root = jax.tree.map(jnp.asarray, root)

    def root_delta(params: Any, number: jax.Array, key: jax.Array) -> Any:
        scale = jnp.asarray(schedule(number), jnp.float32)
        return update.update(params, update.init(params), root, alone, key, scale)[0]

    return root_delta
