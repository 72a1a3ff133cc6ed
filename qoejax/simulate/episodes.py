"""Episodes: traffic through a bottleneck, seen passively, with the voice MOS it causes. JAX.

A site has a hidden capacity, buffer, base delay and device mix; an episode of W seconds at a site
has hidden load, crowd and attack. What is observed are flow features at the ingress, before the
queue: nothing of backlog, delay or loss. Everything follows from the key and the identity of site
and episode, so no order or batch size changes a number.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from qoejax.qoe import mos
from qoejax.simulate import mixes, queue, traffic

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
"""What is observed each second; spelled as in CICIoT2023's second release where it has them."""

SERVICES = ("voice",)
DEJITTER_MS = 60.0
CODEC = mos.CODECS["g711_plc"]
NOISE = 0.25
"""Standard deviation of the log-normal error of every observed feature."""


class Settings(NamedTuple):
    """Lengths, in seconds: of an episode, of an example; to its MOS target; between examples."""

    seconds: int = 60
    length: int = 8
    horizon: int = 1
    stride: int = 5

    def examples(self) -> int:
        """Examples of one episode, wherever the first of them starts."""
        room = self.seconds - self.horizon - self.length - (self.stride - 1)
        return room // self.stride + 1


class Site(NamedTuple):
    """Hidden properties of a site.

    Attributes:
        capacity: of the bottleneck, bytes/s; logU(2, 20) Mb/s.
        buffer_s: time a full buffer takes to drain; U(0.05, 0.4) s.
        base_s: one-way delay without queueing; U(0.01, 0.06) s.
        mix: share of bytes of each of ``mixes.DEVICES``.
    """

    capacity: Float[Array, ""]
    buffer_s: Float[Array, ""]
    base_s: Float[Array, ""]
    mix: Float[Array, " G"]


class Episode(NamedTuple):
    """One episode of W seconds.

    Attributes:
        x: observed features, as in ``FEATURES``.
        label: index into ``mixes.LABELS``; an attack counts where it fills half the second.
        mos: MOS of each of ``SERVICES`` in that second.
        delay_ms: mean one-way network delay; hidden from any model.
        loss: share of bytes lost; hidden.
    """

    x: Float[Array, "W F"]
    label: Int[Array, " W"]
    mos: Float[Array, "W Q"]
    delay_ms: Float[Array, " W"]
    loss: Float[Array, " W"]


class Windows(NamedTuple):
    """n examples of T consecutive seconds each."""

    x: Float[Array, "n T F"]
    label: Int[Array, " n"]
    mos: Float[Array, "n Q"]


SITE: dict[str, traffic.Range] = {
    "capacity": traffic.Range(2e6 / 8, 20e6 / 8, log=True),
    "buffer_s": traffic.Range(0.05, 0.4),
    "base_s": traffic.Range(0.01, 0.06),
}
"""Hidden quantities of a site, in the units of ``Site``."""


def draw_site(key: Key[Array, ""]) -> Site:
    """A site drawn from ``SITE``; its device mix scatters log-normally around the usual shares."""
    range_key, mix_key = jax.random.split(key)
    usual = jnp.array([d.share for d in mixes.DEVICES.values()])
    mix = usual * jnp.exp(0.5 * jax.random.normal(mix_key, usual.shape))
    return Site(**traffic.draw(range_key, SITE), mix=mix / mix.sum())


def observe(key: Key[Array, ""], load: traffic.Load) -> Float[Array, "W F"]:
    """Passive flow features of each second, at the ingress.

    Packets of a component are a Poisson number with its mean size, by the normal approximation;
    means over all packets follow from the components; every feature has a log-normal error.
    """
    count_key, noise_key = jax.random.split(key)
    sizes, spreads = load.kinds[:, 0], load.kinds[:, 1]
    expected = load.volume / sizes[None]
    scatter = jnp.sqrt(expected) * traffic.normal(count_key, *expected.shape)
    packets = jnp.maximum(jnp.round(expected + scatter), 0.0)
    # Without packets all means are 0: nothing was seen.
    rate = packets.sum(1)
    share = packets / jnp.maximum(rate, 1.0)[:, None]
    means = share @ load.kinds
    square = share @ (sizes**2 + spreads**2)
    std = jnp.sqrt(jnp.maximum(square - means[:, 0] ** 2, 0.0))
    seen = jnp.stack([rate, rate * means[:, 0], means[:, 0], std], axis=1)
    clean = jnp.concatenate([seen, means[:, 2:]], axis=1)
    noisy = clean * jnp.exp(NOISE * traffic.normal(noise_key, *clean.shape))
    limits = jnp.array([1.0 if unit == SHARE else jnp.inf for _, unit, _ in FEATURES])
    return jnp.minimum(noisy, jnp.broadcast_to(limits, noisy.shape))


def voice_mos(delay_s: Float[Array, " S"], loss: Float[Array, " S"]) -> Float[Array, " W"]:
    """MOS of the voice probe in each second, by the E-model behind a fixed de-jitter buffer.

    A packet is sent every other slot and meets that slot's delay and, in expectation, its loss. The
    buffer plays ``DEJITTER_MS`` after the smallest delay of the second; what is later is lost too.

    Args:
        delay_s: one-way network delay of each slot.
        loss: share of each slot's traffic that is lost.
    """
    every = round(1.0 / (mixes.VOICE_RATE * traffic.SLOT_S))
    delay_ms = delay_s.reshape(-1, traffic.SLOTS)[:, ::every] * 1e3
    lost = loss.reshape(-1, traffic.SLOTS)[:, ::every]
    arrived = 1.0 - lost
    least = delay_ms.min(1)
    late = (delay_ms > least[:, None] + DEJITTER_MS).astype(jnp.float32)
    late_ratio = (late * arrived).sum(1) / jnp.maximum(arrived.sum(1), 1e-6)

    def score(least_ms: Array, lost_ratio: Array, late_ratio: Array) -> Array:
        to_ear = mos.mouth_to_ear_ms(least_ms, DEJITTER_MS, CODEC)
        return mos.voice(to_ear, 100.0 * mos.unplayed(lost_ratio, late_ratio), CODEC)

    return jax.vmap(score)(least, lost.mean(1), late_ratio)


def simulate(key: Key[Array, ""], site: Site, seconds: int) -> Episode:
    """One episode at a site: no attack in one of five, else one class, all equally likely.

    Args:
        key: of this episode.
        site: see ``draw_site``.
        seconds: W, at least 20.

    Raises:
        ValueError: if the episode is too short for what happens in it.
    """
    if seconds < 20:
        raise ValueError(f"episode: expected at least 20 seconds, got {seconds}")
    label_key, load_key, noise_key = jax.random.split(key, 3)
    classes = len(mixes.ATTACKS)
    # One draw from 0 .. 5 * classes - 1 whose lowest fifth means benign.
    die = jax.random.randint(label_key, (), 0, 5 * classes)
    label = jnp.where(die < classes, 0, 1 + (die - classes) // 4)
    load = traffic.offered(load_key, site.capacity, site.mix, label, seconds)
    served = queue.fifo(load.slots, site.capacity * traffic.SLOT_S, site.capacity * site.buffer_s)
    delay_s = site.base_s + served.backlog / site.capacity
    lost = (served.loss * load.slots).reshape(seconds, -1).sum(1)
    return Episode(
        x=observe(noise_key, load),
        label=jnp.where(load.active >= 0.5, label, 0),
        mos=voice_mos(delay_s, served.loss)[:, None],
        delay_ms=1e3 * delay_s.reshape(seconds, -1).mean(1),
        loss=lost / load.slots.reshape(seconds, -1).sum(1),
    )


def windows(episode: Episode, last: Int[Array, " n"], length: int, horizon: int) -> Windows:
    """Examples of one episode: features and class up to a second, MOS ``horizon`` seconds later.

    Args:
        episode: W seconds.
        last: last second of each example, in [length - 1, W - 1 - horizon].
        length: T, seconds of features.
        horizon: seconds from the last window to the MOS target.
    """
    seconds = last[:, None] + jnp.arange(1 - length, 1)[None]
    return Windows(episode.x[seconds], episode.label[last], episode.mos[last + horizon])


def examples(
    key: Key[Array, ""], site: Int[Array, ""], number: Int[Array, ""], settings: Settings
) -> Windows:
    """The examples of episode ``number`` at ``site``: a function of these identities alone.

    Args:
        key: of the whole data set.
        site: number of the site, from 0.
        number: of the episode at this site, from 0.
        settings: static under ``jit``.
    """
    place = draw_site(jax.random.fold_in(jax.random.fold_in(key, 0), site))
    own = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, 1), site), number)
    episode_key, start_key = jax.random.split(own)
    start = jax.random.randint(start_key, (), 0, settings.stride)
    first = settings.length - 1 + start
    last = first + settings.stride * jnp.arange(settings.examples())
    episode = simulate(episode_key, place, settings.seconds)
    return windows(episode, last, settings.length, settings.horizon)
