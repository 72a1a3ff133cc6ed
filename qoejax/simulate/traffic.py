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

from qoejax.simulate import mixes

SLOT_S = 0.01
SLOTS = 100
"""Slots of one second."""


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

WANDERING = (*((d.sigma, d.tau_s) for d in mixes.DEVICES.values()), (0.3, 4.0), (0.2, 4.0))
"""Spread and memory of every wandering level: the devices, the crowd, the attack."""


class Load(NamedTuple):
    """Traffic of one episode of W seconds, S = 100 W slots and G components.

    Attributes:
        slots: bytes offered in each slot, all components together.
        volume: bytes of each component in each second; sums to the same total as ``slots``.
        kinds: ``mixes.Kind`` of each component, as a row.
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
        label: index into ``mixes.LABELS``.
        time: middle of each slot.
        seconds: W.

    Returns:
        The share, and 1 in the slots where the attack is under way (the pauses between its pulses
        included).
    """
    which = jnp.maximum(label - 1, 0)
    low = jnp.array([a.low for a in mixes.ATTACKS.values()])[which]
    high = jnp.array([a.high for a in mixes.ATTACKS.values()])[which]
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
        mix: share of bytes of each of ``mixes.DEVICES``; sums to 1.
        label: index into ``mixes.LABELS``, the attack of this episode.
        seconds: W.
    """
    keys = jax.random.split(key, 4)
    hidden = draw(keys[0], HIDDEN)
    time = (jnp.arange(seconds * SLOTS, dtype=jnp.float32) + 0.5) * SLOT_S
    sigma, tau_s = jnp.array(WANDERING).T
    level = to_slots(wander(keys[1], seconds, sigma, tau_s))
    devices = len(mixes.DEVICES)
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
    probe = jnp.full((seconds * SLOTS, 1), mixes.VOICE_RATE * mixes.VOICE.size * SLOT_S)
    slots = jnp.concatenate([shares * (capacity * SLOT_S), probe], axis=1)
    which = jnp.maximum(label - 1, 0)
    kinds = [
        jnp.array([*(d.kind for d in mixes.DEVICES.values()), mixes.CROWD]),
        jnp.array([a.kinds for a in mixes.ATTACKS.values()])[which],
    ]
    varied = vary(keys[3], jnp.concatenate(kinds))
    return Load(
        slots=slots.sum(1),
        volume=slots.reshape(seconds, SLOTS, -1).sum(1),
        kinds=jnp.concatenate([varied, jnp.array([mixes.VOICE])]),
        active=under_way.reshape(seconds, SLOTS).mean(1),
    )
