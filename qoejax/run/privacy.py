"""What a config promises about privacy, what it refuses, and what each round has cost. Host.

Who takes part in which round depends on the config and the seed only, so the cost of a whole run
is known before it starts, and the budget is a number of rounds.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from qoejax.fed import accounting, discrete, privacy
from qoejax.fed.aggregate import Aggregator
from qoejax.fed.discrete import Grid
from qoejax.fed.engine import Engine
from qoejax.run.errors import RunError

MECHANISMS = ("none", "example", "user", "ftrl", "skellam")
ALGORITHMS = {
    "example": ("fedavg", "fedprox", "centralised"),
    "user": ("fedavg", "fedprox"),
    "ftrl": ("fedavg", "fedprox"),
    "skellam": ("fedavg", "fedprox"),
}
SAMPLING = {"user": "poisson", "ftrl": "cyclic"}
NOT_COVERED = (
    "fitted preprocessing, class weights and label names",
    "training metrics of the run's files",
    "the choice of this config",
)


class Ledger(NamedTuple):
    """The price of a run: ``epsilon(rounds)``, None without a mechanism.

    ``rounds`` is the last round that config and budget allow; ``stopped`` says why it is not
    ``fed.rounds``.
    """

    rounds: int
    epsilon: Callable[[int], float] | None
    stopped: str | None
    claim: dict[str, Any] | None


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses a promise that could not be kept, before anything is read or compiled.

    Raises:
      RunError: names the key, the reason and what to change.
    """
    p, name = config.privacy, config.privacy.mechanism
    if name not in MECHANISMS:
        raise RunError(
            f"config.privacy.mechanism is {name!r}: expected one of {', '.join(MECHANISMS)}"
        )
    if name == "none":
        for key in ("clip", "noise", "epsilon"):
            if p[key]:
                raise RunError(
                    f"config.privacy.{key} is {p[key]}, but config.privacy.mechanism is 'none': "
                    "choose 'example', 'user', 'ftrl' or 'skellam', or set it to 0"
                )
        return
    if not p.clip > 0:
        raise RunError(
            f"config.privacy.clip is {p.clip}: noise hides nothing unless what one record adds is "
            "bounded; set the bound above 0"
        )
    if not p.noise > 0:
        raise RunError(
            f"config.privacy.noise is {p.noise}: clipping alone is not private; set the noise's "
            "standard deviation, in units of config.privacy.clip, above 0"
        )
    if not 0 < p.delta < 1 or p.epsilon < 0 or p.microbatch < 0:
        raise RunError(
            f"config.privacy: expected 0 < delta < 1, epsilon >= 0 and microbatch >= 0, got "
            f"{p.delta}, {p.epsilon} and {p.microbatch}"
        )
    if config.fed.algorithm not in ALGORITHMS[name]:
        raise RunError(
            f"config.fed.algorithm is {config.fed.algorithm!r}, whose messages the analysis of "
            f"config.privacy.mechanism {name!r} does not cover: expected one of "
            f"{', '.join(ALGORITHMS[name])}"
        )
    _check_server(config)
    if name != "example":
        _check_users(config)


def _check_server(config: ml_collections.ConfigDict) -> None:
    """Refuses a server that reads rows of its own in every round, which no accountant sees."""
    reading = {"server.root_rows": config.server.root_rows, "fed.weight": config.fed.weight}
    for key, value in reading.items():
        if value not in (0, "examples", "uniform"):
            raise RunError(
                f"config.{key} is {value!r}: the server would read rows of its own in every round, "
                f"without noise, under config.privacy.mechanism {config.privacy.mechanism!r}; "
                "choose an aggregator and weights that need no rows"
            )


def _check_users(config: ml_collections.ConfigDict) -> None:
    name, sampling = config.privacy.mechanism, config.participation.sampling
    if config.server.aggregator != "mean":
        raise RunError(
            f"config.server.aggregator is {config.server.aggregator!r}: private clients need equal "
            "weights and a sum to which noise can be added; set it to 'mean'"
        )
    everyone = config.fed.cohort in (0, config.clients.count)
    if name == "skellam":
        _check_shares(config, everyone and sampling == "uniform")
        return
    everyone = everyone and name == "user"
    if not (everyone and sampling == "uniform") and sampling != SAMPLING[name]:
        raise RunError(
            f"config.participation.sampling is {sampling!r}, for which the accountant of {name!r} "
            f"is not valid: set it to {SAMPLING[name]!r}"
        )


def _check_shares(config: ml_collections.ConfigDict, everyone: bool) -> None:
    """Refuses shares of noise where nothing hides a single one, or not everybody takes part."""
    if config.exchange.mode != "secagg":
        raise RunError(
            f"config.exchange.mode is {config.exchange.mode!r}: the noise of "
            "config.privacy.mechanism 'skellam' is that of a sum, and one share is not enough; "
            "set it to 'secagg'"
        )
    if not everyone:
        raise RunError(
            "config.privacy.mechanism 'skellam' is priced for everybody in every round: set "
            "config.fed.cohort to 0 and config.participation.sampling to 'uniform'"
        )


def gradient(config: ml_collections.ConfigDict, loss_fn: Any) -> Any:
    """The loss, or its private gradient where rows are protected."""
    p = config.privacy
    if p.mechanism != "example":
        return loss_fn
    return privacy.example_level(
        loss_fn, batch_size=config.client.batch, clip=p.clip, noise=p.noise, microbatch=p.microbatch
    )


def aggregator(config: ml_collections.ConfigDict, clients: int, plain: Aggregator) -> Aggregator:
    """``plain``, or the private mean where clients are protected."""
    p, expected = config.privacy, config.fed.cohort or clients
    if p.mechanism not in SAMPLING:
        return plain
    matrix = None
    if p.mechanism == "ftrl":
        matrix = privacy.noising(_coefficients(config, clients))
    return privacy.user_level(clip=p.clip, noise=p.noise, clients=float(expected), matrix=matrix)


def _groups(config: ml_collections.ConfigDict, clients: int) -> int:
    return -(-clients // (config.fed.cohort or clients))


def _coefficients(config: ml_collections.ConfigDict, clients: int) -> Any:
    return privacy.square_root(min(_groups(config, clients), config.fed.rounds))


def ledger(
    config: ml_collections.ConfigDict,
    engine: Engine,
    key: jax.Array,
    count: np.ndarray,
    grid: Grid | None = None,
) -> Ledger:
    """The price of the run of this config whose clients hold ``count`` [P] rows.

    ``grid`` is that of mechanism "skellam".

    Raises:
      RunError: the budget does not pay for one round, or delta is no small number.
    """
    p, rounds = config.privacy, config.fed.rounds
    if p.mechanism == "none":
        return Ledger(rounds, None, None, None)
    records = int(count.max()) if p.mechanism == "example" else len(count)
    if p.delta >= 1 / records:
        raise RunError(
            f"config.privacy.delta is {p.delta}: publishing one record in {records} outright would "
            f"pass as private; expected less than {1 / records:.3g}"
        )
    if p.mechanism == "skellam":
        cost, claim = _skellam_cost(config, grid)
    else:
        cost, claim = _COSTS[p.mechanism](config, engine, key, count)
    cost = functools.cache(cost)
    allowed = accounting.largest(rounds, cost, p.epsilon)
    if allowed == 0:
        raise RunError(
            f"config.privacy.epsilon is {p.epsilon}, but the first round alone costs "
            f"{cost(1):.4g}: expected a larger budget, or more config.privacy.noise"
        )
    stopped = None
    if allowed < rounds:
        stopped = (
            f"the privacy budget, config.privacy.epsilon {p.epsilon}, is spent after round "
            f"{allowed} of {rounds} ({cost(allowed):.4g}; round {allowed + 1} would make it "
            f"{cost(allowed + 1):.4g}); to go on, run again with a larger budget"
        )
    claim = {
        "delta": p.delta, "neighbours": "one record replaced by a null record",
        "noise_multiplier": p.noise, "clip": p.clip, "accountant": "dp-accounting PLD",
        "not_covered": list(NOT_COVERED),
        "randomness": "jax.random from config.seed: void for who knows the seed",
    } | claim  # fmt: skip
    return Ledger(allowed, cost, stopped, claim)


def _example_cost(
    config: ml_collections.ConfigDict, engine: Engine, key: jax.Array, count: np.ndarray
) -> tuple[Callable[[int], float], dict[str, Any]]:
    p, rounds = config.privacy, config.fed.rounds
    cohorts = jax.device_get(
        jax.jit(lambda: jax.lax.map(lambda r: engine.cohort_for(r, key), jnp.arange(rounds)))()
    )
    taken = np.zeros((rounds + 1, len(count)), np.int64)
    slots = np.where(cohorts.client_id >= 0, cohorts.client_id, 0)
    rows = np.broadcast_to(np.arange(1, rounds + 1)[:, None], slots.shape)
    np.add.at(taken, (rows, slots), np.where(cohorts.client_id >= 0, cohorts.steps, 0))
    taken = taken.cumsum(axis=0)
    rate = np.minimum(1.0, config.client.batch / count)
    return (
        lambda r: accounting.worst(taken[r], p.noise, rate, p.delta),
        {"unit": "one row of one client", "against": "everybody else, the server included",
         "sampling": "Poisson within a client, none assumed of clients"},
    )  # fmt: skip


def _user_cost(
    config: ml_collections.ConfigDict, engine: Engine, key: jax.Array, count: np.ndarray
) -> tuple[Callable[[int], float], dict[str, Any]]:
    p = config.privacy
    rate = (config.fed.cohort or len(count)) / len(count)
    return (
        lambda r: accounting.epsilon(r, p.noise, rate, p.delta),
        {"unit": "one client with all its rows",
         "against": "those who see models, not the server",
         "sampling": f"Poisson of clients at rate {rate:.4g}" if rate < 1 else "none: all"},
    )  # fmt: skip


def _ftrl_cost(
    config: ml_collections.ConfigDict, engine: Engine, key: jax.Array, count: np.ndarray
) -> tuple[Callable[[int], float], dict[str, Any]]:
    p, groups = config.privacy, _groups(config, len(count))
    moves = accounting.moves(
        np.asarray(_coefficients(config, len(count))), config.fed.rounds, groups
    )

    def cost(rounds: int) -> float:
        return accounting.epsilon(min(rounds, 1), p.noise / moves[rounds - 1], 1.0, p.delta)

    return cost, {
        "unit": "one client with all its rows",
        "against": "those who see models, not the server",
        "sampling": f"none assumed: each client once in {groups} rounds",
    }


def _skellam_cost(
    config: ml_collections.ConfigDict, grid: Grid | None
) -> tuple[Callable[[int], float], dict[str, Any]]:
    if grid is None:
        raise RunError("config.privacy.mechanism 'skellam': expected a run with masked sums")
    length, variance = discrete.norm_bound(grid), discrete.variance(grid) * grid.clients

    def cost(rounds: int) -> float:
        if rounds == 0:
            return 0.0
        return accounting.skellam(rounds, length, variance, grid.size, config.privacy.delta)

    return cost, {
        "unit": "one client with all its rows",
        "against": f"everybody else, the server included, while {grid.clients} honest clients "
        "finish every round",
        "sampling": "none: all",
        "accountant": "dp-accounting RDP, Skellam (Agarwal et al. 2021, cor. 3.6)",
        "grid_step": grid.step,
    }


_COSTS = {"example": _example_cost, "user": _user_cost, "ftrl": _ftrl_cost}
