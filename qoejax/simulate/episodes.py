"""Episodes: traffic through a bottleneck, seen passively, and the scores that it causes. JAX.

A site has a hidden capacity, buffer, base delay, load and device mix; an episode of W seconds at a
site has a hidden load, crowd and attack. What is observed are flow features at the ingress, before
the queue: nothing of backlog, delay or loss. Everything follows from the key and the identity of
site and episode: order changes no bit, and how many run at once only the rounding of float32.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from qoejax.simulate import attacks, mixes, queue, scenarios, traffic
from qoejax.simulate.observe import observe
from qoejax.simulate.probes import PROBES
from qoejax.simulate.queue import SLOT_S

ALL_ATTACKS = tuple(range(1, len(mixes.LABELS)))


class Settings(NamedTuple):
    """Lengths in seconds: of an episode and of an example; to its targets; between examples."""

    seconds: int = 60
    length: int = 8
    horizons: tuple[int, ...] = (0, 1, 3, 5, 10)
    stride: int = 4

    def examples(self) -> int:
        """Examples of one episode, wherever the first of them starts."""
        room = self.seconds - max(self.horizons) - self.length - (self.stride - 1)
        return room // self.stride + 1


class World(NamedTuple):
    """What examples are made of: where, how long, and which attacks.

    Attributes:
        scenario: where sites come from.
        settings: lengths of episodes and examples.
        attacks: labels that occur besides benign, as indices into ``mixes.LABELS``.
    """

    scenario: scenarios.Scenario = scenarios.SCENARIOS["mixed"]
    settings: Settings = Settings()
    attacks: tuple[int, ...] = ALL_ATTACKS


class Episode(NamedTuple):
    """One episode of W seconds.

    Attributes:
        x: observed features, as in ``observe.FEATURES``.
        label: index into ``mixes.LABELS``; an attack counts where it fills half the second.
        score: of each of ``probes.PROBES`` in that second, MOS or QoME.
        delay_ms: mean one-way network delay; hidden from any model.
        loss: share of bytes lost; hidden.
    """

    x: Float[Array, "W F"]
    label: Int[Array, " W"]
    score: Float[Array, "W Q"]
    delay_ms: Float[Array, " W"]
    loss: Float[Array, " W"]


class Windows(NamedTuple):
    """n examples of T consecutive seconds each, and scores at H horizons."""

    x: Float[Array, "n T F"]
    label: Int[Array, " n"]
    score: Float[Array, "n Q H"]


def simulate(
    key: Key[Array, ""],
    site: scenarios.Site,
    label: Int[Array, ""],
    seconds: int,
    recorded: attacks.Recording | None = None,
) -> Episode:
    """One episode at a site.

    Args:
        key: of this episode.
        site: see ``scenarios.draw_site``.
        label: index into ``mixes.LABELS``, the attack of this episode.
        seconds: W, at least 20.
        recorded: see ``traffic.offered``.

    Raises:
        ValueError: if the episode is too short for what happens in it.
    """
    if seconds < 20:
        raise ValueError(f"episode: expected at least 20 seconds, got {seconds}")
    load_key, noise_key = jax.random.split(key)
    load = traffic.offered(load_key, site, label, seconds, recorded)
    served = queue.fifo(load.slots, load.service, site.capacity * site.buffer_s)
    delay_ms = 1e3 * (site.base_s + SLOT_S * served.backlog / load.service)
    lost = (served.loss * load.slots).reshape(seconds, -1).sum(1)
    scores = [p.score(delay_ms, served.loss, site.budget_ms) for p in PROBES.values()]
    return Episode(
        x=observe(noise_key, load.volume, load.kinds),
        label=jnp.where(load.active >= 0.5, label, 0),
        score=jnp.stack(scores, axis=1),
        delay_ms=delay_ms.reshape(seconds, -1).mean(1),
        loss=lost / load.slots.reshape(seconds, -1).sum(1),
    )


def windows(episode: Episode, last: Int[Array, " n"], settings: Settings) -> Windows:
    """Examples of one episode: features and class up to a second, scores some seconds later.

    Args:
        episode: W seconds.
        last: last second of each example, in [length - 1, W - 1 - largest horizon].
        settings: length T and the H horizons.
    """
    seconds = last[:, None] + jnp.arange(1 - settings.length, 1)[None]
    ahead = last[:, None] + jnp.array(settings.horizons)[None]
    return Windows(episode.x[seconds], episode.label[last], episode.score[ahead].transpose(0, 2, 1))


def episode(
    key: Key[Array, ""],
    site: Int[Array, ""],
    number: Int[Array, ""],
    world: World,
    recorded: attacks.Recording | None = None,
    label: Int[Array, ""] | None = None,
) -> Episode:
    """Episode ``number`` at ``site``: a function of these identities alone.

    Args:
        key: of the whole data set.
        site: number of the site, from 0.
        number: of the episode at this site, from 0.
        world: static under ``jit``.
        recorded: see ``traffic.offered``.
        label: of its attack, 0 for none; None draws it.
    """
    place = scenarios.draw_site(_key(key, 0, site), world.scenario)
    label_key, own_key = jax.random.split(_key(key, 1, site, number))
    if label is None:
        label = attacks.draw_label(label_key, world.attacks)
    return simulate(own_key, place, label, world.settings.seconds, recorded)


def examples(
    key: Key[Array, ""],
    site: Int[Array, ""],
    number: Int[Array, ""],
    world: World,
    recorded: attacks.Recording | None = None,
) -> Windows:
    """The examples of an episode, every ``stride`` seconds from a random start; see ``episode``."""
    settings = world.settings
    start = jax.random.randint(_key(key, 2, site, number), (), 0, settings.stride)
    last = settings.length - 1 + start + settings.stride * jnp.arange(settings.examples())
    return windows(episode(key, site, number, world, recorded), last, settings)


def _key(key: Key[Array, ""], purpose: int, *identity: Int[Array, ""]) -> Key[Array, ""]:
    for part in (purpose, *identity):
        key = jax.random.fold_in(key, part)
    return key
