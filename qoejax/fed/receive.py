"""What the server makes of a cohort's messages: one, and who counts. JAX.

Where the aggregator is a sum (``aggregate.base.Linear``) and nobody looks at messages next to each
other, they are added to a running total, chunk by chunk, as they are made: memory does not grow
with the cohort. Messages that exist already are added up in the same order, to the same bits.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Key

from qoejax.fed.aggregate.base import Linear, shrink, squared_norms, weighted_sum
from qoejax.fed.attacks import corrupt
from qoejax.fed.axis import Axis
from qoejax.fed.protocol import Turnout
from qoejax.fed.state import Algorithm, Local, ServerState, round_keys
from qoejax.types import Cohort, Sums


class Received(NamedTuple):
    """What the server makes of a cohort's messages.

    ``message`` is their aggregate, ``asked`` and ``counts`` are bool[K]: whose message arrived, and
    whose counts. ``enough`` is whether the aggregator has its ``least``.
    """

    message: Any
    agg_state: Any
    attack_state: Any
    asked: Bool[Array, " K"]
    counts: Bool[Array, " K"]
    turnout: Turnout
    enough: Bool[Array, ""]


def sum_of(algorithm: Algorithm) -> Linear | None:
    """The aggregator as a sum, unless somebody has to see all messages next to each other."""
    alone = algorithm.adversary is None and algorithm.weigh is None
    return algorithm.aggregator.linear if alone else None


def summed(
    algorithm: Algorithm,
    rule: Linear,
    state: ServerState,
    cohort: Cohort,
    arrived: Bool[Array, " K"],
    key: Key[Array, ""],
    axis: Axis,
    run: Callable[[Any, Any], Local],
    shared: Any,
    items: Any,
) -> tuple[Received, tuple[Any, Sums]]:
    """Adds up messages chunk by chunk as ``run(shared, item)`` makes them, and drops them.

    Coefficients are those of the clients asked; if one of them is refused, the others' grow in
    proportion at the end. Also returns what else the clients computed.
    """
    asked, weight = axis.pin(_weights(cohort, arrived))
    coefficient = axis.pin(rule.share(weight))
    like = algorithm.client.server.message(state.params)
    empty, parted = jax.flatten_util.ravel_pytree(like)

    def gather(total: Array, shared: Any, items: Any, local: Local) -> tuple[Array, Any]:
        client, coefficient, _ = items
        messages = _aged(algorithm, client, _decoded(algorithm, local.deltas, shared[0]))
        # As vectors: leaf by leaf, a round takes two fifths longer to compile.
        messages = jax.vmap(lambda message: jax.flatten_util.ravel_pytree(message)[0])(messages)
        square = squared_norms(messages)
        sound = square <= algorithm.max_norm**2  # false where not a number
        factor = jnp.where(sound, coefficient * shrink(rule.bound, square), 0.0)
        total = _added(total, messages, factor, sound)
        return total, (sound, local.client_state, local.sums)

    total, kept = axis.for_each(
        lambda shared, item: run(shared[1], item[2]),
        (like, shared), (cohort, coefficient, items), gather, empty,
    )  # fmt: skip
    sound, client_state, sums = kept
    (sound, sums), client_state = axis.gather((sound, sums)), axis.pin(client_state)
    counts = (weight > 0) & sound
    weight = jnp.where(counts, weight, 0.0)
    left = jnp.where(counts, coefficient, 0.0).sum()
    grown = rule.share(weight).sum() / jnp.where(left > 0, left, 1.0)
    total = parted(jnp.where(sound.all(), 1.0, grown) * total)
    server_key, _ = jax.random.split(round_keys(key, state.round).server)
    message, agg_state = rule.finish(total, state.agg_state, server_key)
    turnout = _turnout(algorithm, state, cohort, counts, weight)
    enough = counts.sum() >= algorithm.aggregator.least
    received = Received(message, agg_state, state.attack_state, asked, counts, turnout, enough)
    return received, (client_state, sums)


def _added(
    total: Float[Array, " D"],
    messages: Float[Array, "k D"],
    factor: Float[Array, " k"],
    sound: Bool[Array, " k"],
) -> Float[Array, " D"]:
    """``total`` plus factor times message of those that are sound.

    A loop of at most one turn, after which no factor is left: it keeps XLA from fusing the sum
    with what made the messages, and its products from moving in front of the loop. Either would
    round otherwise than a sum of messages that come from memory.
    """

    def add(_: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        total, factor = carry
        return total + weighted_sum(zero_unless(sound, messages), factor), jnp.zeros_like(factor)

    turns = sound.any().astype(jnp.int32)
    return jax.lax.fori_loop(0, turns, add, (total, factor))[0]


def together(
    algorithm: Algorithm,
    state: ServerState,
    cohort: Cohort,
    coded: Any,
    arrived: Bool[Array, " K"],
    key: Key[Array, ""],
) -> Received:
    """The aggregate of messages [K, *] that are in memory together."""
    server_key, attack_key = jax.random.split(round_keys(key, state.round).server)
    messages, attack_state = opened(algorithm, state, cohort, coded, attack_key)
    asked, weight = _weights(cohort, arrived)
    sound = squared_norms(messages) <= algorithm.max_norm**2  # false where not a number
    counts = (weight > 0) & sound
    weight = jnp.where(counts, weight, 0.0)
    turnout = _turnout(algorithm, state, cohort, counts, weight)
    message, agg_state = combined(algorithm, state, messages, weight, sound, turnout, server_key)
    enough = counts.sum() >= algorithm.aggregator.least
    return Received(message, agg_state, attack_state, asked, counts, turnout, enough)


def opened(
    algorithm: Algorithm, state: ServerState, cohort: Cohort, coded: Any, key: Key[Array, ""]
) -> tuple[Any, Any]:
    """Messages as the aggregator sees them: decoded, attacked, less when old; the attack's state.

    An adversary acts on decoded messages: that of a client which may send any bytes it likes.
    """
    like = algorithm.client.server.message(state.params)
    messages, attack_state = _decoded(algorithm, coded, like), state.attack_state
    if algorithm.adversary is not None:
        messages, attack_state = corrupt(
            algorithm.adversary, messages, attack_state, cohort, like, key
        )
    return _aged(algorithm, cohort, messages), attack_state


def combined(
    algorithm: Algorithm,
    state: ServerState,
    messages: Any,
    weight: Float[Array, " K"],
    sound: Bool[Array, " K"],
    turnout: Turnout,
    key: Key[Array, ""],
) -> tuple[Any, Any]:
    """The aggregate of opened messages, and the aggregator's next state.

    Messages that are not ``sound`` have weight 0, and may be anything.
    """
    messages = _cleared(sound, messages)
    if algorithm.weigh is not None:
        absorb = algorithm.client.server.absorb
        step = lambda m: absorb(state.params, state.memory, m, turnout)[0]  # noqa: E731
        weight = algorithm.weigh(state.params, step, messages, weight)
    return algorithm.aggregator.update(
        messages, state.agg_state, weight=weight, key=key, params=state.params
    )


def _weights(
    cohort: Cohort, arrived: Bool[Array, " K"]
) -> tuple[Bool[Array, " K"], Float[Array, " K"]]:
    """Whose message arrived, and weights without the others'."""
    weight = jnp.where(arrived, cohort.weight, 0.0)
    return weight > 0, jnp.where(jnp.isfinite(weight), weight, 0.0)


def _turnout(
    algorithm: Algorithm,
    state: ServerState,
    cohort: Cohort,
    counts: Bool[Array, " K"],
    weight: Float[Array, " K"],
) -> Turnout:
    return Turnout(
        share=turnout_share(algorithm, state, counts),
        steps=(weight @ cohort.steps.astype(weight.dtype)) / jnp.maximum(weight.sum(), 1e-30),
    )


def turnout_share(
    algorithm: Algorithm, state: ServerState, counts: Bool[Array, " K"]
) -> Float[Array, ""]:
    """Part of the population whose messages count."""
    kept = jax.tree.leaves(state.client_state)
    population = algorithm.population or max([leaf.shape[0] for leaf in kept], default=1)
    return counts.sum().astype(jnp.float32) / population


def _decoded(algorithm: Algorithm, coded: Any, like: Any) -> Any:
    coding = algorithm.client.coding
    return coded if coding is None else jax.vmap(coding.decode, in_axes=(0, None))(coded, like)


def _aged(algorithm: Algorithm, cohort: Cohort, messages: Any) -> Any:
    """Messages scaled down by their age."""
    if cohort.staleness is None:
        return messages
    share = (1.0 + cohort.staleness.astype(jnp.float32)) ** -algorithm.staleness_power
    return jax.vmap(optax.tree.scale)(share, messages)


def _cleared(sound: Bool[Array, " K"], messages: Any) -> Any:
    """Messages with the others' set to zero: a loop of no turn at all where there are none.

    A plain mask would copy all messages each round, and so would a branch around it.
    """
    turns = (~sound.all()).astype(jnp.int32)
    return jax.lax.fori_loop(0, turns, lambda _, m: zero_unless(sound, m), messages)


def zero_unless(keep: Bool[Array, " K"], tree: Any) -> Any:
    """Leaves [K, *] with the entries of the others set to zero."""

    def one(leaf: Array) -> Array:
        mask = keep.reshape(-1, *(1,) * (leaf.ndim - 1))
        return jnp.where(mask, leaf, jnp.zeros((), leaf.dtype))

    return jax.tree.map(one, tree)
