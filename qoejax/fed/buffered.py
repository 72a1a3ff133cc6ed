"""Buffered asynchronous rounds as a plan made beforehand. NumPy.

FedBuff (Nguyen et al. 2022): a number of clients train at any time, each from the model that was
newest when it began; the server takes a step when its buffer is full. Who arrives when depends on
the clients' times alone and not on what they learn, so the whole run of events is known before
it starts, and its rounds compile like any others.
"""

import heapq

import numpy as np
from jaxtyping import Float

from qoejax.fed.participation import Schedule


def plan(
    population: int,
    *,
    rounds: int,
    buffer: int,
    concurrency: int,
    seed: int,
    seconds: Float[np.ndarray, " P"] | None = None,
    most_stale: int = 0,
) -> Schedule:
    """Simulates a buffered server.

    At the start, and whenever an answer has arrived, the server picks clients uniformly among
    those that neither train nor wait in the buffer, until ``concurrency`` train; a client is free
    again when the buffer that holds its answer is used.

    Args:
      population: P clients.
      rounds: R, steps of the server.
      buffer: K, answers that make a step.
      concurrency: Clients that train at a time.
      seed: Of the choice of clients, and of durations.
      seconds: How long each client takes for an answer; without it every duration is drawn anew
        from a half-normal distribution of scale 1, as in the paper's experiments.
      most_stale: Answers from models older than this many rounds are dropped on arrival, and the
        client is free again; 0 for no limit.

    Returns:
      The plan; all clients of one round differ.

    Raises:
      ValueError: too few clients, or a time that is no finite number above 0.
    """
    _check(population, rounds, buffer, concurrency, seconds)
    rng = np.random.default_rng([seed, 2])
    free = list(range(population))
    training: list[tuple[float, int, int]] = []  # end, client, round of its model
    held: list[tuple[int, int]] = []
    client, stale, end, now = [], [], [], 0.0
    while len(end) < rounds:
        while len(training) < concurrency and free:
            i = int(rng.integers(len(free)))
            free[i], free[-1] = free[-1], free[i]
            who = free.pop()
            takes = abs(rng.standard_normal()) if seconds is None else float(seconds[who])
            heapq.heappush(training, (now + takes, who, len(end)))
        now, who, began = heapq.heappop(training)
        age = len(end) - began
        if most_stale and age > most_stale:
            free.append(who)
            continue
        held.append((who, age))
        if len(held) == buffer:
            client.append([c for c, _ in held])
            stale.append([a for _, a in held])
            end.append(now)
            free += client[-1]
            held = []
    return Schedule(np.array(client, np.int32), np.array(stale, np.int32), np.array(end))


def _check(
    population: int,
    rounds: int,
    buffer: int,
    concurrency: int,
    seconds: Float[np.ndarray, " P"] | None,
) -> None:
    if min(rounds, buffer, concurrency) < 1:
        raise ValueError(
            f"expected at least 1 of rounds, buffer and concurrency, got {rounds}, {buffer}, "
            f"{concurrency}"
        )
    if buffer + concurrency - 1 > population:
        raise ValueError(
            f"a buffer of {buffer} and {concurrency} clients that train beside it need "
            f"{buffer + concurrency - 1} clients: expected as many, there are {population}"
        )
    if seconds is not None and (
        seconds.shape != (population,) or not (np.isfinite(seconds) & (seconds > 0)).all()
    ):
        raise ValueError("seconds: expected one finite time above 0 for each client")
