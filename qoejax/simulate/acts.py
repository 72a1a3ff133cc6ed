"""What actions on sources do to the bottleneck, and so to everyone's experience. JAX.

A closed loop: actions change arrivals, arrivals the queue, the queue delay and loss, and these the
MOS of every source's user. Functions take one scene; callers ``vmap`` them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from qoejax.qoe import decide
from qoejax.simulate import queue
from qoejax.simulate.probes import PROBES
from qoejax.simulate.queue import SLOT_S
from qoejax.simulate.sources import SERVICES, Scene

ADMITTED = (1.0, 0.5, 0.0)
"""Share of a source's packets that allow, rate_limit and block let through, whichever they are."""

BLOCKED_MOS = 1.0


class Outcome(NamedTuple):
    """What happened while the actions held: S slots, N sources.

    Attributes:
        mos: of each source's user, the mean over time, in [1, 5].
        backlog: bytes waiting at the end of each slot.
        loss: share of the admitted bytes of each slot that found the buffer full.
    """

    mos: Float[Array, " N"]
    backlog: Float[Array, " S"]
    loss: Float[Array, " S"]


def act(scene: Scene, actions: Int[Array, " N"]) -> Outcome:
    """Runs the bottleneck with ``actions``, indices into ``decide.ACTIONS``.

    A limited source loses the packets that are not admitted, its user's service included, and of
    the rest what the buffer loses. A blocked source's user has MOS 1.
    """
    share = jnp.array(ADMITTED)[actions]
    arrivals = (share[:, None] * scene.offered).sum(0)
    buffer = scene.site.capacity * scene.site.buffer_s
    served = queue.fifo(arrivals, scene.able, buffer, scene.waiting)
    delay_ms = 1e3 * (scene.site.base_s + SLOT_S * served.backlog / scene.able)
    # A limited source's packets meet the limiter first, and the buffer's loss behind it.
    kept = jnp.array(ADMITTED[:2])[:, None]
    lost = 1.0 - kept * (1.0 - served.loss)[None]
    felt = jnp.stack([_felt(name, delay_ms, lost, scene) for name in SERVICES])
    table = jnp.concatenate([felt, jnp.full((len(SERVICES), 1), BLOCKED_MOS)], axis=1)
    return Outcome(table[scene.service, actions], served.backlog, served.loss)


def prices(damage: Float[Array, ""], classes: int, sources: int) -> decide.Prices:
    """Prices under which every attack that is admitted costs ``damage``, a limited one its share.

    What an action averts is what it does not admit; all weights are 1.
    """
    each = jnp.where(jnp.arange(classes) > 0, damage, 0.0)
    averted = jnp.broadcast_to(1.0 - jnp.array(ADMITTED), (classes, len(ADMITTED)))
    return decide.Prices(each, averted, jnp.ones(sources))


def admitted(label: Int[Array, " N"], actions: Int[Array, " N"]) -> Float[Array, ""]:
    """Compromised sources that are let through; a limited one counts its share.

    Times ``sources.ACTED_S``, attack-seconds.
    """
    return jnp.where(label > 0, jnp.array(ADMITTED)[actions], 0.0).sum()


def _felt(name: str, delay_ms: Array, lost: Float[Array, "A S"], scene: Scene) -> Array:
    """Mean MOS over time at each loss."""
    score = PROBES[name].score
    return jax.vmap(lambda p: score(delay_ms, p, scene.site.budget_ms).mean())(lost)
