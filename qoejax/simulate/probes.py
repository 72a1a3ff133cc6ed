"""Probe traffic of four services, and the score that each makes of what it meets. JAX.

Each service sends a small stream of its own through the bottleneck. A packet meets the delay of the
slot it is sent in and, in expectation, its loss; scores are per second, by the models of
``qoejax.qoe``. Functions take one episode of S = 100 W slots; callers ``vmap`` them.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from qoejax.qoe import machine, mos, video
from qoejax.simulate.mixes import Kind
from qoejax.simulate.queue import SLOT_S, SLOTS

DEJITTER_MS = 60.0
CODEC = mos.CODECS["g711_plc"]

VIDEO_KBPS, VIDEO_FPS = 512.0, 12.5
VIDEO_LATE_MS = 100.0
"""A video packet later than this behind the quickest of its second is not shown."""

COMMAND_S = 0.2
"""What a command takes besides the network: cloud, radio, actuator."""
TIMEOUTS_S = np.array([0.0, 1.0, 3.0, 7.0], np.float32)
"""When a command is sent (again): TCP's first timeout of 1 s, doubling (RFC 6298)."""


class Probe(NamedTuple):
    """A service's own traffic: its packets, how many a second, and how it is scored.

    ``score(delay_ms[S], loss[S], budget_ms) -> [W]``; ``machine`` says that the score is a QoME in
    [0, 1], not a MOS.
    """

    kind: Kind
    rate: float
    score: Callable[..., Float[Array, " W"]]
    machine: bool = False

    def bytes_per_slot(self) -> float:
        """Load of the probe."""
        return self.rate * self.kind.size * SLOT_S


def voice(
    delay_ms: Float[Array, " S"], loss: Float[Array, " S"], budget_ms: Float[Array, ""]
) -> Float[Array, " W"]:
    """MOS of a call by the E-model (G.107) behind a fixed de-jitter buffer.

    The buffer plays ``DEJITTER_MS`` after the smallest delay of the second; what is later is lost.
    """
    del budget_ms
    delay, lost = _sent(delay_ms, 2), _sent(loss, 2)
    unplayed = 100.0 * _unplayed(delay, lost, DEJITTER_MS)
    to_ear = jax.vmap(lambda least: mos.mouth_to_ear_ms(least, DEJITTER_MS, CODEC))(delay.min(1))
    return jax.vmap(lambda d, p: mos.voice(d, p, CODEC))(to_ear, unplayed)


def video_call(
    delay_ms: Float[Array, " S"], loss: Float[Array, " S"], budget_ms: Float[Array, ""]
) -> Float[Array, " W"]:
    """MOS of the picture of a video call (G.1070): lost and late packets; delay as such is free."""
    del budget_ms
    unshown = _unplayed(_sent(delay_ms, 2), _sent(loss, 2), VIDEO_LATE_MS)
    score = jax.vmap(lambda p: video.call(jnp.float32(VIDEO_KBPS), jnp.float32(VIDEO_FPS), p))
    return score(100.0 * unshown)


def command(
    delay_ms: Float[Array, " S"], loss: Float[Array, " S"], budget_ms: Float[Array, ""]
) -> Float[Array, " W"]:
    """Expected MOS of smart-home commands sent in a second, by the time until they act.

    A lost command is sent again at ``TIMEOUTS_S`` and meets the same loss; when all are lost, it
    never acts, and rates 1. The way back is not congested.
    """
    del budget_ms
    delay, lost = _sent(delay_ms, 20), _sent(loss, 20)
    once = COMMAND_S + 2e-3 * delay.min() + 1e-3 * (delay - delay.min())
    waits = once[..., None] + jnp.broadcast_to(TIMEOUTS_S, (*once.shape, len(TIMEOUTS_S)))
    tries = jnp.broadcast_to(jnp.arange(len(TIMEOUTS_S), dtype=jnp.float32), waits.shape)
    chance = (1.0 - lost)[..., None] * jnp.power(lost[..., None], tries)
    scores = jax.vmap(jax.vmap(jax.vmap(mos.command)))(waits)
    expected = (chance * scores).sum(-1) + jnp.power(lost, float(len(TIMEOUTS_S)))
    return expected.mean(1)


def telemetry(
    delay_ms: Float[Array, " S"], loss: Float[Array, " S"], budget_ms: Float[Array, ""]
) -> Float[Array, " W"]:
    """QoME of MQTT telemetry at QoS 0: share delivered within the 5QI delay budget."""
    delay, lost = _sent(delay_ms, 5), _sent(loss, 5)
    one = jax.vmap(lambda d, p: machine.delivered(d, p, jnp.ones_like(d), budget_ms))
    # Rounding leaves a dead second a hair below 0.
    return jnp.maximum(one(delay, lost), 0.0)


PROBES: dict[str, Probe] = {
    "voice": Probe(Kind(200.0, 0.0, 20.0, 60.0, udp=1.0), 50.0, voice),
    "video": Probe(Kind(1280.0, 200.0, 20.0, 60.0, udp=1.0), 50.0, video_call),
    "command": Probe(
        Kind(150.0, 60.0, 32.0, 58.0, fin=0.01, syn=0.02, psh=0.6, ack=0.98, tcp=1.0, https=0.95),
        5.0, command,
    ),
    "telemetry": Probe(
        Kind(130.0, 40.0, 32.0, 62.0, syn=0.01, psh=0.7, ack=0.98, tcp=1.0), 20.0, telemetry,
        machine=True,
    ),
}  # fmt: skip
"""The services. Voice: 20 ms of G.711 and its headers in a packet. Video: 512 kbit/s."""


def _sent(slots: Float[Array, " S"], every: int) -> Float[Array, "W n"]:
    """Values of the slots in which a probe sends, second by second."""
    return slots.reshape(-1, SLOTS)[:, ::every]


def _unplayed(
    delay_ms: Float[Array, "W n"], lost: Float[Array, "W n"], slack_ms: float
) -> Float[Array, " W"]:
    """Share of each second's packets that are lost, or later than ``slack_ms`` after the first."""
    arrived = 1.0 - lost
    late = (delay_ms > delay_ms.min(1)[:, None] + slack_ms).astype(jnp.float32)
    late_ratio = (late * arrived).sum(1) / jnp.maximum(arrived.sum(1), 1e-6)
    return jax.vmap(mos.unplayed)(lost.mean(1), late_ratio)
