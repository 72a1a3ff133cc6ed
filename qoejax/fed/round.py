"""One round as a pure function of its state, in two halves with nothing but messages between. JAX.

Whatever changes from round to round is in ``ServerState``; every key is folded from the run's key,
the round and, for clients, their identity. Hence a run continues from its state alone, and where
a client sits in the cohort or on the mesh is invisible.

Where the aggregator is a sum (``aggregate.base.Linear``) and nobody looks at single messages, a
round in one piece adds each chunk's messages to a running total as they are made, so its memory
does not grow with the cohort. ``server_step`` adds up messages that exist in the same order, and
gets the same bits.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from qoejax.fed.aggregate.base import Linear, shrink, squared_norms, weighted_sum
from qoejax.fed.attacks import corrupt
from qoejax.fed.axis import TURN, Axis
from qoejax.fed.protocol import Turnout
from qoejax.fed.state import Algorithm, Local, RoundKeys, ServerState, init_state, round_keys
from qoejax.types import Cohort, Examples, Params, Sums

__all__ = [
    "Algorithm", "Local", "RoundKeys", "ServerState", "init_state", "local_updates",
    "make_round", "round_keys", "server_step",
]  # fmt: skip


class Received(NamedTuple):
    """What the server makes of a cohort's messages.

    ``message`` is their aggregate, ``asked`` and ``counts`` are bool[K]: whose message arrived, and
    whose counts.
    """

    message: Any
    agg_state: Any
    attack_state: Any
    asked: Bool[Array, " K"]
    counts: Bool[Array, " K"]
    turnout: Turnout


# The clients' half.


def local_updates(
    algorithm: Algorithm,
    state: ServerState,
    examples: Examples,
    cohort: Cohort,
    key: Key[Array, ""],
    axis: Axis = TURN,
) -> Local:
    """First half: what every client of ``cohort`` makes of what it received.

    Args:
      algorithm: Its client's half is used.
      state: Before the round. Where the cohort has a ``staleness``, each client takes what was
        sent in its own round.
      examples: The staged rows of all clients.
      cohort: K clients; those of weight 0 take no step.
      key: The run's own.
      axis: How the client axis is run; never changes the result beyond rounding.
    """
    work = _work(algorithm, state, examples, cohort, key)
    return axis.for_each(_client(algorithm), *work)[1]


def _work(
    algorithm: Algorithm,
    state: ServerState,
    examples: Examples,
    cohort: Cohort,
    key: Key[Array, ""],
) -> tuple[Any, tuple[Cohort, Any]]:
    """What all clients of a round share, and what is each one's own."""
    received = state.past
    if cohort.staleness is None:
        received = algorithm.client.server.send(state.params, state.memory)
    lr_scale = jnp.asarray(algorithm.schedule(state.round), jnp.float32)
    own = jax.tree.map(
        lambda s: s.at[jnp.maximum(cohort.client_id, 0)].get(mode="clip"), state.client_state
    )
    key = round_keys(key, state.round).clients
    return (received, examples, key, lr_scale, state.round), (cohort, own)


def _client(algorithm: Algorithm) -> Callable[[Any, tuple[Cohort, Any]], Local]:
    def run(shared: Any, item: tuple[Cohort, Any]) -> Local:
        received, examples, key, lr_scale, number = shared
        client, before = item
        if client.staleness is not None:
            received = _version(received, number - client.staleness)
        steps = jnp.where(client.weight > 0, client.steps, 0)
        delta, after, sums = algorithm.client.update(
            received, before, examples, client._replace(steps=steps),
            jax.random.fold_in(key, client.client_id), lr_scale,
        )  # fmt: skip
        if not jax.tree.leaves(after):
            return Local(delta, after, sums)
        ok = _finite(delta) & _finite(after)
        delta = jax.tree.map(lambda d: _nan_unless(ok, d), delta)
        return Local(delta, optax.tree.where(ok, after, before), sums)

    return run


def _version(past: Any, number: Int[Array, ""]) -> Any:
    """What was sent in round ``number``, of leaves [H, *]."""
    return jax.tree.map(lambda leaf: leaf[number % leaf.shape[0]], past)


# The server's half.


def server_step(
    algorithm: Algorithm,
    state: ServerState,
    cohort: Cohort,
    local: Local,
    arrived: Bool[Array, " K"],
    key: Key[Array, ""],
    axis: Axis = TURN,
) -> tuple[ServerState, Sums]:
    """Second half: the next state, and the round's metrics.

    A client counts when it has weight and its message arrived, is finite and of bounded norm. A
    delta is a negative gradient, so any optax optimizer fits. With fewer clients that count than
    the aggregator's ``least``, the parameters and the states of aggregator, optimizer and server
    stay as they are.

    Args:
      algorithm: Messages are decoded, its adversary corrupts them, its aggregator makes one of
        many, its server a delta of that, and its optimizer applies it.
      state: Before the round.
      cohort: Who was asked.
      local: What they computed, in the cohort's order.
      arrived: False for clients whose message was lost or refused on its way; their own state
        moves on nevertheless, since a client does not know.
      key: The run's own.
      axis: How sums over the client axis are run.

    Returns:
      The state after the round, and metrics: the sums of the clients that counted, their number
      ``clients``, ``refused``, the number of those that arrived but were not finite or of a larger
      norm, and ``absent``, of those that were asked and did not finish.
    """
    rule = _sum_of(algorithm)
    if rule is None:
        received = _together(algorithm, state, cohort, local.deltas, arrived, key)
    else:
        received, _ = _summed(
            algorithm, rule, state, cohort, arrived, key, axis,
            lambda shared, message: Local(message, (), {}), (), local.deltas,
        )  # fmt: skip
    kept = axis.pin((local.client_state, local.sums))
    return _advance(algorithm, state, cohort, received, *kept)


def _sum_of(algorithm: Algorithm) -> Linear | None:
    """The aggregator as a sum, unless somebody has to see all messages next to each other."""
    alone = algorithm.adversary is None and algorithm.weigh is None
    return algorithm.aggregator.linear if alone else None


def _summed(
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
    asked, weight = _weights(cohort, arrived)
    coefficient = rule.share(weight)
    like = algorithm.client.server.message(state.params)

    def gather(total: Any, shared: Any, items: Any, local: Local) -> tuple[Any, Any]:
        client, coefficient, _ = items
        messages = _aged(algorithm, client, _decoded(algorithm, local.deltas, shared[0]))
        square = squared_norms(messages)
        sound = square <= algorithm.max_norm**2  # false where not a number
        factor = jnp.where(sound, coefficient * shrink(rule.bound, square), 0.0)
        total = _added(total, messages, factor, sound)
        return total, (sound, local.client_state, local.sums)

    total, kept = axis.for_each(
        lambda shared, item: run(shared[1], item[2]),
        (like, shared), (cohort, coefficient, items), gather, like,
    )  # fmt: skip
    sound, *rest = axis.pin(kept)
    counts = (weight > 0) & sound
    weight = jnp.where(counts, weight, 0.0)
    left = jnp.where(counts, coefficient, 0.0).sum()
    grown = rule.share(weight).sum() / jnp.where(left > 0, left, 1.0)
    total = optax.tree.scale(jnp.where(sound.all(), 1.0, grown), total)
    server_key, _ = jax.random.split(round_keys(key, state.round).server)
    message, agg_state = rule.finish(total, state.agg_state, server_key)
    turnout = _turnout(algorithm, state, cohort, counts, weight)
    return Received(message, agg_state, state.attack_state, asked, counts, turnout), tuple(rest)


def _added(total: Any, messages: Any, factor: Float[Array, " k"], sound: Bool[Array, " k"]) -> Any:
    """``total`` plus factor times message of those that are sound.

    A loop of at most one turn, after which no factor is left: it keeps XLA from fusing the sum
    with what made the messages, and its products from moving in front of the loop. Either would
    round otherwise than a sum of messages that come from memory.
    """

    def add(_: Any, carry: tuple[Any, Array]) -> tuple[Any, Array]:
        total, factor = carry
        more = weighted_sum(_zero_unless(sound, messages), factor)
        return jax.tree.map(jnp.add, total, more), jnp.zeros_like(factor)

    turns = sound.any().astype(jnp.int32)
    return jax.lax.fori_loop(0, turns, add, (total, factor))[0]


def _together(
    algorithm: Algorithm,
    state: ServerState,
    cohort: Cohort,
    coded: Any,
    arrived: Bool[Array, " K"],
    key: Key[Array, ""],
) -> Received:
    """The aggregate of messages [K, *] that are in memory together.

    An adversary acts on decoded messages: that of a client which may send any bytes it likes.
    """
    server_key, attack_key = jax.random.split(round_keys(key, state.round).server)
    like = algorithm.client.server.message(state.params)
    messages, attack_state = _decoded(algorithm, coded, like), state.attack_state
    if algorithm.adversary is not None:
        messages, attack_state = corrupt(
            algorithm.adversary, messages, attack_state, cohort, like, attack_key
        )
    messages = _aged(algorithm, cohort, messages)
    asked, weight = _weights(cohort, arrived)
    sound = squared_norms(messages) <= algorithm.max_norm**2  # false where not a number
    counts = (weight > 0) & sound
    weight = jnp.where(counts, weight, 0.0)
    turnout = _turnout(algorithm, state, cohort, counts, weight)
    messages = _cleared(sound, messages)
    if algorithm.weigh is not None:
        absorb = algorithm.client.server.absorb
        step = lambda m: absorb(state.params, state.memory, m, turnout)[0]  # noqa: E731
        weight = algorithm.weigh(state.params, step, messages, weight)
    message, agg_state = algorithm.aggregator.update(
        messages, state.agg_state, weight=weight, key=server_key, params=state.params
    )
    return Received(message, agg_state, attack_state, asked, counts, turnout)


def _advance(
    algorithm: Algorithm,
    state: ServerState,
    cohort: Cohort,
    received: Received,
    client_state: Any,
    sums: Sums,
) -> tuple[ServerState, Sums]:
    """The next state and the round's metrics."""
    delta, memory = algorithm.client.server.absorb(
        state.params, state.memory, received.message, received.turnout
    )
    updates, opt_state = algorithm.server_opt.update(
        optax.tree.scale(-1.0, delta), state.opt_state, state.params
    )
    moved = (optax.apply_updates(state.params, updates), memory, received.agg_state, opt_state)
    stayed = (state.params, state.memory, state.agg_state, state.opt_state)
    enough = received.counts.sum() >= algorithm.aggregator.least
    params, memory, agg_state, opt_state = optax.tree.where(enough, moved, stayed)
    new = ServerState(
        round=state.round + 1,
        params=params,
        agg_state=agg_state,
        opt_state=opt_state,
        client_state=_write_back(state.client_state, cohort, client_state),
        memory=memory,
        attack_state=received.attack_state,
        past=_remember(algorithm, state, params, memory),
    )
    return new, _metrics(sums, cohort, received.asked, received.counts)


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
    kept = jax.tree.leaves(state.client_state)
    population = algorithm.population or max([leaf.shape[0] for leaf in kept], default=1)
    return Turnout(
        share=counts.sum().astype(jnp.float32) / population,
        steps=(weight @ cohort.steps.astype(weight.dtype)) / jnp.maximum(weight.sum(), 1e-30),
    )


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
    return jax.lax.fori_loop(0, turns, lambda _, m: _zero_unless(sound, m), messages)


def _remember(algorithm: Algorithm, state: ServerState, params: Params, memory: Any) -> Any:
    """``past`` with what is sent next in the place of the oldest."""
    if not jax.tree.leaves(state.past):
        return state.past
    sent = algorithm.client.server.send(params, memory)
    place = lambda old: (state.round + 1) % old.shape[0]  # noqa: E731
    return jax.tree.map(lambda old, new: old.at[place(old)].set(new), state.past, sent)


def _write_back(all_states: Any, cohort: Cohort, new: Any) -> Any:
    """States [P, *] in which the clients that took part have their new ones."""
    population = max([leaf.shape[0] for leaf in jax.tree.leaves(all_states)], default=0)
    target = jnp.where((cohort.weight > 0) & (cohort.client_id >= 0), cohort.client_id, population)
    return jax.tree.map(lambda old, own: old.at[target].set(own, mode="drop"), all_states, new)


# Both halves.


def make_halves(algorithm: Algorithm, axis: Axis = TURN) -> tuple[Callable, Callable]:
    """``local_updates`` and ``server_step`` of an algorithm.

    Returns:
      ``local_fn(state, examples, cohort, key) -> Local`` and
      ``server_fn(state, cohort, local, arrived, key) -> (state, metrics)``.
    """
    return (
        functools.partial(local_updates, algorithm, axis=axis),
        functools.partial(server_step, algorithm, axis=axis),
    )


def make_round(algorithm: Algorithm, axis: Axis = TURN) -> Callable:
    """``round_fn(state, examples, cohort, key) -> (state, metrics)``: every message arrives."""
    rule = _sum_of(algorithm)

    def round_fn(
        state: ServerState, examples: Examples, cohort: Cohort, key: Key[Array, ""]
    ) -> tuple[ServerState, Sums]:
        arrived = jnp.ones(cohort.weight.shape, bool)
        if rule is None:
            local = local_updates(algorithm, state, examples, cohort, key, axis)
            return server_step(algorithm, state, cohort, local, arrived, key, axis)
        work = _work(algorithm, state, examples, cohort, key)
        received, rest = _summed(
            algorithm, rule, state, cohort, arrived, key, axis, _client(algorithm), *work
        )
        return _advance(algorithm, state, cohort, received, *rest)

    return round_fn


def _finite(tree: Any) -> Bool[Array, ""]:
    """Whether every number of every leaf is finite; keys and the like count as finite."""
    ok = jnp.bool_(True)
    for leaf in jax.tree.leaves(tree):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            ok &= jnp.isfinite(leaf).all()
    return ok


def _nan_unless(ok: Bool[Array, ""], leaf: Array) -> Array:
    """The leaf, or NaN throughout; integers stay, since a scale or value beside them turns NaN."""
    floating = jnp.issubdtype(leaf.dtype, jnp.floating)
    return jnp.where(ok, leaf, jnp.nan) if floating else leaf


def _zero_unless(keep: Bool[Array, " K"], tree: Any) -> Any:
    """Leaves [K, *] with the entries of the others set to zero."""

    def one(leaf: Array) -> Array:
        mask = keep.reshape(-1, *(1,) * (leaf.ndim - 1))
        return jnp.where(mask, leaf, jnp.zeros((), leaf.dtype))

    return jax.tree.map(one, tree)


def _metrics(
    sums: Sums, cohort: Cohort, asked: Bool[Array, " K"], counts: Bool[Array, " K"]
) -> Sums:
    absent = (cohort.client_id >= 0) & (cohort.weight == 0)
    own = {
        "absent": absent.sum().astype(jnp.float32),
        "clients": counts.sum().astype(jnp.float32),
        "refused": (asked & ~counts).sum().astype(jnp.float32),
    }
    if clash := sorted(own.keys() & sums.keys()):
        raise ValueError(f"metric {clash[0]!r} of the loss has the name of one of the round's own")
    total = jax.tree.map(
        lambda s: jnp.tensordot(counts.astype(s.dtype), s, 1), _zero_unless(counts, sums)
    )
    return {**total, **own}
