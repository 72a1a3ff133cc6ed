"""Experience of machine traffic (QoME): a probability, never a MOS, since nobody is asked. JAX.

QoME in [0, 1] is the share of packets that arrive within a delay budget: Minovski et al., "Defining
quality of experience for the Internet of Things" (IT Professional 22(5), 2020); Fizza et al., "QoE
in IoT: a vision, survey and future directions" (Discover Internet of Things 1, 2021). Budgets are
those of 5QI classes (3GPP TS 23.501) and of network classes (ITU-T Y.1541). Age of information says
how stale the newest update is. Functions take one window of n packets or slots; callers ``vmap``.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Scalar = Float[Array, ""]


class Budget(NamedTuple):
    """What a class of traffic may cost.

    Attributes:
        delay_ms: packet delay budget.
        error_rate: share of packets that may be lost or late.
    """

    delay_ms: float
    error_rate: float


FIVE_QI: dict[int, Budget] = {
    1: Budget(100.0, 1e-2),  # conversational voice
    2: Budget(150.0, 1e-3),  # conversational video
    3: Budget(50.0, 1e-3),  # gaming, V2X, process monitoring
    4: Budget(300.0, 1e-6),  # buffered video
    65: Budget(75.0, 1e-2),  # mission-critical push to talk
    66: Budget(100.0, 1e-2),  # other push to talk
    67: Budget(100.0, 1e-3),  # mission-critical video
    71: Budget(150.0, 1e-6),  # live uplink streaming, as 72 to 76
    72: Budget(300.0, 1e-4),
    73: Budget(300.0, 1e-8),
    74: Budget(500.0, 1e-8),
    76: Budget(500.0, 1e-4),
    5: Budget(100.0, 1e-6),  # IMS signalling
    6: Budget(300.0, 1e-6),  # buffered video, TCP, as 8 and 9
    7: Budget(100.0, 1e-3),  # voice, live video, interactive gaming
    8: Budget(300.0, 1e-6),
    9: Budget(300.0, 1e-6),
    10: Budget(1100.0, 1e-6),  # any service over satellite
    69: Budget(60.0, 1e-6),  # mission-critical signalling
    70: Budget(200.0, 1e-6),  # mission-critical data
    79: Budget(50.0, 1e-2),  # V2X messages
    80: Budget(10.0, 1e-6),  # augmented reality
    82: Budget(10.0, 1e-4),  # discrete automation
    83: Budget(10.0, 1e-4),  # discrete automation, larger bursts
    84: Budget(30.0, 1e-5),  # intelligent transport systems
    85: Budget(5.0, 1e-5),  # electricity distribution, high voltage; remote driving
    86: Budget(5.0, 1e-4),  # V2X collision avoidance, platooning
}
"""Packet delay budget and packet error rate of 3GPP TS 23.501 (release 16), table 5.7.4-1."""


class Network(NamedTuple):
    """Objectives of a network class, end to end.

    Attributes:
        delay_ms: IPTD, upper bound on the mean transfer delay.
        variation_ms: IPDV, upper bound on the 99.9 % quantile of delay less the least delay; None
            where the class sets none.
        loss_ratio: IPLR, upper bound on the share of packets lost.
    """

    delay_ms: float
    variation_ms: float | None
    loss_ratio: float


Y1541: dict[int, Network] = {
    0: Network(100.0, 50.0, 1e-3),
    1: Network(400.0, 50.0, 1e-3),
    2: Network(100.0, None, 1e-3),
    3: Network(400.0, None, 1e-3),
    4: Network(1000.0, None, 1e-3),
    6: Network(100.0, 50.0, 1e-5),
    7: Network(400.0, 50.0, 1e-5),
}
"""ITU-T Y.1541 (12/2011), tables 1 and 3. Class 5 has no bound, so it is not here."""


def delivered(
    delay_ms: Float[Array, " n"],
    loss_ratio: Float[Array, " n"],
    packets: Float[Array, " n"],
    budget_ms: Scalar | float,
) -> Scalar:
    """QoME: share of packets that arrive within the delay budget. TS 23.501, clause 5.7.3.4.

    A late packet counts as lost, as it does there for delay-critical classes. Differentiable in
    loss; a step in delay.

    Args:
        delay_ms: one-way delay of each packet or slot.
        loss_ratio: probability that it is lost; outside [0, 1] it is clipped.
        packets: how many packets it stands for, 0 for padding; negative counts as 0.
        budget_ms: ``delay_ms`` of a ``Budget``.

    Returns:
        QoME in [0, 1]; 1 where nothing was sent: nothing came late.
    """
    weight = jnp.maximum(packets, 0.0)
    failed = jnp.where(delay_ms <= budget_ms, jnp.clip(loss_ratio, 0.0, 1.0), 1.0)
    total = jnp.sum(weight)
    return 1.0 - jnp.sum(weight * failed) / jnp.where(total > 0, total, 1.0)


def meets(qome: Scalar, budget: Budget) -> Bool[Array, ""]:
    """Whether a QoME keeps the error rate of its class (TS 23.501, clause 5.7.3.5)."""
    return qome >= 1.0 - budget.error_rate


def mean_age_s(
    sent_s: Float[Array, " n"],
    delay_s: Float[Array, " n"],
    arrived: Bool[Array, " n"],
    until_s: float,
) -> Scalar:
    """Mean age of information over [0, until_s] of one source. Kaul, Yates, Gruteser 2012.

    The age at a time is the time since the newest update that has arrived was sent ("Real-time
    status: how often should one update?", INFOCOM 2012, equation 1). At time 0 an update that was
    just sent is known.

    Args:
        sent_s: when each update was sent, in [0, until_s].
        delay_s: how long it took, not negative.
        arrived: false if it was lost, or is padding.
        until_s: end of the window, positive.

    Returns:
        Seconds in [0, until_s / 2 at most when nothing arrives].
    """
    arrival = jnp.where(arrived, jnp.minimum(sent_s + delay_s, until_s), until_s)
    order = jnp.argsort(arrival)
    newest = jax.lax.cummax(jnp.where(arrived, sent_s, 0.0)[order])
    known = jnp.concatenate([jnp.zeros(1, newest.dtype), newest])
    start = jnp.concatenate([jnp.zeros(1, arrival.dtype), arrival[order]])
    end = jnp.concatenate([arrival[order], jnp.full(1, until_s, arrival.dtype)])
    # The age grows with time between arrivals: a trapezium each.
    return jnp.sum((end - start) * ((start + end) / 2.0 - known)) / until_s
