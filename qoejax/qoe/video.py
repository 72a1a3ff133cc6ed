"""Video: streaming with stalls (ITU-T P.1203) and video calls (ITU-T G.1070). JAX.

Scalar functions of one session or one call; callers ``vmap`` them. All are finite with finite
gradients on the whole real line: inputs outside a model's range count as its nearest end. A longer
stall, a further stall or more loss never raises a score.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Scalar = Float[Array, ""]

LEAST_R, BEST_MOS, WORST_MOS = 3.25, 4.9, 1.05
"""Ends of the MOS scale of P.1203.1, and the R below which its cubic is not monotone."""


class Stalls(NamedTuple):
    """Stalling events of a session, E of them with padding; their order is free.

    Attributes:
        at_s: position in media time, 0 for the initial delay. Events after the end do not count.
        length_s: how long the picture stood still. Events of no length do not count.
        mask: false for padding.
    """

    at_s: Float[Array, " E"]
    length_s: Float[Array, " E"]
    mask: Bool[Array, " E"]


class Screen(NamedTuple):
    """What P.1203.1 mode 0 knows of coding and display besides the bitrate.

    Attributes:
        coded: pixels of a coded frame (height times width).
        shown: pixels of the display.
        frame_rate: frames/s.
    """

    coded: float
    shown: float
    frame_rate: float


SCREENS: dict[str, Screen] = {
    "720p_on_1080p": Screen(1280.0 * 720.0, 1920.0 * 1080.0, 30.0),
    "1080p": Screen(1920.0 * 1080.0, 1920.0 * 1080.0, 30.0),
}
"""Usual sizes; any other ``Screen`` will do."""


class Call(NamedTuple):
    """Coefficients v1 to v12 of ITU-T G.1070 for one codec, format and screen."""

    v1: float
    v2: float
    v3: float
    v4: float
    v5: float
    v6: float
    v7: float
    v8: float
    v9: float
    v10: float
    v11: float
    v12: float


CALLS: dict[str, Call] = {
    "mpeg4_qvga": Call(
        1.431, 2.228e-2, 3.759, 184.1, 1.161, 1.446, 3.881e-4, 2.116, 467.4, 2.736, 15.28, 4.170
    ),
}
"""ITU-T G.1070 appendix I, provisional: MPEG-4 in QVGA on a 4.2-inch screen."""


def rating_to_mos(rating: Scalar) -> Scalar:
    """MOS of a psychological rating R on the scale of ITU-T P.1203.1: [1.05, 4.9].

    Args:
        rating: R; outside [0, 100] it is clipped.
    """
    r = jnp.clip(rating, 0.0, 100.0)
    cubic = WORST_MOS + (BEST_MOS - WORST_MOS) / 100.0 * r + r * (r - 60.0) * (100.0 - r) * 7e-6
    return jnp.clip(cubic, WORST_MOS, BEST_MOS)


def mos_to_rating(mos: Scalar) -> Scalar:
    """R of a MOS: the inverse of ``rating_to_mos`` by interpolation, as in P.1203.1.

    Args:
        mos: outside [1.05, 4.9] it is clipped.

    Returns:
        R in [0, 100], within 0.01 of the inverse above R = 3.25; below, where the cubic has none,
        a line down to 0.
    """
    grid = jnp.linspace(LEAST_R, 100.0, 388)
    known = WORST_MOS + (BEST_MOS - WORST_MOS) / 100.0 * grid
    known = known + grid * (grid - 60.0) * (100.0 - grid) * 7e-6
    scores = jnp.concatenate([jnp.array([WORST_MOS]), known])
    ratings = jnp.concatenate([jnp.zeros(1), grid])
    return jnp.interp(mos, scores, ratings)


def coded(bitrate_kbps: Scalar, screen: Screen) -> Scalar:
    """O22, MOS of H.264 video by its bitrate alone. ITU-T P.1203.1 (01/2019) mode 0, clause 8.

    Quantisation is guessed from bitrate, frame rate and size; upscaling to the display and fewer
    than 24 frames/s cost extra.

    Args:
        bitrate_kbps: of the video stream; below 1 counts as 1.
        screen: see ``Screen``.

    Returns:
        MOS in [1.05, 4.9]. For a hand-held screen apply ``handheld``.
    """
    rate = jnp.clip(bitrate_kbps, 1.0, 1e6)
    density = rate * (rate / (screen.coded * screen.frame_rate))
    fineness = 41.2475074001 + jnp.log(rate) + jnp.log(density + 0.13183165961)
    quantisation = 11.9983519 - 2.99991847 * jnp.log(fineness)
    quality = jnp.clip(4.66 - 0.07 * jnp.exp(4.06 * quantisation), 1.0, 5.0)
    coding = 100.0 - mos_to_rating(quality)
    growth = max(screen.shown / screen.coded, 1.0)
    scaling = jnp.clip(72.61 * jnp.log10(jnp.float32(0.32 * (growth - 1.0) + 1.0)), 0.0, 100.0)
    slow = max(30.98 - 1.29 * screen.frame_rate, 0.0) / (64.65 + screen.frame_rate)
    slow = slow if screen.frame_rate < 24.0 else 0.0
    jerkiness = jnp.maximum(100.0 - coding - scaling, 0.0) * slow
    return rating_to_mos(100.0 - coding - scaling - jerkiness)


def handheld(mos: Scalar) -> Scalar:
    """Video MOS of a hand-held screen. ITU-T P.1203.1 (01/2019), equation 13.

    Args:
        mos: O22, see ``coded``; outside [1, 5] it is clipped.

    Returns:
        MOS in [1.18, 5].
    """
    q = jnp.clip(mos, 1.0, 5.0)
    return jnp.clip(-0.60293 + 2.12382 * q - 0.36936 * q**2 + 0.03409 * q**3, 1.0, 5.0)


def audiovisual(audio: Scalar, video: Scalar) -> Scalar:
    """O34, MOS of sound and picture of one second. ITU-T P.1203.3 (10/2017), clause 8.2.

    Args:
        audio: O21, in [1, 5].
        video: O22, in [1, 5].

    Returns:
        MOS in [1, 5].
    """
    sound, picture = jnp.clip(audio, 1.0, 5.0), jnp.clip(video, 1.0, 5.0)
    both = -0.00069084 + 0.15374283 * sound + 0.97153861 * picture + 0.02461776 * sound * picture
    return jnp.clip(both, 1.0, 5.0)


def integrated(quality: Float[Array, " T"], duration_s: Scalar) -> Scalar:
    """O35 baseline: mean quality, late and bad seconds weighing more. P.1203.3, equations 19-21.

    The standard's corrections for negative bias, oscillation and adaptation are left out, as in its
    simplified variant (amendment 1, appendix II): they count events and have no slope.

    Args:
        quality: O34 of each second of media, in [1, 5]; seconds from ``duration_s`` on are padding.
        duration_s: media time; below 1 s counts as 1 s.

    Returns:
        MOS in [1, 5].
    """
    duration = jnp.clip(duration_s, 1.0, float(quality.shape[0]))
    score = jnp.clip(quality, 1.0, 5.0)
    second = jnp.arange(quality.shape[0], dtype=score.dtype)
    late = 0.00666620027943848 + 0.0000404018840273729 * jnp.exp(
        jnp.minimum(second / duration, 1.0) / 0.156497800436237
    )
    weight = jnp.where(
        second < duration, late * (0.143179744942738 - 0.0238641564518876 * score), 0
    )
    return jnp.sum(weight * score) / jnp.sum(weight)


def stalling(stalls: Stalls, duration_s: Scalar) -> Scalar:
    """What stalling leaves of the quality. ITU-T P.1203.3 (10/2017), clause 8.1.1, equation 29.

    Args:
        stalls: see ``Stalls``.
        duration_s: media time, without stalls; below 1 s counts as 1 s.

    Returns:
        A factor in [0, 1] on MOS - 1; 1 without stalls. O23 of the standard is 1 + 4 times it.
    """
    duration = jnp.maximum(duration_s, 1.0)
    real = stalls.mask & (stalls.length_s > 0) & (stalls.at_s <= duration)
    at = jnp.clip(stalls.at_s, 0.0, duration)
    length = jnp.where(real, stalls.length_s, 0.0)
    # A stall just before the end weighs fully, one long ago about half.
    weighted = jnp.sum(length * (0.48412879 + 0.51587121 * jnp.exp2((at - duration) / 10.0)))
    number = jnp.sum(real).astype(at.dtype)
    # The mean gap of sorted events only depends on the first and the last.
    first = jnp.min(jnp.where(real, at, duration))
    last = jnp.max(jnp.where(real, at, 0.0))
    gap = jnp.where(number > 1, (last - first) / jnp.maximum(number - 1.0, 1.0), 0.0)
    return jnp.exp(
        -number / 9.35158684 - weighted / duration / 0.91890815 - gap / duration / 11.0567558
    )


def final(quality: Scalar, stalls: Stalls, duration_s: Scalar) -> Scalar:
    """O46 of an integrated quality O35 and the stalls. ITU-T P.1203.3 (10/2017), clause 8.1.

    Equations 28 and 30: mos = 1 + (O35 - 1) S, O46 = 0.028 + 0.981 mos. The standard blends a
    quarter of a random forest into mos; here mos stands for it.

    Returns:
        MOS in [1.01, 4.94].
    """
    score = jnp.clip(1.0 + (quality - 1.0) * stalling(stalls, duration_s), 1.0, 5.0)
    return 0.02833052 + 0.98117059 * score


def streaming(quality: Float[Array, " T"], stalls: Stalls, duration_s: Scalar) -> Scalar:
    """MOS of a streaming session: ``integrated`` quality and stalls. ITU-T P.1203.3 (10/2017).

    Neither random forest (see ``final``) nor corrections for changes of quality: for those see
    ``adaptation.session``.

    Args:
        quality: O34 of each second of media, see ``audiovisual``.
        stalls: see ``Stalls``.
        duration_s: media time, at most T; the standard holds from 30 s to 300 s.

    Returns:
        MOS in [1.01, 4.94].
    """
    return final(integrated(quality, duration_s), stalls, duration_s)


def call(
    bitrate_kbps: Scalar,
    frame_rate: Scalar,
    loss_percent: Scalar,
    coefficients: Call = CALLS["mpeg4_qvga"],
) -> Scalar:
    """V_q, MOS of the picture of a video call. ITU-T G.1070 (06/2018), video quality estimation.

    Args:
        bitrate_kbps: of the video; outside [0, 10000] it is clipped.
        frame_rate: frames/s; outside [1, 30] it is clipped.
        loss_percent: packets lost or too late; outside [0, 100] it is clipped.
        coefficients: an entry of ``CALLS``.

    Returns:
        MOS in [1, 5]; at most 1 + v3. Never rises with loss. It is not monotone in bitrate: each
        bitrate has its best frame rate, and fewer frames than that cost quality.
    """
    v = coefficients
    bitrate = jnp.clip(bitrate_kbps, 0.0, 1e4)
    frames = jnp.clip(frame_rate, 1.0, 30.0)
    loss = jnp.clip(loss_percent, 0.0, 100.0)
    best = jnp.clip(v.v1 + v.v2 * bitrate, 1.0, 30.0)
    at_best = v.v3 - v.v3 / (1.0 + jnp.power(bitrate / v.v4, v.v5))
    tolerance = v.v6 + v.v7 * bitrate
    off = (jnp.log(frames) - jnp.log(best)) / tolerance
    coding = jnp.clip(at_best * jnp.exp(-0.5 * off**2), 0.0, 4.0)
    robustness = v.v10 + v.v11 * jnp.exp(-frames / v.v8) + v.v12 * jnp.exp(-bitrate / v.v9)
    return 1.0 + coding * jnp.exp(-loss / robustness)
