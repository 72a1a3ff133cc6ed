"""Sources on one shared bottleneck: some compromised, all observed, then acted on. JAX.

A scene is what a gateway meets: N devices, each with a user's service of its own, share a link. For
``OBSERVED_S`` seconds all are admitted and watched; then an action is taken on each, and for
``ACTED_S`` seconds it holds (``acts``). Traffic is made of the same parts as an episode's
(``traffic``, ``attacks``, ``mixes``, ``probes``), source by source. Functions describe one scene;
callers ``vmap`` them. The chances and ranges are this simulator's own.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from qoejax.simulate import attacks, mixes, queue, scenarios, traffic
from qoejax.simulate.observe import FEATURES, NOISE, SHARE, observe
from qoejax.simulate.probes import PROBES
from qoejax.simulate.queue import SLOT_S, SLOTS
from qoejax.simulate.ranges import Range, draw, normal

SOURCES = 12
OBSERVED_S, ACTED_S = 8, 6

SERVICES = ("voice", "video", "command")
"""What users of sources do; a user rates these with a MOS."""

PLACE = scenarios.SCENARIOS["mixed"]._replace(capacity_mbps=Range(8, 80, log=True))
"""Where scenes happen: room for the services of twelve users."""

HIDDEN: dict[str, Range] = {
    **traffic.HIDDEN,
    # A chore happens where "crowds" < 0.4: at about one source in seven. An attack starts before
    # or while the source is watched, and outlasts the scene.
    "crowds": Range(0.0, 2.8),
    "crowd_start": Range(-0.8, 0.9),
    "attack_start": Range(-1.0, 0.3),
    "attack_length_s": Range(35.0, 50.0),
    "likeness": Range(0.0, 1.0),
    # What the source is: one of as many, at the drawn share of the list.
    **dict.fromkeys(("type", "service", "family", "chance"), Range(0.0, 1.0)),
}
"""Hidden quantities of a source. Starts are shares of the scene's length.

A chore is what legitimate users do now and then that looks like an attack: a crowd of visitors, a
backup, a scan by an administrator. It is as strong as an attack of a random family and takes 4 to
20 s; its packets lie between the device's own and that attack's, as ``likeness`` says."""

_COUNTERS = ("Rate", "Tot sum")
_TYPES = tuple(mixes.DEVICES.values())
_FAMILIES = [i for i, a in enumerate(mixes.ATTACKS.values(), 1) for _ in range(a.weight)]


class Scene(NamedTuple):
    """One scene of N sources; S slots in which actions hold.

    Only ``x``, ``service`` and ``link`` may be shown to a policy.

    Attributes:
        x: features of each source in each of W observed seconds, as in ``observe.FEATURES``.
        service: index into ``SERVICES`` of each source.
        link: capacity of the bottleneck as its operator knows it, bytes/s; within 15 %.
        label: index into ``mixes.LABELS``; a compromised source has an attack's.
        offered: bytes of each source in each slot of the time that actions hold.
        able: bytes that the bottleneck can serve in each of these slots.
        waiting: backlog in bytes when actions are taken.
        site: capacity, buffer and base delay.
    """

    x: Float[Array, "N W F"]
    service: Int[Array, " N"]
    link: Float[Array, ""]
    label: Int[Array, " N"]
    offered: Float[Array, "N S"]
    able: Float[Array, " S"]
    waiting: Float[Array, ""]
    site: scenarios.Site


def scene(
    key: Key[Array, ""],
    prevalence: Float[Array, ""],
    blur: Float[Array, ""],
    sources: int = SOURCES,
) -> Scene:
    """A scene; the key alone decides all but who is compromised and how well it can be seen.

    Args:
        key: of this scene. The sources compromised at a prevalence are so at any higher one.
        prevalence: chance that a source is compromised, in [0, 1].
        blur: standard deviation of a log-normal error that stays the same all the time a source is
            watched, of all its features but packets and bytes a second: those come from counters,
            the others from a sample of packets. It is on top of ``observe.NOISE``.
        sources: N.
    """
    keys = jax.random.split(key, 7)
    seconds = OBSERVED_S + ACTED_S
    site = scenarios.draw_site(keys[0], PLACE)
    hidden = jax.vmap(lambda k: draw(k, HIDDEN))(jax.random.split(keys[1], sources))
    kind = _pick(hidden["type"], range(len(_TYPES)))
    service = _pick(hidden["service"], range(len(SERVICES)))
    family = _pick(hidden["family"], _FAMILIES)
    label = jnp.where(hidden["chance"] < prevalence, family, 0)
    volume, able = _volumes(keys[2], site, hidden, kind, service, family, label)
    kinds = _kinds(keys[3], hidden, kind, service, family, label)
    second = volume.reshape(sources, seconds, SLOTS, -1).sum(2)
    seen = second[:, :OBSERVED_S]
    rows = jnp.broadcast_to(kinds[:, None], (*seen.shape, kinds.shape[-1]))
    # Every second of every source is seen by itself, so all are rows of one table.
    x = observe(keys[4], _flat(seen), _flat(rows)).reshape(*seen.shape[:2], -1)
    offered = volume.sum(-1)
    now = OBSERVED_S * SLOTS
    before = queue.fifo(offered[:, :now].sum(0), able[:now], site.capacity * site.buffer_s)
    return Scene(
        x=_blurred(keys[5], x, blur),
        service=service,
        link=site.capacity * jnp.exp(NOISE * jax.random.normal(keys[6])),
        label=label,
        offered=offered[:, now:],
        able=able[now:],
        waiting=before.backlog[-1],
        site=site,
    )


def _flat(x: Array) -> Array:
    return x.reshape(-1, *x.shape[2:])


def _pick(share: Float[Array, " N"], options: Sequence[int]) -> Int[Array, " N"]:
    """The option at each share of the list."""
    at = jnp.floor(share * len(options)).astype(jnp.int32)
    return jnp.array(list(options))[jnp.minimum(at, len(options) - 1)]


def _volumes(
    key: Key[Array, ""],
    site: scenarios.Site,
    hidden: dict[str, Array],
    kind: Array,
    service: Array,
    family: Array,
    label: Array,
) -> tuple[Array, Array]:
    """Bytes of each source's components [N,S,G] in all slots, and what can be served [S]."""
    sources, seconds = kind.shape[0], OBSERVED_S + ACTED_S
    wander_key, usual_key, burst_key = jax.random.split(key, 3)
    time = (jnp.arange(seconds * SLOTS, dtype=jnp.float32) + 0.5) * SLOT_S
    wander = jnp.array([(d.sigma, d.tau_s) for d in _TYPES])[kind]
    active = jnp.broadcast_to(jnp.array(traffic.WANDERING[-2])[None], (sources, 2))
    fading = jnp.stack([site.fading, jnp.float32(traffic.WANDERING[-1][1])])[None]
    sigma, tau_s = jnp.concatenate([wander, active, fading]).T
    level = traffic.to_slots(traffic.wander(wander_key, seconds, sigma, tau_s)).T

    usual = jnp.array(PLACE.shares)[kind] * jnp.exp(0.5 * jax.random.normal(usual_key, (sources,)))
    base = jax.vmap(lambda h: traffic.benign_share(h, time, seconds))(hidden)
    noise = traffic.bursts(burst_key, sources * seconds).reshape(sources, -1)
    device = (site.load * usual / usual.sum())[:, None] * base * noise * level[:sources]

    attack = jax.vmap(lambda h, k: attacks.shape(h, k, time)[0])(hidden, label)
    chore = jax.vmap(lambda h: _chore(h, time))(hidden)
    shape = jnp.where((label > 0)[:, None], attack, chore)
    height = jax.vmap(lambda h, k, s: attacks.share(h, k, s, None))(
        hidden, family, level[sources:-1]
    )
    ways = jax.nn.softmax(jnp.stack([hidden[f"way_{i}"] for i in range(mixes.WAYS)], 1), axis=1)
    activity = (height * shape)[..., None] * ways[:, None]
    probe = jnp.array([PROBES[s].bytes_per_slot() for s in SERVICES])[service]
    able = site.capacity * SLOT_S
    # Background is a share of what the services leave.
    shares = jnp.concatenate([device[..., None], activity], axis=-1)
    constant = jnp.broadcast_to(probe[:, None, None], (*device.shape, 1))
    return jnp.concatenate([shares * (able - probe.sum()), constant], axis=-1), able * level[-1]


def _chore(hidden: dict[str, Array], time: Array) -> Array:
    start = hidden["crowd_start"] * (OBSERVED_S + ACTED_S)
    shape = attacks.envelope(time, start, hidden["crowd_length_s"], hidden["crowd_rise_s"])
    return jnp.where(hidden["crowds"] < 0.4, shape, 0.0)


def _kinds(
    key: Key[Array, ""],
    hidden: dict[str, Array],
    kind: Array,
    service: Array,
    family: Array,
    label: Array,
) -> Array:
    """``mixes.Kind`` [N,G,A] of each source's components: device, activity's ways, service."""
    device = jnp.array([d.kind for d in _TYPES])[kind][:, None]
    hostile = jnp.array([a.kinds for a in mixes.ATTACKS.values()])[family - 1]
    likeness = jnp.where(label > 0, 1.0, hidden["likeness"])[:, None, None]
    plain = jnp.concatenate([device, device + likeness * (hostile - device)], axis=1)
    varied = traffic.vary(key, _flat(plain)).reshape(plain.shape)
    probe = jnp.array([PROBES[s].kind for s in SERVICES])[service][:, None]
    return jnp.concatenate([varied, probe], axis=1)


def _blurred(key: Key[Array, ""], x: Float[Array, "N W F"], blur: Array) -> Float[Array, "N W F"]:
    sampled = jnp.array([0.0 if f.name in _COUNTERS else 1.0 for f in FEATURES])
    error = blur * normal(key, x.shape[0], x.shape[2]) * sampled[None]
    limits = jnp.array([1.0 if f.unit == SHARE else jnp.inf for f in FEATURES])
    return jnp.minimum(x * jnp.exp(error)[:, None], jnp.broadcast_to(limits, x.shape))
