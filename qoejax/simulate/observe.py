"""What a passive observer sees at the ingress, second by second. JAX; the table is plain Python."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from qoejax.simulate.ranges import normal

SHARE = "share of packets"


class Feature(NamedTuple):
    """Name, unit and meaning of an observed feature."""

    name: str
    unit: str
    meaning: str


FEATURES: tuple[Feature, ...] = (
    Feature("Rate", "packets/s", "packets that reached the bottleneck's ingress"),
    Feature("Tot sum", "bytes/s", "their bytes"),
    Feature("AVG", "bytes", "mean packet size"),
    Feature("Std", "bytes", "standard deviation of packet sizes"),
    Feature("Header_Length", "bytes", "mean length of the headers"),
    Feature("Time_To_Live", "hops", "mean time to live left"),
    Feature("fin_flag_number", SHARE, "TCP packets with FIN"),
    Feature("syn_flag_number", SHARE, "TCP packets with SYN"),
    Feature("rst_flag_number", SHARE, "TCP packets with RST"),
    Feature("psh_flag_number", SHARE, "TCP packets with PSH"),
    Feature("ack_flag_number", SHARE, "TCP packets with ACK"),
    Feature("TCP", SHARE, "transport protocol TCP"),
    Feature("UDP", SHARE, "transport protocol UDP"),
    Feature("ICMP", SHARE, "ICMP packets"),
    Feature("ARP", SHARE, "ARP packets"),
    Feature("HTTP", SHARE, "application protocol HTTP"),
    Feature("HTTPS", SHARE, "application protocol HTTPS"),
    Feature("DNS", SHARE, "application protocol DNS"),
    Feature("Telnet", SHARE, "application protocol Telnet"),
    Feature("SSH", SHARE, "application protocol SSH"),
)
"""What is observed each second; spelled as in CICIoT2023's second release."""

NOISE = 0.15
"""Standard deviation of the log-normal error of every observed feature."""


def observe(
    key: Key[Array, ""], volume: Float[Array, "W G"], kinds: Float[Array, "W G A"]
) -> Float[Array, "W F"]:
    """Passive flow features of each second, at the ingress.

    Packets of a component are a Poisson number with its mean size, by the normal approximation;
    means over all packets follow from the components; every feature has a log-normal error.

    Args:
        key: PRNG key.
        volume: bytes of each component in each second.
        kinds: ``mixes.Kind`` of each component in each second, as a row.
    """
    count_key, noise_key = jax.random.split(key)
    sizes, spreads = kinds[..., 0], kinds[..., 1]
    expected = volume / sizes
    scatter = jnp.sqrt(expected) * normal(count_key, *expected.shape)
    packets = jnp.maximum(jnp.round(expected + scatter), 0.0)
    # Without packets all means are 0: nothing was seen.
    rate = packets.sum(1)
    share = packets / jnp.maximum(rate, 1.0)[:, None]
    means = jnp.einsum("wg,wga->wa", share, kinds)
    square = (share * (sizes**2 + spreads**2)).sum(1)
    std = jnp.sqrt(jnp.maximum(square - means[:, 0] ** 2, 0.0))
    seen = jnp.stack([rate, rate * means[:, 0], means[:, 0], std], axis=1)
    clean = jnp.concatenate([seen, means[:, 2:]], axis=1)
    noisy = clean * jnp.exp(NOISE * normal(noise_key, *clean.shape))
    limits = jnp.array([1.0 if f.unit == SHARE else jnp.inf for f in FEATURES])
    return jnp.minimum(noisy, jnp.broadcast_to(limits, noisy.shape))
