"""Episodes: traffic through a bottleneck, seen passively, and the scores that it causes. JAX.

A site has a hidden capacity, buffer, base delay, load and device mix; an episode of W seconds at a
site has a hidden load, crowd and attack. What is observed are flow features at the ingress, before
the queue: nothing of backlog, delay or loss. Everything follows from the key and the identity of
site and episode, so no order or batch size changes a number.
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

    def episode(
    key: Key[Array, ""],
    site: Int[Array, ""],
    number: Int[Array, ""],
    world: World,
    recorded: attacks.Recording | None = None,
) -> Episode:
    """Episode ``number`` at ``site``: a function of these identities alone.

    Args:
        key: of the whole data set.
        site: number of the site, from 0.
        number: of the episode at this site, from 0.
        world: static under ``jit``.
        recorded: see ``traffic.offered``.
    """
    place = scenarios.draw_site(_key(key, 0, site), world.scenario)
    label_key, own_key = jax.random.split(_key(key, 1, site, number))
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
