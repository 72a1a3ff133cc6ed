"""What changes of quality cost in streaming: the whole of ITU-T P.1203.3 but its forest. JAX.

``video.streaming`` takes the mean quality; here the three corrections of the standard are taken off
it: for a bad spell, for oscillation and for adaptation. They count events and compare with
thresholds, so scores jump where ``video.streaming`` is smooth, and more quality may cost. Use these
to score sessions as the standard does, and ``video`` where gradients matter.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from qoejax.qoe import video

Scalar = Float[Array, ""]

CHANGE = 0.2
"""Least difference of MOS that counts as a change of quality."""
STEP = 3
"""Seconds between two looks at the smoothed quality."""
SMOOTH = 5
"""Seconds over which quality is averaged before directions are compared."""


class Changes(NamedTuple):
    """How the video quality of a session moves. P.1203.3 (10/2017), clauses 8.1.2.2 to 8.1.2.5.

    Attributes:
        spread: greatest less least MOS.
        rate: changes above ``CHANGE`` from second to second, per second.
        turns: runs of one direction in the smoothed quality.
        longest_s: longest time between two turns, or to an end of the session.
    """

    spread: Scalar
    rate: Scalar
    turns: Int[Array, ""]
    longest_s: Scalar


def _last_before(marked: Bool[Array, " n"], otherwise: int) -> Int[Array, " n"]:
    """Index of the last marked entry before each entry."""
    index = jnp.where(marked, jnp.arange(marked.shape[0]), otherwise)
    return jnp.concatenate([jnp.array([otherwise]), jax.lax.cummax(index)[:-1]])


def changes(quality: Float[Array, " T"], seconds: Int[Array, ""]) -> Changes:
    """How the first ``seconds`` of a quality track move.

    Args:
        quality: O22 of each second.
        seconds: n, in [1, T]; what follows is padding.
    """
    inside = jnp.arange(quality.shape[0]) < seconds
    last = quality[seconds - 1]
    held = jnp.where(inside, quality, last)  # the standard repeats the ends when it smooths
    spread = jnp.max(held) - jnp.min(held)
    rate = jnp.sum(jnp.abs(jnp.diff(held)) > CHANGE) / seconds
    ends = jnp.ones(SMOOTH - 1, held.dtype)
    padded = jnp.concatenate([held[0] * ends, held, last * ends])
    windows = jnp.arange(quality.shape[0] + SMOOTH - 1)[:, None] + jnp.arange(SMOOTH)[None]
    smooth = padded[windows].mean(1)[::STEP]
    step = jnp.diff(smooth)
    looks = (seconds + SMOOTH - 1 - 1) // STEP
    real = jnp.arange(step.shape[0]) < looks
    direction = jnp.where(real & (jnp.abs(step) > CHANGE), jnp.sign(step), 0.0)
    before = _last_before(direction != 0, -1)
    turned = (direction != 0) & ((before < 0) | (direction != direction[before]))
    previous = _last_before(turned, 0)
    final = jnp.max(jnp.where(turned, jnp.arange(step.shape[0]), 0))
    between = jnp.where(turned, jnp.arange(step.shape[0]) - previous, 0)
    longest = jnp.maximum(jnp.max(between), looks - final)
    return Changes(
        spread, rate.astype(held.dtype), jnp.sum(turned), STEP * longest.astype(held.dtype)
    )


def bad_spell(quality: Float[Array, " T"], baseline: Scalar, seconds: Int[Array, ""]) -> Scalar:
    """Negative bias: what the worst tenth of a session costs beyond its mean. Equations 5 to 7.

    Args:
        quality: O34 of each second.
        baseline: O35 without corrections, see ``video.integrated``.
        seconds: n, in [1, T].

    Returns:
        MOS points in [0, 0.14].
    """
    left = (seconds - 1 - jnp.arange(quality.shape[0])).astype(quality.dtype)
    weight = 1.87403625 - 0.87403625 * jnp.exp2(-jnp.maximum(left, 0.0) / 7.85416481)
    # Padding sorts last, and is finite so that no gradient meets infinity.
    ordered = jnp.sort(jnp.where(left >= 0, (quality - baseline) * weight, 1e3))
    rank = 0.1 * (seconds - 1).astype(quality.dtype)
    below = jnp.floor(rank).astype(int)
    above = jnp.minimum(below + 1, seconds - 1)
    share = rank - below.astype(quality.dtype)
    tenth = ordered[below] * (1.0 - share) + ordered[above] * share
    return 0.01853820 * jnp.maximum(-tenth, 0.0)


def restlessness(moves: Changes, seconds: Int[Array, ""]) -> Scalar:
    """What oscillation and adaptation cost together. Equations 23 to 27.

    Returns:
        MOS points in [0, 2]; 0 for a session that keeps its direction a quarter of the time.
    """
    busy = moves.longest_s < 0.25 * seconds.astype(moves.longest_s.dtype)
    depth = jnp.maximum(1.0 + jnp.log10(moves.spread + 0.001), 0.0)
    turns = moves.turns.astype(moves.spread.dtype)
    swing = jnp.exp(jnp.minimum(0.67756080 * turns - 8.05533303, 10.0))
    oscillation = jnp.clip(depth * swing, 0.0, 1.5)
    adaptation = jnp.clip(0.17332553 * moves.spread * moves.rate - 0.01035647, 0.0, 0.5)
    short = moves.longest_s < 30.0
    return jnp.where(busy & short, oscillation, 0.0) + jnp.where(busy, adaptation, 0.0)


def session(
    audio: Float[Array, " T"],
    picture: Float[Array, " T"],
    stalls: video.Stalls,
    duration_s: Scalar,
) -> Scalar:
    """O46, MOS of an adaptive streaming session, without the forest. ITU-T P.1203.3 (10/2017).

    O35 = baseline - bad spell - oscillation - adaptation (equation 18), then stalls as in
    ``video.streaming``. For video without sound the standard takes 5 for ``audio``.

    Args:
        audio: O21 of each second, in [1, 5].
        picture: O22 of each second, in [1, 5], see ``video.coded``.
        stalls: see ``video.Stalls``.
        duration_s: media time, at most T; whole seconds count.

    Returns:
        MOS in [1.01, 4.94].
    """
    seconds = jnp.clip(duration_s, 1.0, float(picture.shape[0])).astype(int)
    track = jnp.clip(picture, 1.0, 5.0)
    both = jax.vmap(video.audiovisual)(audio, track)
    baseline = video.integrated(both, duration_s)
    cost = bad_spell(both, baseline, seconds) + restlessness(changes(track, seconds), seconds)
    return video.final(baseline - cost, stalls, duration_s)
