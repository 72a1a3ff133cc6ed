"""From ``config.exchange`` to masked sums, and what they rule out."""

from typing import Any

import ml_collections
import numpy as np

from qoejax import trees
from qoejax.fed import discrete
from qoejax.fed.discrete import Grid
from qoejax.run import defence, sums
from qoejax.run.choices import call, choose
from qoejax.run.errors import RunError
from qoejax.wire import envelope, suites
from qoejax.wire import session as sessions
from qoejax.wire.members import Members
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
    chosen = suites.suite(c.suite, c.unsafe)
    if not chosen.sealed:
        raise RunError(
            f"config.exchange.mode is {c.mode!r} with the {chosen.status} suite {chosen.id:#06x}: "
            "masks come from a KEM; expected another suite"
        )
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
            "exchange.session",
            c.exchange.session > 0,
            "masked inputs are signed, and exchange.epoch says how long keys last: expected 0",
        ),
        (
            "exchange.confidential",
            c.exchange.confidential,
            "its grants come with single updates: expected False",
        ),
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
            c.fed.algorithm in ("fednova", "shared_moments"),
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
            "its server clips single updates: expected 'none', 'example' or 'skellam'",
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
    c, size, parts = config.exchange, _size(config), groups(config)
    least = defence.make_aggregator(config, lambda params, number, key: params).least
    if parts < least:
        raise RunError(
            f"config.server.aggregator {config.server.aggregator!r} needs {least} updates to "
            f"tolerate config.server.byzantine={config.server.byzantine}, and here an update is "
            f"the mean of a group: expected config.exchange.groups of {least} or more, got {parts}"
        )
    smallest = size // parts
    if smallest < 3:
        raise RunError(
            f"config.exchange.mode is {c.mode!r} with {size} clients a round in {parts} "
            "group(s): a sum of fewer than 3 hides nobody; expected fewer config.exchange.groups "
            "or more clients"
        )
    for members in {smallest, -(-size // parts)}:
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


def groups(config: ml_collections.ConfigDict) -> int:
    """Sums that the server sees of a round."""
    return config.exchange.groups if config.exchange.mode == "secagg_groups" else 1


def upload(config: ml_collections.ConfigDict, message: Any) -> int:
    """Bytes that a client sends in a round, on average over an epoch; ``message`` is its layout."""
    c, plain = config.exchange, trees.nbytes(message)
    if c.mode == "none":
        return plain
    if c.mode not in MASKED:
        chosen = envelope.suite(c.suite, c.unsafe)
        size = sessions.size if c.session else envelope.update_size
        return size(chosen, plain)
    degree, words = (
        _choice(config, -(-_size(config) // groups(config))).degree,
        trees.count(message),
    )
    first, later = (
        local.upload(degree, words + 1, fresh=fresh, suite=c.suite) for fresh in (True, False)
    )
    return later + (first - later) // c.epoch


def grid(config: ml_collections.ConfigDict, size: int, clients: int) -> Grid | None:
    """How messages of ``size`` numbers get their share of noise; None without it.

    The noise that counts is that of the honest among as few clients as a sum is opened for.

    Raises:
      RunError: it does not fit in 32 bits.
    """
    p = config.privacy
    if p.mechanism != "skellam":
        return None
    honest = _choice(config, clients).least - int(config.exchange.colluding * clients)
    try:
        return discrete.fit(p.clip, p.noise, size, max(1, honest), clients)
    except ValueError as e:
        raise RunError(f"config.privacy: {e}; expected less noise, or more clients") from None


def session(
    config: ml_collections.ConfigDict, message: Any, count: np.ndarray, who: Members
) -> sums.Session:
    """What masks the updates of a run; it is to be closed.

    Args:
      config: of the run.
      message: a tree with the layout of one client's message.
      count: rows of each client.
      who: the parties.
    """
    c = config.exchange
    uniform = config.fed.weight == "uniform" or config.server.aggregator == "mean"
    rules = sums.Rules(
        seed=config.seed, groups=groups(config), epoch=c.epoch, active=c.adversary == "active",
        colluding=c.colluding, leaving=c.leaving, signer=c.signer, suite=c.suite,
        kem_provider=c.kem_provider, unsafe=c.unsafe,
    )  # fmt: skip
    noisy = grid(config, trees.count(message), len(count))
    if noisy is not None:
        return sums.Session(who, rules, noisy, noisy.size + 1, c.workers)
    return call(
        sums.session, "exchange", who=who, rules=rules, message=message, clip=c.clip,
        heaviest=1.0 if uniform else float(count.max()), clients=config.fed.cohort or len(count),
        uniform=uniform, workers=c.workers,
    )  # fmt: skip
