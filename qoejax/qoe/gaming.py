"""Cloud gaming: the planning model of ITU-T G.1072. JAX.

Scalar functions of one session; callers ``vmap`` them. Impairments of coding, loss and delay add up
on the R scale and give a MOS. All are finite with finite gradients on the whole real line: inputs
outside a range that is given count as its nearest end. More delay or loss never raises the score.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

Scalar = Float[Array, ""]

BEST_R = 78.49
"""Best overall rating: games are never rated perfect, so R is clipped here."""
MIN_FLUENT_MS = 16.0
"""Below this round trip a retransmission arrives in time: no frame is lost."""


class Frames(NamedTuple):
    """offset + square * fps^2 + linear * fps + loss * ln(1 + frame loss in percent)."""

    offset: float
    square: float
    linear: float
    loss: float


class Delay(NamedTuple):
    """height / (1 + exp(middle - slope * delay)) + offset."""

    height: float
    middle: float
    slope: float
    offset: float


class Sensitivity(NamedTuple):
    """How a class of games takes delay and lost frames."""

    video: Frames
    interaction: Frames
    delay: Delay


class Coding(NamedTuple):
    """Coefficients of coding and slicing of a class of video (G.1071 refitted)."""

    height: float
    decay: float
    complexity: float
    offset: float
    detail: float
    detail_decay: float
    detail_floor: float
    slicing: float
    slicing_gain: float
    worst: float
    robustness: float
    spread: float
    growth: float


_SENSITIVE = Sensitivity(
    Frames(47.03, 0.01747, -1.823, 10.7),
    Frames(54.71, 0.02589, -2.485, 9.306),
    Delay(90.0, 1.191, 0.009775, -18.73),
)

SENSITIVITIES: dict[str, Sensitivity] = {
    "low": Sensitivity(
        Frames(29.13, 0.01344, -1.283, 6.724),
        Frames(23.43, 0.008574, -0.9253, 5.855),
        Delay(47.97, 2.097, 0.01073, -4.567),
    ),
    "medium": _SENSITIVE,
    "high": _SENSITIVE,
}
"""By how much a game demands of its player. G.1072 has one set for medium and high."""

CODINGS: dict[str, Coding] = {
    "low": Coding(
        52.5052380, -28.0170325, -2.68405109, 5.46647668, 12.4214486, -28.0191642, 0.215799183,
        19.7091683, 3358.30546, 28.3699150, 2.34972977e-2, 1.64739513e-3, 8.95913579e-2,
    ),
    "medium": Coding(
        37.9882097, -13.7207634, 8.57836656, 3.26581290, 6.83275916, -127.997288, 0.479594798,
        0.612878511, 1.39396166e-3, 56.2892863, 4.75669545e-3, 5.81327058e-2, 2.38014343,
    ),
    "high": Coding(
        47.7463038, -12.0699723, 9.05167501, 3.41919377, 7.62306351, -167.837954, 7.60332685e-2,
        1.57176227, 3.68595885, 74.0570804, 4.06000335e-3, 2.58892015e-8, 0.868406685,
    ),
}  # fmt: skip
"""By how hard the picture is to code. Burstiness, whose factor the model sets to 0, is left out."""


class Stream(NamedTuple):
    """Coding of the game's video.

    Attributes:
        bitrate_mbps: clipped to [0.3, 50].
        frame_rate: frames/s; clipped to [10, 60].
        pixels: of a coded frame, between 640 x 480 and 1920 x 1080.
    """

    bitrate_mbps: Scalar | float
    frame_rate: Scalar | float
    pixels: float = 1920.0 * 1080.0


def rating_to_mos(rating: Scalar) -> Scalar:
    """MOS in [1.3, 4.64] of a rating R. ITU-T G.1072 (01/2020).

    Args:
        rating: R; outside [0, 100] it is clipped.
    """
    r = jnp.clip(rating, 0.0, 100.0)
    cubic = 1.3 + (4.64 - 1.3) / 100.0 * r + r * (r - 60.0) * (100.0 - r) * 7e-6
    return jnp.clip(cubic, 1.3, 4.64)


def delay_impairment(delay_ms: Scalar, sensitivity: Sensitivity) -> Scalar:
    """I_inp, what a late reaction costs. ITU-T G.1072 (01/2020), input quality.

    Args:
        delay_ms: network round-trip time; negative counts as 0. Fitted up to 400 ms.
        sensitivity: an entry of ``SENSITIVITIES``.

    Returns:
        R units in [0, 68.98].
    """
    d = sensitivity.delay
    late = jnp.clip(delay_ms, 0.0, 1e4)
    return jnp.clip(d.height / (1.0 + jnp.exp(d.middle - d.slope * late)) + d.offset, 0.0, 68.98)


def frame_loss_percent(loss_percent: Scalar, delay_ms: Scalar, stream: Stream) -> Scalar:
    """Frames that freeze out where lost packets are sent again. G.1072 cor. 1, equation 12.

    Args:
        loss_percent: packets lost; outside [0, 100] it is clipped. Fitted up to 5.
        delay_ms: network round-trip time.
        stream: see ``Stream``.

    Returns:
        Percent in [0, 100].
    """
    loss = jnp.clip(loss_percent, 0.0, 100.0)
    rate, fps = jnp.clip(stream.bitrate_mbps, 0.3, 50.0), jnp.clip(stream.frame_rate, 10.0, 60.0)
    wait = 0.09656 * jnp.clip(delay_ms, MIN_FLUENT_MS, 1e4) - 1.5
    wait = jnp.where(delay_ms < MIN_FLUENT_MS, 0.0, wait)
    exponent = (0.08526 + 0.00073 * fps + 1.425e-4 * rate * fps) * wait * loss
    return -100.0 * jnp.expm1(-exponent)


def _frames(c: Frames, stream: Stream, frame_loss: Scalar, most: float) -> Scalar:
    """I_TVQ and I_frames, what few and frozen frames cost. G.1072 cor. 1, equations 10 and 13."""
    fps = jnp.clip(stream.frame_rate, 10.0, 60.0)
    cost = c.offset + c.square * fps**2 + c.linear * fps + c.loss * jnp.log1p(frame_loss)
    return jnp.clip(cost, 0.0, most)


def coding_impairment(stream: Stream, coding: Coding) -> Scalar:
    """I_cod, what compression costs: G.1071 refitted to games. ITU-T G.1072 (01/2020).

    Args:
        stream: see ``Stream``.
        coding: an entry of ``CODINGS``.

    Returns:
        R units in [0, 65].
    """
    rate, fps = jnp.clip(stream.bitrate_mbps, 0.3, 50.0), jnp.clip(stream.frame_rate, 10.0, 60.0)
    bits = rate * 1e6 / (stream.pixels * fps)
    detail = coding.detail * jnp.exp(coding.detail_decay * bits) + coding.detail_floor
    cost = coding.height * jnp.exp(coding.decay * bits) + coding.complexity * detail
    return jnp.clip(cost + coding.offset, 0.0, 65.0)


def slicing_impairment(slicing_percent: Scalar, impaired: Scalar, coding: Coding) -> Scalar:
    """I_tra, what lost packets cost that are not sent again. ITU-T G.1072 (01/2020).

    Args:
        slicing_percent: packets lost; outside [0, 100] it is clipped. Fitted up to 2.
        impaired: I_cod, see ``coding_impairment``.
        coding: an entry of ``CODINGS``.

    Returns:
        R units, not negative. Coding already worse than the worst slicing leaves none (the formula
        would take the logarithm of a negative number there).
    """
    loss = jnp.clip(slicing_percent, 0.0, 100.0)
    worst = jnp.maximum(coding.worst - impaired, 0.0)
    magnitude = worst * loss / (jnp.maximum(impaired, 1e-3) * coding.robustness + loss)
    power = coding.growth * magnitude
    scale = coding.slicing_gain * coding.spread
    # ln(1 + scale (e^power - 1)) without the power that would overflow.
    return coding.slicing * (power + jnp.log(scale + (1.0 - scale) * jnp.exp(-power)))


def cloud_gaming(
    delay_ms: Scalar,
    loss_percent: Scalar,
    slicing_percent: Scalar,
    stream: Stream,
    sensitivity: Sensitivity = SENSITIVITIES["high"],
    coding: Coding = CODINGS["high"],
) -> Scalar:
    """MOS of a cloud gaming session. ITU-T G.1072 (01/2020) with corrigendum 1 (10/2020).

    R = 100 - .788 I_cod - .896 I_tra - .227 I_TVQ - .625 I_frames - .848 I_inp. The default classes
    are those that G.1072 takes for an unknown game.

    Args:
        delay_ms: network round-trip time, [0, 400].
        loss_percent: packets lost and sent again, so that frames freeze, [0, 5].
        slicing_percent: packets lost for good, so that slices break, [0, 2].
        stream: see ``Stream``.
        sensitivity: an entry of ``SENSITIVITIES``.
        coding: an entry of ``CODINGS``.

    Returns:
        MOS in [1.3, 4.15].
    """
    frozen = frame_loss_percent(loss_percent, delay_ms, stream)
    compressed = coding_impairment(stream, coding)
    rating = (
        100.0
        - 0.788 * compressed
        - 0.896 * slicing_impairment(slicing_percent, compressed, coding)
        - 0.227 * _frames(sensitivity.video, stream, frozen, 61.29)
        - 0.625 * _frames(sensitivity.interaction, stream, frozen, 68.98)
        - 0.848 * delay_impairment(delay_ms, sensitivity)
    )
    return rating_to_mos(jnp.clip(rating, 0.0, BEST_R))
