"""Attack traffic in slots: how strong, from when to when, on and off, synthetic or recorded. JAX.

Functions describe one episode; callers ``vmap`` them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from qoejax.simulate import mixes
from qoejax.simulate.queue import SLOTS
from qoejax.simulate.ranges import Range

HIDDEN: dict[str, Range] = {
    # Where it lies between the ends of its family, when, how smooth, in which way.
    "attack": Range(0.0, 1.0),
    "attack_start": Range(0.07, 0.53),
    "attack_length_s": Range(12.0, 50.0),
    "attack_rise_s": Range(0.2, 3.0),
    "pulses": Range(0.0, 1.0),
    "pulse_period_s": Range(3.0, 8.0),
    "pulse_duty": Range(0.25, 0.6),
    **{f"way_{i}": Range(0.0, 6.0) for i in range(mixes.WAYS)},
}
"""Hidden quantities of an attack. Its start is a share of the episode's length."""

RECORDED = Range(0.1, 4.0, log=True)
"""Height of a recorded flood or fragmentation as a share of capacity; others keep their own."""

_ATTACKS = tuple(mixes.ATTACKS.values())
_STRONG = 1.0
"""Families that can exceed this share of capacity are scaled as ``RECORDED`` says."""


class Recording(NamedTuple):
    """Rows of recorded attacks, label by label, in the order they were recorded.

    Attributes:
        kinds: ``mixes.Kind`` of each row.
        rate: bytes/s of each row; only its shape over time matters.
        start: first row of each of ``mixes.LABELS``.
        count: rows of each label; 0 where nothing was recorded.
    """

    kinds: Float[Array, "R A"]
    rate: Float[Array, " R"]
    start: Int[Array, " C"]
    count: Int[Array, " C"]


class Run(NamedTuple):
    """A contiguous run of recorded rows, one a second.

    Attributes:
        kinds: ``mixes.Kind`` of each second.
        level: rate of each second over the mean of the run.
        there: whether anything was recorded of the label; else the rest means nothing.
    """

    kinds: Float[Array, "W A"]
    level: Float[Array, " W"]
    there: Array


def recording(
    kinds: Float[np.ndarray, "R A"], rate: Float[np.ndarray, " R"], label: Int[np.ndarray, " R"]
) -> Recording:
    """Orders recorded rows by label (NumPy, on the host); rows of a label keep their order.

    Args:
        kinds: see ``mixes.Kind``; sizes of at least 1 byte, shares in [0, 1].
        rate: bytes/s, positive.
        label: index into ``mixes.LABELS``; benign rows (0) are not used.

    Raises:
        ValueError: if no attack is among the rows, or a value is out of its range.
    """
    used = np.flatnonzero(label > 0)
    if not len(used):
        raise ValueError("recorded attacks: expected at least one row of an attack, got none")
    kinds, rate, label = kinds[used], rate[used], label[used]
    possible = np.isfinite(kinds).all() and (kinds >= 0).all() and (kinds[:, 4:] <= 1).all()
    if not possible or kinds[:, 0].min() < 1 or not np.isfinite(rate).all() or rate.min() <= 0:
        raise ValueError(
            "recorded attacks: expected finite rows with sizes of at least 1 byte, positive rates "
            "and shares in [0, 1]"
        )
    order = np.argsort(label, kind="stable")
    count = np.bincount(label, minlength=len(mixes.LABELS))
    return Recording(
        kinds=jnp.asarray(kinds[order], jnp.float32),
        rate=jnp.asarray(rate[order], jnp.float32),
        start=jnp.asarray(np.cumsum(count) - count, jnp.int32),
        count=jnp.asarray(count, jnp.int32),
    )


def contiguous(
    key: Key[Array, ""], recorded: Recording, label: Int[Array, ""], seconds: int
) -> Run:
    """A run of ``seconds`` rows of one label from a random start.

    A circular block bootstrap (Politis and Romano 1992): a label with fewer rows starts over.
    """
    count = jnp.maximum(recorded.count[label], 1)
    first = jax.random.randint(key, (), 0, count)
    rows = recorded.start[label] + jnp.mod(first + jnp.arange(seconds), count)
    rate = recorded.rate[rows]
    return Run(recorded.kinds[rows], rate / rate.mean(), recorded.count[label] > 0)


def draw_label(key: Key[Array, ""], allowed: tuple[int, ...]) -> Int[Array, ""]:
    """No attack in one of five episodes, else one of those allowed, by ``Attack.weight``."""
    pool = [label for label in allowed for _ in range(_ATTACKS[label - 1].weight)]
    # One draw from 0 .. 5 n - 1 whose lowest fifth means benign.
    die = jax.random.randint(key, (), 0, 5 * len(pool))
    attack = jnp.array(pool)[jnp.maximum(die - len(pool), 0) // 4]
    return jnp.where(die < len(pool), 0, attack)


def shape(
    hidden: dict[str, Float[Array, ""]], label: Int[Array, ""], time: Float[Array, " S"]
) -> tuple[Float[Array, " S"], Float[Array, " S"]]:
    """An attack over time, 1 at its height; nothing for label 0.

    Some attacks of each family pulse: on for a part of each period.

    Args:
        hidden: drawn from ``HIDDEN``.
        label: index into ``mixes.LABELS``.
        time: middle of each slot, s.

    Returns:
        The shape, and 1 in the slots where the attack is under way (the pauses between its pulses
        included).
    """
    pulses = jnp.array([0.0, *(a.pulses for a in _ATTACKS)])[label]
    start = hidden["attack_start"] * (time.shape[0] / SLOTS)
    height = envelope(time, start, hidden["attack_length_s"], hidden["attack_rise_s"])
    height = jnp.where(label > 0, height, 0.0)
    period = hidden["pulse_period_s"]
    pause = jnp.mod(time - start, period) > hidden["pulse_duty"] * period
    on = jnp.where((hidden["pulses"] < pulses) & pause, 0.0, 1.0)
    return height * on, (height > 0.0).astype(jnp.float32)


def share(
    hidden: dict[str, Float[Array, ""]],
    label: Int[Array, ""],
    wandering: Float[Array, " S"],
    run: Run | None,
) -> Float[Array, " S"]:
    """Height of an attack in each slot as a share of capacity, before its ``shape``.

    Log-uniform between the ends of its family, wandering; or, with a recorded run, as its rows go.

    Args:
        hidden: drawn from ``HIDDEN``.
        label: index into ``mixes.LABELS``.
        wandering: level of mean 1 in each slot.
        run: of the same seconds, or None.
    """
    low = jnp.array([1.0, *(a.low for a in _ATTACKS)])[label]
    high = jnp.array([1.0, *(a.high for a in _ATTACKS)])[label]
    own = low * (high / low) ** hidden["attack"]
    if run is None:
        return own * wandering
    most = RECORDED.low * (RECORDED.high / RECORDED.low) ** hidden["attack"]
    level = jnp.repeat(run.level, SLOTS, total_repeat_length=wandering.shape[0])
    return jnp.where(run.there, jnp.where(high > _STRONG, most, own) * level, own * wandering)


def envelope(
    time: Float[Array, " S"], start: Array, length_s: Array, rise_s: Array
) -> Float[Array, " S"]:
    """0 before ``start``, rising to 1 in ``rise_s`` seconds, falling as slowly after the length."""
    up = jnp.clip((time - start) / rise_s, 0.0, 1.0)
    down = jnp.clip((time - start - length_s) / rise_s, 0.0, 1.0)
    return up - down
