"""Parametric MOS models: scalar functions of one measurement each; callers ``vmap`` them. JAX.

All are smooth or clipped, finite with finite gradients on the whole real line, and monotone: more
delay, more loss or a longer wait never raises the score. Quality decides the unit: delays of
conversation are in milliseconds as in ITU-T G.107, waits of a page or of a command in seconds;
arguments carry the unit in their name.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

Scalar = Float[Array, ""]

PACKETISATION_MS = 20.0
"""Speech in one voice packet, so the time its first sample waits for the last (50 packets/s)."""


class Codec(NamedTuple):
    """What the E-model knows of a speech codec.

    Attributes:
        impairment: I_e, equipment impairment factor without loss (R units).
        robustness: B_pl, packet-loss robustness factor (percent), positive.
        delay_ms: look-ahead and framing beyond ``PACKETISATION_MS``.
    """

    impairment: float
    robustness: float
    delay_ms: float


CODECS: dict[str, Codec] = {
    "g711": Codec(0.0, 4.3, 0.0),
    "g711_plc": Codec(0.0, 25.1, 0.0),
    "g729a": Codec(11.0, 19.0, 5.0),
    "g7231_63k": Codec(15.0, 16.1, 17.5),
}
"""I_e and B_pl of ITU-T G.113 appendix I; look-ahead of G.729 (5 ms) and of G.723.1 (7.5 ms, and
10 ms more of framing than ``PACKETISATION_MS``). "plc" is packet-loss concealment."""


class LossCurve(NamedTuple):
    """Impairment a + b ln(1 + c p) of a codec at loss ratio p (R units), after Cole-Rosenbluth."""

    a: float
    b: float
    c: float


COLE_ROSENBLUTH: dict[str, LossCurve] = {
    "g711": LossCurve(0.0, 30.0, 15.0),
    "g729a": LossCurve(11.0, 40.0, 10.0),
}
"""Fits of Cole and Rosenbluth (2001) to random loss, with concealment."""


class Iqx(NamedTuple):
    """Constants of ``iqx``: score = alpha * exp(-beta * qos) + gamma."""

    alpha: float
    beta: float
    gamma: float


IQX: dict[str, Iqx] = {
    "ilbc_loss_ratio": Iqx(2.861, 29.453, 1.134),
    "g711_loss_ratio": Iqx(3.010, 4.473, 1.065),
    "web_seconds": Iqx(4.836, 0.150, 0.0),
}
"""Fits of Fiedler, Hoßfeld and Tran-Gia (2010): two codecs against loss ratio, web against time."""

WEB_WORST_S: dict[str, float] = {"fast": 6.0, "medium": 15.0, "slow": 60.0}
"""Session time that rates 1 in the three contexts of ITU-T G.1030 (02/2014), annex A."""


def delay_impairment(delay_ms: Scalar) -> Scalar:
    """I_dd, the impairment of pure absolute delay. ITU-T G.107 (06/2015), equations 7-27 and 7-28.

    Args:
        delay_ms: T_a, one-way mouth-to-ear delay; below 100 ms nobody minds.

    Returns:
        R units in [0, 50).
    """
    x = jnp.log2(jnp.maximum(delay_ms, 100.0) / 100.0)
    # The clamp at 100 ms gives x = 0, where the formula and its slope vanish: no branch is needed.
    sixth = jnp.power(x, 6)
    third = jnp.power(x / 3.0, 6)
    return 25.0 * (jnp.power(1.0 + sixth, 1 / 6) - 3.0 * jnp.power(1.0 + third, 1 / 6) + 2.0)


def loss_impairment(loss_percent: Scalar, codec: Codec, burst_ratio: float = 1.0) -> Scalar:
    """I_e,eff, impairment of codec and packet loss together. ITU-T G.107 (06/2015), equation 7-29.

    Args:
        loss_percent: P_pl, packets lost or too late, in percent; outside [0, 100] it is clipped.
        codec: an entry of ``CODECS``.
        burst_ratio: BurstR, mean length of loss bursts over that of random loss: 1 for random loss,
            above 1 for bursty loss. G.107 vouches for bursts only up to 2 % loss.

    Returns:
        R units from I_e up; below 95 for random loss.
    """
    loss = jnp.clip(loss_percent, 0.0, 100.0)
    share = loss / (loss / burst_ratio + codec.robustness)
    return codec.impairment + (95.0 - codec.impairment) * share


def r_to_mos(rating: Scalar) -> Scalar:
    """Mean opinion score of a transmission rating R. ITU-T G.107 (06/2015), annex B.

    Returns:
        MOS-CQE in [1, 4.5]. The cubic of the annex dips to 0.989 near R = 3.2; it is clipped at 1.
    """
    r = jnp.clip(rating, 0.0, 100.0)
    cubic = 1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6
    return jnp.maximum(cubic, 1.0)


def voice(delay_ms: Scalar, loss_percent: Scalar, codec: Codec, burst_ratio: float = 1.0) -> Scalar:
    """MOS of a conversation by the E-model with default settings. ITU-T G.107 (06/2015).

    R = 93.2 - I_dd - I_e,eff: echo, noise and side tone at their defaults, no advantage factor.

    Args:
        delay_ms: mouth-to-ear delay, see ``mouth_to_ear_ms``.
        loss_percent: packets that were not played, see ``unplayed``.
        codec: an entry of ``CODECS``.
        burst_ratio: 1 for random loss.

    Returns:
        MOS in [1, 4.41].
    """
    impairments = delay_impairment(delay_ms) + loss_impairment(loss_percent, codec, burst_ratio)
    return r_to_mos(93.2 - impairments)


def cole_rosenbluth(delay_ms: Scalar, loss_ratio: Scalar, curve: LossCurve) -> Scalar:
    """MOS of a conversation by the common shortcut to the E-model; here for comparison with it.

    Cole and Rosenbluth, "Voice over IP performance monitoring", ACM SIGCOMM CCR 31(2), 2001:
    R = 94.2 - 0.024 d - 0.11 (d - 177.3) [d > 177.3] - a - b ln(1 + c p).

    Args:
        delay_ms: d, one-way mouth-to-ear delay; negative counts as 0.
        loss_ratio: p, packets lost or too late, a *ratio*; outside [0, 1] it is clipped.
        curve: an entry of ``COLE_ROSENBLUTH``.

    Returns:
        MOS in [1, 4.44].
    """
    d = jnp.maximum(delay_ms, 0.0)
    p = jnp.clip(loss_ratio, 0.0, 1.0)
    late = 0.024 * d + 0.11 * jnp.maximum(d - 177.3, 0.0)
    return r_to_mos(94.2 - late - (curve.a + curve.b * jnp.log1p(curve.c * p)))


def late_ratio(
    delay_ms: Float[Array, " n"], arrived: Float[Array, " n"], buffer_ms: float
) -> Scalar:
    """Share of arriving packets too late for a fixed de-jitter buffer: Pr(d - d_min > J).

    The buffer is set against the smallest delay that is seen. A step in delay, so without slope.

    Args:
        delay_ms: one-way network delay of each packet.
        arrived: its probability of arrival, or how many packets it stands for; 0 for padding.
        buffer_ms: J.

    Returns:
        A ratio in [0, 1], for ``unplayed``; 0 where nothing arrives.
    """
    weight = jnp.maximum(arrived, 0.0)
    least = jnp.min(jnp.where(weight > 0, delay_ms, jnp.inf))
    late = jnp.where((weight > 0) & (delay_ms - least > buffer_ms), weight, 0.0)
    total = jnp.sum(weight)
    return jnp.sum(late) / jnp.where(total > 0, total, 1.0)


def unplayed(loss_ratio: Scalar, late_ratio: Scalar) -> Scalar:
    """Share of packets that are never played: lost, or too late for the de-jitter buffer.

    Args:
        loss_ratio: packets lost in the network, in [0, 1].
        late_ratio: share of the *arriving* packets whose delay exceeds the smallest delay by more
            than the buffer, in [0, 1].

    Returns:
        A ratio in [0, 1]; multiply by 100 for ``voice``.
    """
    return loss_ratio + (1.0 - loss_ratio) * late_ratio


def mouth_to_ear_ms(least_delay_ms: Scalar, buffer_ms: float, codec: Codec) -> Scalar:
    """Delay of speech through a fixed de-jitter buffer: network, buffer, packetisation and codec.

    Args:
        least_delay_ms: smallest one-way network delay, against which the buffer is set.
        buffer_ms: what the buffer adds to it.
        codec: an entry of ``CODECS``.
    """
    return least_delay_ms + (buffer_ms + PACKETISATION_MS + codec.delay_ms)


def iqx(qos: Scalar, fit: Iqx) -> Scalar:
    """The IQX hypothesis: the worse it already is, the less a further disturbance matters.

    Fiedler, Hoßfeld, Tran-Gia, IEEE Network 24(2), 2010: dQoE/dQoS is proportional to
    -(QoE - gamma), so QoE = alpha * exp(-beta * qos) + gamma.

    Args:
        qos: a disturbance in the unit of the fit; negative values count as none.
        fit: an entry of ``IQX``.

    Returns:
        MOS, clipped to [1, 5].
    """
    return jnp.clip(fit.alpha * jnp.exp(-fit.beta * jnp.maximum(qos, 0.0)) + fit.gamma, 1.0, 5.0)


def web(seconds: Scalar, worst_s: float, best_s: float) -> Scalar:
    """MOS of a page or transaction: logarithmic in its time. ITU-T G.1030 (02/2014), annex A.

    Args:
        seconds: session time; below ``best_s`` it rates 5.
        worst_s: time that rates 1, for example one of ``WEB_WORST_S``; above ``best_s``.
        best_s: time that rates 5, positive.

    Returns:
        MOS in [1, 5].
    """
    wait = jnp.clip(seconds, best_s, worst_s)
    return 5.0 + 4.0 * jnp.log(wait / best_s) / jnp.log(jnp.float32(best_s / worst_s))


def command(seconds: Scalar) -> Scalar:
    """MOS of a smart-home command that takes ``seconds`` to act: 1 + 4 exp(-0.36 s).

    A two-point fit of this project: users are satisfied below 0.8 s and tolerate about 2 s
    (Information Systems Frontiers, doi 10.1007/s10796-010-9260-2), taken as MOS 4 and 3.

    Returns:
        MOS in (1, 5]; negative times count as none.
    """
    return 1.0 + 4.0 * jnp.exp(-0.36 * jnp.maximum(seconds, 0.0))
