"""Offered traffic of a simulated site: devices, flash crowds, attacks, probes. JAX.

Traffic is a sum of components. In 10 ms slots each has a volume, which loads the queue; in each
second it has packets of its own kind, which a passive observer sees. All intensities are shares of
the bottleneck's capacity, which nobody observes. Functions describe one episode; callers ``vmap``
them. The ranges are this simulator's own; no deployment was measured for them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from qoejax.simulate import attacks, mixes
from qoejax.simulate.attacks import envelope
from qoejax.simulate.probes import PROBES
from qoejax.simulate.queue import SLOT_S, SLOTS
from qoejax.simulate.ranges import Range, draw, normal
from qoejax.simulate.scenarios import Site

HIDDEN: dict[str, Range] = {
    # Benign load against the site's usual one; a lasting change happens where "changes" < 0.5.
    "load": Range(0.75, 1.3, log=True),
    "changes": Range(0.0, 1.0),
    "change": Range(0.5, 1.8, log=True),
    "change_start": Range(0.08, 0.92),
    "change_rise_s": Range(1.0, 8.0),
    # A flash crowd happens where "crowds" < 0.4.
    "crowds": Range(0.0, 1.0),
    "crowd": Range(0.2, 2.0, log=True),
    "crowd_start": Range(0.03, 0.85),
    "crowd_length_s": Range(4.0, 20.0),
    "crowd_rise_s": Range(1.0, 6.0),
    **attacks.HIDDEN,
}
"""Hidden quantities of an episode. Starts are shares of the episode's length."""

WANDERING = (
    *((d.sigma, d.tau_s) for d in mixes.DEVICES.values()),
    (0.3, 4.0),
    (0.2, 4.0),
    (1.0, 5.0),
)
"""Spread and memory of every wandering level: devices, crowd, attack, capacity.

The last is to the power of the site's fading."""

DEVICES = len(mixes.DEVICES)


class Load(NamedTuple):
    """Traffic of one episode of W seconds, S = 100 W slots and G components.

    Components are devices, the crowd, the ways of the attack, and the probes.

    Attributes:
        slots: bytes offered in each slot, all components together.
        volume: bytes of each component in each second; sums to the same total as ``slots``.
        kinds: ``mixes.Kind`` of each component in each second, as a row.
        active: share of each second in which an attack is under way.
        service: bytes that the bottleneck can serve in each slot.
    """

    slots: Float[Array, " S"]
    volume: Float[Array, "W G"]
    kinds: Float[Array, "W G A"]
    active: Float[Array, " W"]
    service: Float[Array, " S"]


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


def benign_share(
    hidden: dict[str, Float[Array, ""]], time: Float[Array, " S"], seconds: int
) -> Float[Array, " S"]:
    """Benign load over time against the site's usual one, before it wanders and bursts."""
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


def component_kinds(
    key: Key[Array, ""], label: Int[Array, ""], seconds: int, run: attacks.Run | None
) -> Float[Array, "W G A"]:
    """Kinds of all components in each second; a recorded attack's are those of its rows."""
    benign = jnp.array([*(d.kind for d in mixes.DEVICES.values()), mixes.CROWD])
    hostile = jnp.array([a.kinds for a in mixes.ATTACKS.values()])[jnp.maximum(label - 1, 0)]
    varied = vary(key, jnp.concatenate([benign, hostile]))
    kinds = jnp.concatenate([varied, jnp.array([p.kind for p in PROBES.values()])])
    kinds = jnp.broadcast_to(kinds, (seconds, *kinds.shape))
    if run is None:
        return kinds
    ways = slice(DEVICES + 1, DEVICES + 1 + mixes.WAYS)
    rows = jnp.broadcast_to(run.kinds[:, None], kinds[:, ways].shape)
    return kinds.at[:, ways].set(jnp.where(run.there, rows, kinds[:, ways]))


def offered(
    key: Key[Array, ""],
    site: Site,
    label: Int[Array, ""],
    seconds: int,
    recorded: attacks.Recording | None = None,
) -> Load:
    """All traffic of one episode: devices, a crowd or none, an attack or none, the probes.

    Args:
        key: PRNG key of the episode.
        site: where it happens.
        label: index into ``mixes.LABELS``, the attack of this episode.
        seconds: W.
        recorded: rows to draw attacks from, where it has the label's; None for none.
    """
    keys = jax.random.split(key, 5)
    hidden = draw(keys[0], HIDDEN)
    time = (jnp.arange(seconds * SLOTS, dtype=jnp.float32) + 0.5) * SLOT_S
    run = None if recorded is None else attacks.contiguous(keys[4], recorded, label, seconds)
    sigma, tau_s = jnp.array(WANDERING).T
    sigma = sigma.at[-1].mul(site.fading)
    level = to_slots(wander(keys[1], seconds, sigma, tau_s))
    benign = benign_share(hidden, time, seconds) * bursts(keys[2], seconds) * site.load
    people = crowd_share(hidden, time, seconds) * level[:, DEVICES]
    shape, under_way = attacks.shape(hidden, label, time)
    hostile = attacks.share(hidden, label, level[:, DEVICES + 1], run) * shape
    ways = jax.nn.softmax(jnp.stack([hidden[f"way_{i}"] for i in range(mixes.WAYS)]))
    shares = jnp.concatenate(
        [
            level[:, :DEVICES] * site.mix[None] * benign[:, None],
            people[:, None],
            hostile[:, None] * ways[None],
        ],
        axis=1,
    )
    own = jnp.array([p.bytes_per_slot() for p in PROBES.values()])
    able = site.capacity * SLOT_S
    # Background is a share of what the probes leave.
    slots = jnp.concatenate(
        [shares * (able - own.sum()), jnp.broadcast_to(own, (seconds * SLOTS, len(PROBES)))], axis=1
    )
    return Load(
        slots=slots.sum(1),
        volume=slots.reshape(seconds, SLOTS, -1).sum(1),
        kinds=component_kinds(keys[3], label, seconds, run),
        active=under_way.reshape(seconds, SLOTS).mean(1),
        service=able * level[:, -1],
    )
