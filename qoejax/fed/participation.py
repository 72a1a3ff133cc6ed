"""Who takes part in a round, and how much of the work they do. JAX; traces are NumPy.

A cohort is sampled from those that are there, then some of its clients stop half-way or do fewer
steps. Every draw has a key of its own, folded from the run's key, the round and the client's id:
the size of the cohort, the place in it and the mesh are invisible.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from qoejax.data import cohort as cohorts
from qoejax.fed.state import round_keys
from qoejax.types import Cohort


class Schedule(NamedTuple):
    """Who answers in each of R rounds, known beforehand; see ``fed.buffered``."""

    client: Int[np.ndarray, "R K"]
    staleness: Int[np.ndarray, "R K"]  # age, in rounds, of the model that the client started from
    seconds: Float[np.ndarray, " R"]  # simulated time of the end of the round


SAMPLINGS = ("uniform", "poisson", "cyclic")

CYCLE = np.iinfo(np.int32).max
"""Folded into the run's key, where no round's number can be, for what holds over all rounds."""


class Participation(NamedTuple):
    """What a round may expect of P clients.

    Attributes:
      sampling: "uniform", without replacement; "poisson", each client by its own coin, as
        amplification by sampling assumes; or "cyclic", fixed groups in turn, as DP-FTRL assumes.
      weight: Sampling weights, instead of "uniform" ones.
      trace: Whether each client is there, by round modulo L; None for always.
      dropout: Chance that a client stops half-way: it costs no step and sends nothing.
      stragglers: Chance that a client does only part of its steps.
      least_work: The part is uniform from this to 1, of which at least one step.
      limit: Most steps that each client can do in a round; who can do none stops half-way.
      schedule: Replaces sampling altogether: rounds are those of a buffered server.
    """

    sampling: str = "uniform"
    weight: Float[np.ndarray, " P"] | None = None
    trace: Bool[np.ndarray, "L P"] | None = None
    dropout: float = 0.0
    stragglers: float = 0.0
    least_work: float = 0.2
    limit: Int[np.ndarray, " P"] | None = None
    schedule: Schedule | None = None


def check(part: Participation, population: int, cohort_size: int) -> None:
    """Raises a ValueError, which names the field, for what cannot work."""
    if part.sampling not in SAMPLINGS:
        names = ", ".join(SAMPLINGS)
        raise ValueError(f"sampling is {part.sampling!r}: expected one of {names}")
    others = (part.weight, part.trace, part.schedule)
    if part.sampling != "uniform" and any(other is not None for other in others):
        raise ValueError(
            f"sampling is {part.sampling!r}, which weights, traces and schedules would bias: "
            "expected 'uniform' beside them"
        )
    for name in ("dropout", "stragglers", "least_work"):
        value = getattr(part, name)
        if not 0 <= value < 1:
            raise ValueError(f"{name} is {value}: expected 0 or more and less than 1")
    if part.weight is not None:
        good = np.isfinite(part.weight) & (np.asarray(part.weight) > 0)
        if part.weight.shape != (population,) or not good.all():
            raise ValueError(
                f"weight: expected {population} finite numbers above 0, one a client, got an array "
                f"of shape {part.weight.shape} with {int((~good).sum())} others"
            )
    if part.trace is not None and (part.trace.shape[1:] != (population,) or not len(part.trace)):
        raise ValueError(
            f"trace: expected one column for each of {population} clients, got {part.trace.shape}"
        )
    if part.schedule is not None and part.schedule.client.shape[1] != cohort_size:
        raise ValueError(
            f"schedule: expected {cohort_size} clients a round, got {part.schedule.client.shape[1]}"
        )


def shortened(
    part: Participation, steps: Int[np.ndarray, " P"], mean: int
) -> tuple[Participation, float]:
    """``part`` whose clients do the same share of their ``steps``, about ``mean``; and that share.

    Rounds of it take the share of the time, and are as uneven as whole ones: for measurements.
    """
    limit = np.maximum(1, np.ceil(steps * min(1.0, mean / steps.mean()))).astype(np.int32)
    if part.limit is not None:
        limit = np.minimum(limit, part.limit)
        steps = np.minimum(steps, part.limit)
    return part._replace(limit=limit), float(limit.sum() / steps.sum())


def places(part: Participation, population: int, size: int) -> int:
    """Ids that ``choose`` gives for ``size`` expected ones."""
    return min(population, cohorts.places(size)) if part.sampling == "poisson" else size


def choose(
    part: Participation, key: Key[Array, ""], number: Int[Array, ""], population: int, size: int
) -> tuple[Int[Array, " K"], Int[Array, " K"] | None]:
    """Ids of different clients or -1, and their staleness where rounds are buffered.

    Uniform, or weighted without replacement: the largest of log weight plus Gumbel noise, which
    is drawing one after the other in proportion to the weights of those left. With fewer clients
    there than asked for, the other ids are -1.

    Args:
      part: Who may be there.
      key: The run's.
      number: The round.
      population: P.
      size: K, at most P; the expected number where ``sampling`` is "poisson".
    """
    run_key, key = key, round_keys(key, number).cohort
    if part.schedule is not None:
        plan = part.schedule
        return (
            jnp.asarray(plan.client, jnp.int32)[number],
            jnp.asarray(plan.staleness, jnp.int32)[number],
        )
    if part.sampling == "poisson":
        room = places(part, population, size)
        ids, drawn = cohorts.poisson(key, population, size / population, room)
        return jnp.where(drawn, ids, -1), None
    if part.sampling == "cyclic":
        shuffle = jax.random.fold_in(run_key, CYCLE)
        return cohorts.cyclic(shuffle, number, population, size), None
    if part.weight is None and part.trace is None:
        everyone = jnp.arange(size, dtype=jnp.int32)
        return (everyone if size == population else cohorts.sample(key, population, size)), None
    score = _each(key, jnp.arange(population), lambda k: jax.random.gumbel(k))
    if part.weight is not None:
        score = score + jnp.log(jnp.asarray(part.weight, jnp.float32))
    if part.trace is not None:
        there = jnp.asarray(part.trace)[number % len(part.trace)]
        score = jnp.where(there, score, -jnp.inf)
    best, ids = jax.lax.top_k(score, size)
    return jnp.where(jnp.isfinite(best), ids, -1).astype(jnp.int32), None


def disturb(part: Participation, key: Key[Array, ""], cohort: Cohort) -> Cohort:
    """The cohort with partial work as fewer steps, and clients that stop half-way at weight 0."""
    steps, weight = cohort.steps, cohort.weight
    drop_key, slow_key, part_key = jax.random.split(jax.random.fold_in(key, _TAG), 3)
    if part.stragglers:
        slow = _each(slow_key, cohort.client_id, jax.random.uniform) < part.stragglers
        done = _each(
            part_key, cohort.client_id, lambda k: jax.random.uniform(k, minval=part.least_work)
        )
        partial = jnp.ceil(done * steps.astype(jnp.float32)).astype(steps.dtype)
        steps = jnp.where(slow, jnp.minimum(partial, steps), steps)
    if part.limit is not None:
        most = jnp.asarray(part.limit, steps.dtype)[jnp.maximum(cohort.client_id, 0)]
        steps = jnp.minimum(steps, most)
        weight = jnp.where(most > 0, weight, 0.0)
    if part.dropout:
        gone = _each(drop_key, cohort.client_id, jax.random.uniform) < part.dropout
        weight = jnp.where(gone, 0.0, weight)
    return cohort._replace(steps=jnp.where(weight > 0, steps, 0), weight=weight)


_TAG = np.iinfo(np.int32).max
"""Sets these keys apart from those of ``sample``, which folds in the population's size."""


def _each(key: Key[Array, ""], ids: Int[Array, " N"], draw: Callable) -> Float[Array, " N"]:
    return jax.vmap(lambda i: draw(jax.random.fold_in(key, i)))(ids)


# Traces: whether each of P clients is there in each of L rounds.


def diurnal(
    population: int, rounds: int, seed: int, *, availability: float, period: int, stay: float
) -> Bool[np.ndarray, "L P"]:
    """A day of ``period`` rounds: the chance to be there is a cosine, each client's phase its own.

    The mean chance is ``availability``, swinging between 0 and twice that up to one half, and
    above between ``2 availability - 1`` and 1.
    """
    del stay
    _check_trace(availability, period=period)
    phase = np.random.default_rng([seed, 0]).uniform(0, 2 * np.pi, population)
    swing = min(availability, 1 - availability)
    hour = 2 * np.pi * np.arange(rounds)[:, None] / period
    chance = availability + swing * np.cos(hour - phase)
    return _uniform(population, rounds, seed) < chance


def markov(
    population: int, rounds: int, seed: int, *, availability: float, period: int, stay: float
) -> Bool[np.ndarray, "L P"]:
    """On and off in spells: a share ``availability`` is there, with autocorrelation ``stay``.

    A client keeps its state with chance ``stay`` and otherwise draws it anew (Gilbert 1960).
    """
    del period
    _check_trace(availability, stay=stay)
    draws = _uniform(population, rounds, seed)
    there = np.empty((rounds, population), bool)
    for t in range(rounds):
        chance = availability if t == 0 else (1 - stay) * availability + stay * there[t - 1]
        there[t] = draws[t] < chance
    return there


TRACES: dict[str, Callable[..., Bool[np.ndarray, "L P"]]] = {"diurnal": diurnal, "markov": markov}


def _uniform(population: int, rounds: int, seed: int) -> Float[np.ndarray, "L P"]:
    """One number for each client and round, which depends on these and the seed alone."""
    return np.stack([np.random.default_rng([seed, 1, t]).random(population) for t in range(rounds)])


def _check_trace(availability: float, period: int = 1, stay: float = 0.0) -> None:
    if not 0 < availability <= 1:
        raise ValueError(f"availability is {availability}: expected more than 0, at most 1")
    if period < 1 or not 0 <= stay < 1:
        raise ValueError(
            f"expected period >= 1 and 0 <= stay < 1, got period {period}, stay {stay}"
        )
