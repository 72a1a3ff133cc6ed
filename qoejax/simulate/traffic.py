"""Offered traffic of a simulated site: devices, flash crowds, attacks, the voice probe. JAX.

Traffic is a sum of components. In 10 ms slots each has a volume, which loads the queue; in each
second it has packets of its own kind, which a passive observer sees. All intensities are shares of
the bottleneck's capacity, which nobody observes. Functions describe one episode; callers ``vmap``
them. The ranges are this simulator's own; no deployment was measured for them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

SLOT_S = 0.01
SLOTS = 100
"""Slots of one second."""


class Kind(NamedTuple):
    """What the packets of one component look like: means over its packets.

    Bytes for sizes, hops for ``ttl``, shares in [0, 1] for flags and protocols.
    """

    size: float
    size_std: float
    header: float
    ttl: float
    fin: float = 0.0
    syn: float = 0.0
    rst: float = 0.0
    psh: float = 0.0
    ack: float = 0.0
    tcp: float = 0.0
    udp: float = 0.0
    icmp: float = 0.0
    arp: float = 0.0
    http: float = 0.0
    https: float = 0.0
    dns: float = 0.0
    telnet: float = 0.0
    ssh: float = 0.0


def _tcp(size: float, size_std: float, ttl: float, **shares: float) -> Kind:
    return Kind(size, size_std, 32.0, ttl, tcp=1.0, **shares)


class Device(NamedTuple):
    """A benign component: its packets, its usual share of bytes, how it wanders.

    ``sigma`` is the standard deviation of its log level, ``tau_s`` the time its level remembers.
    """

    kind: Kind
    share: float
    sigma: float
    tau_s: float


DEVICES: dict[str, Device] = {
    "camera": Device(
        Kind(880.0, 380.0, 20.0, 64.0, psh=0.02, ack=0.08, tcp=0.1, udp=0.9), 0.37, 0.25, 12.0
    ),
    "sensor": Device(
        _tcp(150.0, 80.0, 64.0, fin=0.012, syn=0.02, rst=0.008, psh=0.42, ack=0.97),
        0.066,
        0.35,
        15.0,
    ),
    "media": Device(
        _tcp(1050.0, 520.0, 54.0, fin=0.006, syn=0.012, rst=0.004, psh=0.16, ack=0.99, https=0.94),
        0.33,
        0.40,
        6.0,
    ),
    "update": Device(
        _tcp(1240.0, 430.0, 52.0, fin=0.003, syn=0.006, rst=0.003, psh=0.08, ack=0.99, http=0.55),
        0.18,
        0.60,
        8.0,
    ),
    "polling": Device(
        _tcp(170.0, 110.0, 60.0, fin=0.05, syn=0.07, rst=0.02, psh=0.38, ack=0.93, http=0.85),
        0.03,
        0.50,
        1.5,
    ),
    "admin": Device(
        _tcp(
            160.0, 100.0, 62.0, fin=0.03, syn=0.05, rst=0.012, psh=0.45, ack=0.95,
            http=0.1, telnet=0.2, ssh=0.6,
        ),
        0.012,
        0.60,
        1.5,
    ),
    "discovery": Device(
        Kind(
            95.0, 45.0, 16.0, 60.0, syn=0.10, rst=0.05, ack=0.06,
            tcp=0.16, udp=0.46, icmp=0.12, arp=0.26, dns=0.30,
        ),
        0.012,
        0.60,
        1.5,
    ),
}  # fmt: skip
"""Benign components of a site. The last three are what the quiet attacks hide among."""

CROWD = _tcp(
    330.0, 390.0, 54.0, fin=0.10, syn=0.14, rst=0.02, psh=0.26, ack=0.87, http=0.55, https=0.4
)
"""A flash crowd: many short, genuine web sessions; an HTTP flood looks much the same."""

VOICE = Kind(200.0, 0.0, 20.0, 60.0, udp=1.0)
VOICE_RATE = 50.0
"""Packets a second of the voice probe: 20 ms of G.711 with its headers in 200 bytes."""


class Attack(NamedTuple):
    """An attack class: three ways to do it, and its intensity as a share of the capacity."""

    kinds: tuple[Kind, Kind, Kind]
    low: float
    high: float


ATTACKS: dict[str, Attack] = {
    "ddos": Attack(
        (
            _tcp(62.0, 12.0, 58.0, syn=0.93, rst=0.02, ack=0.06),
            Kind(420.0, 260.0, 20.0, 60.0, udp=0.98, icmp=0.02, dns=0.12),
            _tcp(
                250.0, 320.0, 56.0, fin=0.09, syn=0.19, rst=0.04, psh=0.24, ack=0.82,
                http=0.7, https=0.22,
            ),
        ),
        0.1,
        3.0,
    ),
    "slow_dos": Attack(
        (
            _tcp(90.0, 45.0, 58.0, fin=0.02, syn=0.20, rst=0.02, psh=0.42, ack=0.80, http=0.95),
            _tcp(74.0, 25.0, 58.0, fin=0.01, syn=0.10, rst=0.02, psh=0.10, ack=0.90, http=0.95),
            _tcp(130.0, 70.0, 58.0, fin=0.02, syn=0.15, rst=0.03, psh=0.60, ack=0.84, http=0.90),
        ),
        0.035,
        0.14,
    ),
    "scan": Attack(
        (
            _tcp(60.0, 8.0, 52.0, syn=0.56, rst=0.40, ack=0.42, http=0.02, telnet=0.02, ssh=0.02),
            Kind(72.0, 30.0, 12.0, 54.0, udp=0.66, icmp=0.34, dns=0.05),
            Kind(64.0, 16.0, 12.0, 58.0, syn=0.12, rst=0.1, tcp=0.2, icmp=0.4, arp=0.4),
        ),
        0.01,
        0.08,
    ),
    "brute_force": Attack(
        (
            _tcp(140.0, 90.0, 56.0, fin=0.09, syn=0.10, rst=0.03, psh=0.40, ack=0.90, ssh=0.98),
            _tcp(84.0, 30.0, 56.0, fin=0.08, syn=0.11, rst=0.04, psh=0.46, ack=0.89, telnet=0.98),
            _tcp(260.0, 200.0, 56.0, fin=0.11, syn=0.12, rst=0.03, psh=0.34, ack=0.88, http=0.97),
        ),
        0.025,
        0.12,
    ),
}  # fmt: skip
"""Attack classes in label order, after benign. Only the flood is meant to hurt a conversation."""

LABELS = ("benign", *ATTACKS)


class Range(NamedTuple):
    """Where a hidden quantity of an episode is drawn from: uniform, or log-uniform if ``log``."""

    low: float
    high: float
    log: bool = False


HIDDEN: dict[str, Range] = {
    # Benign load, as a share of capacity; a lasting change of it happens where "changes" < 0.5.
    "load": Range(0.35, 0.9),
    "changes": Range(0.0, 1.0),
    "change": Range(0.5, 1.8, log=True),
    "change_start": Range(0.08, 0.92),
    "change_rise_s": Range(1.0, 8.0),
    # A flash crowd happens where "crowds" < 0.4.
    "crowds": Range(0.0, 1.0),
    "crowd": Range(0.15, 1.5, log=True),
    "crowd_start": Range(0.03, 0.85),
    "crowd_length_s": Range(6.0, 25.0),
    "crowd_rise_s": Range(1.0, 6.0),
    # An attack: where it lies between the ends of its class, when, how smooth, in which way.
    "attack": Range(0.0, 1.0),
    "attack_start": Range(0.07, 0.53),
    "attack_length_s": Range(12.0, 50.0),
    "attack_rise_s": Range(0.2, 3.0),
    "pulses": Range(0.0, 1.0),
    "pulse_period_s": Range(2.0, 6.0),
    "pulse_duty": Range(0.3, 0.7),
    "way_0": Range(0.0, 6.0),
    "way_1": Range(0.0, 6.0),
    "way_2": Range(0.0, 6.0),
}
"""Hidden quantities of an episode. Starts are shares of the episode's length."""

WANDERING = (*((d.sigma, d.tau_s) for d in DEVICES.values()), (0.3, 4.0), (0.2, 4.0))
"""Spread and memory of every wandering level: the devices, the crowd, the attack."""


class Load(NamedTuple):
    """Traffic of one episode of W seconds, S = 100 W slots and G components.

    Attributes:
        slots: bytes offered in each slot, all components together.
        volume: bytes of each component in each second; sums to the same total as ``slots``.
        kinds: ``Kind`` of each component, as a row.
        active: share of each second in which an attack is under way.
    """

    slots: Float[Array, " S"]
    volume: Float[Array, "W G"]
    kinds: Float[Array, "G A"]
    active: Float[Array, " W"]


def draw(key: Key[Array, ""], ranges: dict[str, Range]) -> dict[str, Float[Array, ""]]:
    """One value from each range, independent of each other, in one call of the generator."""
    unit = jax.random.uniform(key, (len(ranges),))
    return {
        name: r.low * (r.high / r.low) ** unit[i] if r.log else r.low + (r.high - r.low) * unit[i]
        for i, (name, r) in enumerate(ranges.items())
    }


def normal(key: Key[Array, ""], rows: int, columns: int) -> Float[Array, "{rows} {columns}"]:
    """Standard normal numbers.

    They are drawn in one row and then folded: XLA compiles that for CPUs several times faster than
    a two-dimensional draw, and the barrier keeps it from drawing anew for every reader.
    """
    flat = jax.random.normal(key, (rows * columns,))
    return jax.lax.optimization_barrier(flat).reshape(rows, columns)


def wander(
    key: Key[Array, ""], seconds: int, sigma: Float[Array, " G"], tau_s: Float[Array, " G"]
) -> Float[Array, "W1 G"]:
    """Log-normal AR(1) levels of mean 1 at the W + 1 ends of W seconds, stationary from the start.

    Args:
        key: PRNG key.
        seconds: W.
        sigma: standard deviation of the log level.
        tau_s: correlation time; the lag-one correlation of the log level is exp(-1 / tau_s).
    """
    rho = jnp.exp(-1.0 / tau_s)
    noise = normal(key, seconds + 1, sigma.shape[0])

    def step(level: Array, fresh: Array) -> tuple[Array, Array]:
        level = rho * level + jnp.sqrt(1.0 - rho**2) * fresh
        return level, level

    _, rest = jax.lax.scan(step, noise[0], noise[1:])
    levels = jnp.concatenate([noise[:1], rest])
    return jnp.exp(sigma[None] * levels - 0.5 * sigma[None] ** 2)


def to_slots(knots: Float[Array, "W1 G"]) -> Float[Array, "S G"]:
    """Values at the ends of seconds, joined by straight lines and read at every slot's middle."""
    share = ((jnp.arange(SLOTS, dtype=jnp.float32) + 0.5) / SLOTS)[None, :, None]
    lines = knots[:-1, None] * (1.0 - share) + knots[1:, None] * share
    return lines.reshape(-1, knots.shape[1])


def bursts(key: Key[Array, ""], seconds: int) -> Float[Array, " S"]:
    """Gamma noise of shape 4 and mean 1 in every slot, as a sum of exponentials."""
    uniform = jax.random.uniform(key, (4 * seconds * SLOTS,), minval=1e-7)
    return -0.25 * jnp.log(uniform).reshape(4, -1).sum(0)


def envelope(
    time: Float[Array, " S"], start: Array, length_s: Array, rise_s: Array
) -> Float[Array, " S"]:
    """0 before ``start``, rising to 1 in ``rise_s`` seconds, falling as slowly after the length."""
    up = jnp.clip((time - start) / rise_s, 0.0, 1.0)
    down = jnp.clip((time - start - length_s) / rise_s, 0.0, 1.0)
    return up - down


def benign_share(
    hidden: dict[str, Float[Array, ""]], time: Float[Array, " S"], seconds: int
) -> Float[Array, " S"]:
    """Benign load over time, as a share of capacity, before it wanders and bursts."""
    start = hidden["change_start"] * seconds
    step = envelope(time, start, jnp.float32(jnp.inf), hidden["change_rise_s"])
    factor = jnp.where(hidden["changes"] < 0.5, hidden["change"], 1.0)
    return hidden["load"] * (1.0 + (factor - 1.0) * step)


def crowd_share(
    hidden: dict[str, Float[Array, ""]], time: Float[Array, " S"], seconds: int
) -> Float[Array, " S"]:
    """Load of a flash crowd over time, as a share of capacity; nothing without a crowd."""
    start = hidden["crowd_start"] * seconds
    shape = envelope(time, start, hidden["crowd_length_s"], hidden["crowd_rise_s"])
    return jnp.where(hidden["crowds"] < 0.4, hidden["crowd"], 0.0) * shape


def attack_share(
    hidden: dict[str, Float[Array, ""]],
    label: Int[Array, ""],
    time: Float[Array, " S"],
    seconds: int,
) -> tuple[Float[Array, " S"], Float[Array, " S"]]:
    """Load of an attack over time, as a share of capacity; nothing for label 0.

    A third of the attacks pulse: on for a part of each period.

    Args:
        hidden: drawn from ``HIDDEN``.
        label: index into ``LABELS``.
        time: middle of each slot.
        seconds: W.

    Returns:
        The share, and 1 in the slots where the attack is under way (the pauses between its pulses
        included).
    """
    which = jnp.maximum(label - 1, 0)
    low = jnp.array([a.low for a in ATTACKS.values()])[which]
    high = jnp.array([a.high for a in ATTACKS.values()])[which]
    intensity = jnp.where(label > 0, low * (high / low) ** hidden["attack"], 0.0)
    start = hidden["attack_start"] * seconds
    shape = envelope(time, start, hidden["attack_length_s"], hidden["attack_rise_s"])
    period = hidden["pulse_period_s"]
    pause = jnp.mod(time - start, period) > hidden["pulse_duty"] * period
    on = jnp.where((hidden["pulses"] < 1 / 3) & pause, 0.0, 1.0)
    under_way = ((shape > 0.0) & (label > 0)).astype(jnp.float32)
    return intensity * shape * on, under_way


def vary(key: Key[Array, ""], kinds: Float[Array, "G A"]) -> Float[Array, "G A"]:
    """The same kinds as met in one episode: other firmware, other tools, other peers.

    Sizes and shares vary log-normally, the hop count by some hops; shares stay within [0, 1] and
    no kind's mean packet is smaller than 40 or larger than 1500 bytes.
    """
    noise = normal(key, *kinds.shape)
    size = jnp.clip(kinds[:, :1] * jnp.exp(0.2 * noise[:, :1]), 40.0, 1500.0)
    spread = kinds[:, 1:2] * jnp.exp(0.2 * noise[:, 1:2])
    header = kinds[:, 2:3] * jnp.exp(0.05 * noise[:, 2:3])
    ttl = jnp.clip(kinds[:, 3:4] + 6.0 * noise[:, 3:4], 8.0, 255.0)
    shares = jnp.clip(kinds[:, 4:] * jnp.exp(0.25 * noise[:, 4:]), 0.0, 1.0)
    return jnp.concatenate([size, spread, header, ttl, shares], axis=1)


def offered(
    key: Key[Array, ""],
    capacity: Float[Array, ""],
    mix: Float[Array, " D"],
    label: Int[Array, ""],
    seconds: int,
) -> Load:
    """All traffic of one episode: devices, a crowd or none, an attack or none, the voice probe.

    Args:
        key: PRNG key of the episode.
        capacity: of the bottleneck, bytes/s.
        mix: share of bytes of each of ``DEVICES``; sums to 1.
        label: index into ``LABELS``, the attack of this episode.
        seconds: W.
    """
    keys = jax.random.split(key, 4)
    hidden = draw(keys[0], HIDDEN)
    time = (jnp.arange(seconds * SLOTS, dtype=jnp.float32) + 0.5) * SLOT_S
    sigma, tau_s = jnp.array(WANDERING).T
    level = to_slots(wander(keys[1], seconds, sigma, tau_s))
    devices = len(DEVICES)
    benign = benign_share(hidden, time, seconds) * bursts(keys[2], seconds)
    people = crowd_share(hidden, time, seconds) * level[:, devices]
    hostile, under_way = attack_share(hidden, label, time, seconds)
    ways = jax.nn.softmax(jnp.stack([hidden[f"way_{i}"] for i in range(3)]))
    shares = jnp.concatenate(
        [
            level[:, :devices] * mix[None] * benign[:, None],
            people[:, None],
            (hostile * level[:, devices + 1])[:, None] * ways[None],
        ],
        axis=1,
    )
    probe = jnp.full((seconds * SLOTS, 1), VOICE_RATE * VOICE.size * SLOT_S)
    slots = jnp.concatenate([shares * (capacity * SLOT_S), probe], axis=1)
    which = jnp.maximum(label - 1, 0)
    kinds = [
        jnp.array([*(d.kind for d in DEVICES.values()), CROWD]),
        jnp.array([a.kinds for a in ATTACKS.values()])[which],
    ]
    varied = vary(keys[3], jnp.concatenate(kinds))
    return Load(
        slots=slots.sum(1),
        volume=slots.reshape(seconds, SLOTS, -1).sum(1),
        kinds=jnp.concatenate([varied, jnp.array([VOICE])]),
        active=under_way.reshape(seconds, SLOTS).mean(1),
    )
