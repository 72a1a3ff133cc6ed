"""From ``config.exchange`` to masked sums, and what they rule out."""

import pathlib
from typing import Any

import ml_collections
import numpy as np

from qoejax import trees
from qoejax.run import defence, masking
from qoejax.run.choices import call, choose
from qoejax.run.errors import RunError
from qoejax.wire import envelope
from qoejax.wire.secagg import bound, local

MASKED = ("secagg", "secagg_groups")
MEANS = ("weighted_mean", "mean")
ADVERSARIES = ("passive", "active")


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses what needs single updates where the server sees only sums.

    Raises:
      RunError: names the key, its value, the reason and what to change.
    """
    c = config.exchange
    choose(dict.fromkeys(ADVERSARIES), c.adversary, "exchange.adversary")
    if not 0 < c.clip < np.inf or c.epoch < 1 or c.groups < 1:
        raise RunError(
            "config.exchange: expected clip above 0, epoch and groups from 1, got "
            f"{c.clip}, {c.epoch} and {c.groups}"
        )
    if not (0 <= c.colluding < 1 and 0 <= c.leaving < 1):
        raise RunError(
            "config.exchange: expected colluding and leaving from 0 to below 1, got "
            f"{c.colluding} and {c.leaving}"
        )
    if c.mode not in MASKED:
        return
    for key, bad, why in _single(config):
        if bad:
            value = config[key.split(".")[0]][key.split(".")[1]]
            raise RunError(
                f"config.exchange.mode is {c.mode!r}, but config.{key} is {value!r}: {why}"
            )
    _check_epoch(config)
    _check_groups(config)


def _single(config: ml_collections.ConfigDict) -> list[tuple[str, bool, str]]:
    """Keys whose values look at single updates, and what to change."""
    c, rule = config, config.server.aggregator
    return [
        (
            "server.aggregator",
            c.exchange.mode == "secagg" and rule not in MEANS,
            "it compares single updates, of which the server sees the sum only: expected "
            f"{' or '.join(MEANS)}, or exchange.mode 'secagg_groups', whose rule compares groups",
        ),
        (
            "compress.method",
            c.compress.method != "none",
            "compressed messages do not add up: each has its own scales or places; expected 'none'",
        ),
        (
            "fed.algorithm",
            c.fed.algorithm == "fednova",
            "its server needs the steps of every client, not only a mean: expected another one",
        ),
        (
            "fed.weight",
            c.fed.weight == "qoe",
            "the server would judge single updates: expected 'examples' or 'uniform'",
        ),
        (
            "privacy.mechanism",
            c.privacy.mechanism in ("user", "ftrl"),
            "its server clips single updates: expected 'none' or 'example'",
        ),
        (
            "participation.mode",
            c.participation.mode == "buffered",
            "updates of different rounds carry masks that do not cancel: expected 'rounds'",
        ),
    ]


def _size(config: ml_collections.ConfigDict) -> int:
    return config.fed.cohort or config.clients.count


def _check_epoch(config: ml_collections.ConfigDict) -> None:
    p, size, count = config.participation, _size(config), config.clients.count
    everyone = size == count and p.sampling == "uniform" and p.trace == "always"
    if config.exchange.epoch > 1 and not everyone:
        raise RunError(
            f"config.exchange.epoch is {config.exchange.epoch}, but a cohort of {size} of {count} "
            f"clients, sampling {p.sampling!r} and trace {p.trace!r}, is another one every round, "
            "and only those who agreed on keys can mask: expected 1, or everybody in every round"
        )


def _check_groups(config: ml_collections.ConfigDict) -> None:
    c, size, groups = config.exchange, _size(config), sums(config)
    least = defence.make_aggregator(config, lambda params, number, key: params).least
    if groups < least:
        raise RunError(
            f"config.server.aggregator {config.server.aggregator!r} needs {least} updates to "
            f"tolerate config.server.byzantine={config.server.byzantine}, and here an update is "
            f"the mean of a group: expected config.exchange.groups of {least} or more, got {groups}"
        )
    smallest = size // groups
    if smallest < 3:
        raise RunError(
            f"config.exchange.mode is {c.mode!r} with {size} clients a round in {groups} "
            "group(s): a sum of fewer than 3 hides nobody; expected fewer config.exchange.groups "
            "or more clients"
        )
    for members in {smallest, -(-size // groups)}:
        try:
            _choice(config, members)
        except ValueError as e:
            raise RunError(
                f"config.exchange.colluding is {c.colluding} and leaving {c.leaving}: {e}; "
                "expected smaller shares, larger groups, or config.exchange.adversary 'passive'"
            ) from None


def _choice(config: ml_collections.ConfigDict, members: int) -> bound.Choice:
    c = config.exchange
    gone = (int(c.colluding * members), int(c.leaving * members))
    return bound.choose(members, *gone, active=c.adversary == "active")


def sums(config: ml_collections.ConfigDict) -> int:
    """Sums that the server sees of a round."""
    return config.exchange.groups if config.exchange.mode == "secagg_groups" else 1


def upload(config: ml_collections.ConfigDict, message: Any) -> int:
    """Bytes that a client sends in a round, on average over an epoch; ``message`` is its layout."""
    c, plain = config.exchange, trees.nbytes(message)
    if c.mode == "none":
        return plain
    if c.mode not in MASKED:
        return envelope.update_size(envelope.suite(envelope.DEFAULT, False), plain)
    degree, words = _choice(config, -(-_size(config) // sums(config))).degree, trees.count(message)
    first, later = (local.upload(degree, words + 1, fresh=fresh) for fresh in (True, False))
    return later + (first - later) // c.epoch


def session(
    config: ml_collections.ConfigDict,
    message: Any,
    count: np.ndarray,
    key_dir: pathlib.Path | None,
    **key_files: Any,
) -> masking.Session:
    """What masks the updates of a run.

    Args:
      config: of the run.
      message: a tree with the layout of one client's message.
      count: rows of each client.
      key_dir: where identities are kept.
      key_files: how, see ``masking.parties``.
    """
    c = config.exchange
    uniform = config.fed.weight == "uniform" or config.server.aggregator == "mean"
    rules = masking.Rules(
        config.seed, sums(config), c.epoch, c.adversary == "active", c.colluding, c.leaving
    )
    who = masking.parties(len(count), c.signer, key_dir, **key_files)
    return call(
        masking.session, "exchange", who=who, rules=rules, message=message, clip=c.clip,
        heaviest=1.0 if uniform else float(count.max()), clients=config.fed.cohort or len(count),
        uniform=uniform,
    )  # fmt: skip
