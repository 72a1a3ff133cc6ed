"""Every attack against every rule, as one compiled program, with its figures.

A cell is a whole training run. The program takes the number of a rule and scans over the attacks;
both are branches of a ``switch``, so that one compilation serves all cells.
"""

import logging
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from qoejax.data.cohort import cohort
from qoejax.fed import aggregate, attacks, round
from qoejax.fed.evaluate import make_evaluator
from qoejax.fed.protocol import ClientUpdate
from qoejax.objectives import metrics
from qoejax.run import algorithm as algorithms
from qoejax.run import build, defence, files, participate, plots
from qoejax.run.choices import call, choose
from qoejax.run.errors import RunError
from qoejax.types import Examples

LOG = logging.getLogger("qoejax")


class Task(NamedTuple):
    """What all cells share."""

    data: build.Data
    population: build.Population
    objective: Any
    update: ClientUpdate
    root_delta: Callable[..., Any] | None


def run(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    fractions: Sequence[float],
    rules: Sequence[str],
    names: Sequence[str],
) -> dict[str, Any]:
    """The grid at each fraction of malicious clients: ``robustness.json`` and plots in ``workdir``.

    Rules are told the true number of malicious clients; one that needs more clients than there are
    has no score there. ``names`` are attacks, the first of them ``none``.

    Returns:
      The summary that the command prints; see ``summary``.

    Raises:
      RunError: bad config, unknown rule or attack, unwritable workdir.
    """
    build.check(config)
    for rule in rules:
        choose(aggregate.AGGREGATORS, rule, "server.aggregator")
    for name in names:
        choose(attacks.ATTACKS, name, "attack.name")
    if not fractions or not rules or names[:1] != ["none"]:
        raise RunError("a grid needs a fraction, a rule, and 'none' as its first attack")
    _check(config, rules, names)
    workdir = files.writable_folder(workdir, "workdir")
    task = prepare(config)
    grids = [grid(config, task, fraction, rules, names) for fraction in fractions]
    record = {"config": build.plain_config(config), "grids": grids}
    files.write_json(workdir / "robustness.json", record)
    for one in grids:
        percent = f"{one['fraction']:.0%}".rstrip("%")
        plots.save(plots.attack_grid(one), workdir / "plots" / f"grid-{percent}.png")
        plots.save(plots.worst_cases(one), workdir / "plots" / f"rules-{percent}.png")
    return {"workdir": str(workdir), "grids": [summary(one) for one in grids]}


def _check(config: ml_collections.ConfigDict, rules: Sequence[str], names: Sequence[str]) -> None:
    """Refuses what a grid, whose cells are plain rounds of everyone, would leave out."""
    if config.fed.cohort:
        raise RunError(f"config.fed.cohort is {config.fed.cohort}: a grid wants everyone, so 0")
    algorithm = config.fed.algorithm
    if algorithm in (*algorithms.PERSONAL, "ditto", "centralised", "local_only"):
        raise RunError(
            f"config.fed.algorithm is {algorithm!r}, but a grid scores one model that clients "
            "learn together: expected an algorithm without models of clients' own"
        )
    if used := participate.used(config):
        raise RunError(
            f"config.participation.{used[0]} is {config.participation[used[0]]!r}, but a grid "
            f"wants everyone in every round: expected {participate.OFF[used[0]]!r}"
        )
    if config.fed.weight == "qoe":
        raise RunError("config.fed.weight is 'qoe', which no grid covers: expected 'examples'")
    if config.privacy.mechanism in ("user", "ftrl"):
        raise RunError(
            f"config.privacy.mechanism is {config.privacy.mechanism!r}, whose aggregator is the "
            "mean, but a grid compares aggregators: expected 'none' or 'example'"
        )
    for rule in rules:
        for name in names:
            defence.check_messages(config, rule, name)


def prepare(config: ml_collections.ConfigDict) -> Task:
    """Data, clients and model, without any attack."""
    honest = ml_collections.ConfigDict(config.to_dict())
    honest.attack.name = "none"
    data = build.data(config)
    counts = np.bincount(data.train.label, minlength=len(data.spec.label_names))
    objective = build.objective(config, data.spec, counts)
    update = algorithms.client_update(config, objective.loss_fn)
    root_delta = None
    if data.root is not None:
        root_delta = defence.make_root_delta(
            data.root, update, algorithms.schedule(config), **algorithms.local_work(config)
        )
    return Task(data, build.population(honest, data), objective, update, root_delta)


def grid(
    config: ml_collections.ConfigDict,
    task: Task,
    fraction: float,
    rules: Sequence[str],
    names: Sequence[str],
) -> dict[str, Any]:
    """Scores of all cells at one fraction of malicious clients."""
    start = time.perf_counter()
    clients = len(task.population.count)
    malicious = attacks.choose(clients, fraction, config.seed)
    made = {rule: _rule(rule, int(malicious.sum()), task.root_delta) for rule in rules}
    able = [rule for rule in rules if made[rule].least <= clients]
    cells = make_cells(config, task, [made[rule] for rule in able], names, malicious)
    rows: list[dict[str, Any]] = []
    for number, rule in enumerate(able):
        before = time.perf_counter()
        matrices, hit, refused = jax.device_get(cells(jnp.int32(number)))
        for i, name in enumerate(names):
            score = metrics.from_confusion(matrices[i])
            figures = {k: score[k] for k in ("macro_f1", "accuracy")}
            figures |= {"backdoor_success": float(hit[i]), "refused": int(refused[i])}
            rows.append({"rule": rule, "attack": name, **figures})
        seconds = time.perf_counter() - before
        LOG.info("%.0f %% malicious: %s, %.1f s", 100 * fraction, rule, seconds)
    return {
        "fraction": fraction,
        "malicious": int(malicious.sum()),
        "clients": clients,
        "attacks": list(names),
        "needs": {rule: made[rule].least for rule in rules},
        "cells": rows,
        "seconds": time.perf_counter() - start,
    }


def summary(one: dict[str, Any]) -> dict[str, Any]:
    """A grid in a few numbers: each rule's undisturbed and lowest score, and by what attack."""
    rules: dict[str, Any] = {}
    for rule in one["needs"]:
        own = {c["attack"]: c["macro_f1"] for c in one["cells"] if c["rule"] == rule}
        if own:
            worst = min(own, key=own.__getitem__)
            rules[rule] = {"undisturbed": own["none"], "worst": own[worst], "by": worst}
    return {k: one[k] for k in ("fraction", "malicious", "clients", "seconds")} | {"rules": rules}


def _rule(name: str, byzantine: int, root_delta: Any) -> aggregate.Aggregator:
    options: dict[str, Any] = {"byzantine": byzantine} if name in aggregate.ROBUST else {}
    if name == "fltrust":
        options["root_delta"] = root_delta
    return call(aggregate.AGGREGATORS[name], "server", **options)


def make_cells(
    config: ml_collections.ConfigDict,
    task: Task,
    rules: Sequence[aggregate.Aggregator],
    names: Sequence[str],
    malicious: np.ndarray,
) -> Callable[[jax.Array], Any]:
    """``cells(rule) -> (confusion [A,C,C], backdoor success [A], refused [A])``, jitted.

    Backdoor success is the share of other classes' test rows that pass as class 0 with the trigger.
    """
    classes = len(task.data.spec.label_names)
    chosen = [attacks.ATTACKS[name]() for name in names]
    mine = np.repeat(malicious, task.population.count)
    poisoned = [attack.poison(task.population.examples, mine, classes) for attack in chosen]
    staged = jax.tree.map(lambda *leaves: jnp.stack(leaves), *poisoned)
    everyone = cohort(
        jnp.arange(len(malicious), dtype=jnp.int32), jnp.asarray(task.population.offset),
        jnp.asarray(task.population.count), **algorithms.local_work(config),
    )  # fmt: skip
    x, label = jnp.asarray(task.data.test.x), jnp.asarray(task.data.test.label)
    triggered = jnp.asarray(attacks.stamp(task.data.test.x))
    params_key, run_key = jax.random.split(jax.random.key(config.seed))
    params = task.objective.init(params_key, x[:1])
    predict = make_evaluator(lambda p, x: task.objective.predict(p, x)["logits"].argmax(-1), 512)

    def cell(rule: jax.Array, attack: jax.Array, examples: Examples) -> Any:
        algorithm = round.Algorithm(
            task.update, switched_rules(rules, rule), build.server_optimizer(config),
            algorithms.schedule(config), max_norm=config.server.max_norm,
            adversary=attacks.Adversary(switched_attacks(chosen, attack), malicious),
        )  # fmt: skip
        step = round.make_round(algorithm)
        last, sums = jax.lax.scan(
            lambda state, _: step(state, examples, everyone, run_key),
            round.init_state(algorithm, params, len(malicious)), length=config.fed.rounds,
        )  # fmt: skip
        matrix = metrics.confusion(predict(last.params, x), label, jnp.ones(len(label)), classes)
        others = label != 0
        fooled = others & (predict(last.params, triggered) == 0)
        success = fooled.sum().astype(jnp.float32) / others.sum().astype(jnp.float32)
        return matrix, success, sums["refused"].sum()

    numbers = jnp.arange(len(chosen), dtype=jnp.int32)
    return jax.jit(lambda rule: jax.lax.map(lambda item: cell(rule, *item), (numbers, staged)))


def switched_rules(
    rules: Sequence[aggregate.Aggregator], number: jax.Array
) -> aggregate.Aggregator:
    """The aggregator ``rules[number]`` for a traced number; its state is that of all of them."""
    return aggregate.Aggregator(
        lambda params: tuple(rule.init(params) for rule in rules),
        _switch([rule.update for rule in rules], number),
        jnp.array([rule.least for rule in rules])[number],  # pyrefly: ignore[bad-argument-type]
    )


def switched_attacks(chosen: Sequence[attacks.Attack], number: jax.Array) -> attacks.Attack:
    """The attack ``chosen[number]`` for a traced number, upon rows that are poisoned already."""
    return attacks.Attack(
        lambda params: tuple(attack.init(params) for attack in chosen),
        _switch([attack.update for attack in chosen], number),
        attacks.none().poison,
    )


def _switch(updates: Sequence[Callable[..., Any]], number: jax.Array) -> Callable[..., Any]:
    """One of several updates; only its own part of the joint state moves."""

    def branch(i: int) -> Callable[..., Any]:
        def take(deltas: Any, states: tuple[Any, ...], options: dict[str, Any]) -> Any:
            out, own = updates[i](deltas, states[i], **options)
            return out, (*states[:i], own, *states[i + 1 :])

        return take

    branches = [branch(i) for i in range(len(updates))]
    return lambda deltas, states, **options: jax.lax.switch(
        number, branches, deltas, states, options
    )
