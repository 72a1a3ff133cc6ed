"""A round whose server sees sums of groups of clients, and nothing of a single one. JAX.

The counterpart of ``round.server_step``: messages become integers on the clients' side
(``ring.quantise``), something adds them up (``wire.secagg``), and the groups' weighted means go
through the same aggregator, optimizer and server as single messages would. With one group that is
the mean of all; with several, a robust rule over groups.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, UInt32

from qoejax.fed import discrete
from qoejax.fed import ring as rings
from qoejax.fed.aggregate.base import squared_norms
from qoejax.fed.axis import Axis
from qoejax.fed.discrete import Grid
from qoejax.fed.protocol import Turnout
from qoejax.fed.receive import Received, combined, opened, turnout_share
from qoejax.fed.ring import Ring
from qoejax.fed.round import advance
from qoejax.fed.state import Algorithm, Local, ServerState, round_keys
from qoejax.types import Cohort, Sums

Coding = Ring | Grid
"""How messages become integers: weighted and rounded, or clipped, rounded and with noise."""


class Encoded(NamedTuple):
    """What K clients hand to secure aggregation.

    ``sound`` is false for a client whose message is not finite, which sends nothing; with noise it
    sends that alone, since staying away would tell. ``clipped`` is the number of coordinates that
    did not fit; with noise, whether the message was longer than its bound.
    """

    words: UInt32[Array, "K N"]
    sound: Bool[Array, " K"]
    clipped: Int[Array, " K"]
    attack_state: Any


class Halves(NamedTuple):
    """The two ends of a masked round, compiled.

    ``encode(state, cohort, parts, key) -> Encoded`` of the whole cohort; ``server(state, cohort,
    parts, attack_state, sums [G, N], counted [K], key) -> (state, metrics)``. A group whose sum is
    not known has a row of zeros. ``server`` takes over the buffers of ``state``.
    """

    encode: Callable[..., Encoded]
    server: Callable[..., tuple[ServerState, Sums]]


def encode(
    algorithm: Algorithm,
    ring: Coding,
    state: ServerState,
    cohort: Cohort,
    deltas: Any,
    key: Key[Array, ""],
    noise: Key[Array, ""],
) -> Encoded:
    """Every client's words; a malicious one changes its message before it is rounded and masked.

    ``noise`` is the round's key of a ``Grid``'s noise.
    """
    messages, attack_state = opened(algorithm, state, cohort, deltas, key)
    rows = rings.flatten(messages)
    if isinstance(ring, Grid):
        return Encoded(
            discrete.words(rows, cohort.client_id, noise, ring),
            jnp.ones(len(rows), bool),
            discrete.shortened(rows, ring),
            attack_state,
        )
    return Encoded(
        rings.quantise(rows, cohort.weight, ring),
        jnp.isfinite(squared_norms(messages)),
        rings.clipped(rows, ring),
        attack_state,
    )


def masked_step(
    algorithm: Algorithm,
    ring: Coding,
    state: ServerState,
    cohort: Cohort,
    local: Local,
    attack_state: Any,
    sums: UInt32[Array, "G N"],
    counted: Bool[Array, " K"],
    key: Key[Array, ""],
) -> tuple[ServerState, Sums]:
    """The next state, and the round's metrics; see ``round.server_step``.

    ``max_norm`` and the aggregator's ``least`` are about groups. Metrics are sums over the clients
    that counted, which a simulation knows and a server would not.
    """
    if isinstance(ring, Grid):
        rows, weight = discrete.means(sums, ring)
    else:
        rows, weight = rings.mean(sums, ring)
    like = algorithm.client.server.message(state.params)
    messages = rings.unflatten(rows, like)
    sound = squared_norms(messages) <= algorithm.max_norm**2
    weight = jnp.where(sound, weight, 0.0)
    turnout = Turnout(
        share=turnout_share(algorithm, state, counted),
        steps=jnp.float32(jnp.nan),  # masked: an algorithm that needs it is refused
    )
    message, agg_state = combined(algorithm, state, messages, weight, sound, turnout, key)
    enough = jnp.greater(weight, 0).sum() >= algorithm.aggregator.least
    received = Received(
        message, agg_state, attack_state, cohort.weight > 0, counted, turnout, enough
    )
    return advance(algorithm, state, cohort, received, local.client_state, local.sums)


def make_masked(algorithm: Algorithm, ring: Coding, axis: Axis) -> Halves:
    """Both ends with their keys filled in, on the devices of ``axis``."""
    place = axis.put

    def joined(parts: Sequence[Local]) -> Local:
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)

    @jax.jit
    def coded(state: ServerState, cohort: Cohort, parts: Any, key: Array) -> Encoded:
        server_key = round_keys(key, state.round).server
        noise = jax.random.fold_in(server_key, 1)
        attack_key = jax.random.split(server_key)[1]
        deltas = joined(parts).deltas
        return encode(algorithm, ring, state, cohort, deltas, attack_key, noise)

    @functools.partial(jax.jit, donate_argnums=0)
    def stepped(
        state: ServerState, cohort: Cohort, parts: Any, attack: Any, sums: Array, counted: Array,
        key: Array,
    ) -> tuple[ServerState, Sums]:  # fmt: skip
        server_key = jax.random.split(round_keys(key, state.round).server)[0]
        local = joined(parts)
        local = local._replace(
            client_state=axis.pin(local.client_state), sums=axis.gather(local.sums)
        )
        return masked_step(algorithm, ring, state, cohort, local, attack, sums, counted, server_key)

    return Halves(
        lambda state, cohort, parts, key: coded(*place((state, cohort, tuple(parts), key))),
        lambda state, cohort, parts, *rest: stepped(*place((state, cohort, tuple(parts), *rest))),
    )
