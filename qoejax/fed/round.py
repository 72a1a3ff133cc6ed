"""One round as a pure function of its state, in two halves with nothing but messages between. JAX.

Whatever changes from round to round is in ``ServerState``; every key is folded from the run's key,
the round and, for clients, their identity. Hence a run continues from its state alone, and where
a client sits in the cohort or on the mesh is invisible.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from qoejax.fed.aggregate.base import squared_norms
from qoejax.fed.attacks import corrupt
from qoejax.fed.protocol import ClientUpdate, Turnout
from qoejax.fed.state import Algorithm, Local, RoundKeys, ServerState, init_state, round_keys
from qoejax.types import Cohort, Examples, Params, Sums

__all__ = [
    "Algorithm", "ForEach", "Local", "RoundKeys", "ServerState", "in_turn", "init_state",
    "local_updates", "make_halves", "make_round", "round_keys", "server_step",
]  # fmt: skip

ForEach = Callable[[Callable[[Any, Any], Any], Any, Any], Any]
"""``for_each(fn, shared, items)``: ``fn(shared, item)`` of every item, results stacked [K, ...]."""


def in_turn(fn: Callable[[Any, Any], Any], shared: Any, items: Any) -> Any:
    """One client after the other: each pays for its own steps, memory is that of one client."""
    return jax.lax.map(lambda item: fn(shared, item), items)


def local_updates(
    client_update: ClientUpdate,
    received: Any,
    client_state: Any,
    examples: Examples,
    cohort: Cohort,
    key: Key[Array, ""],
    lr_scale: Float[Array, ""],
    *,
    number: Int[Array, ""],
    for_each: ForEach = in_turn,
) -> Local:
    """First half: what every client of ``cohort`` makes of what it received.

    Args:
      client_update: The clients' algorithm.
      received: What the server sent, for most algorithms the global parameters. Where the cohort
        has a ``staleness``, leaves [H, *], of which each client takes its own round's.
      client_state: Leaves [P, *], of the whole population.
      examples: The staged rows of all clients.
      cohort: K clients; those of weight 0 take no step.
      key: ``RoundKeys.clients`` of the round.
      lr_scale: Multiplies the clients' learning rate.
      number: The round.
      for_each: How the client axis is run; never changes the result beyond rounding.
    """

    def one(shared: Any, item: tuple[Cohort, Any]) -> Local:
        received, examples, key, lr_scale, number = shared
        client, before = item
        if client.staleness is not None:
            received = _version(received, number - client.staleness)
        steps = jnp.where(client.weight > 0, client.steps, 0)
        delta, after, sums = client_update.update(
            received, before, examples, client._replace(steps=steps),
            jax.random.fold_in(key, client.client_id), lr_scale,
        )  # fmt: skip
        if not jax.tree.leaves(after):
            return Local(delta, after, sums)
        ok = _finite(delta) & _finite(after)
        delta = jax.tree.map(lambda d: _nan_unless(ok, d), delta)
        return Local(delta, optax.tree.where(ok, after, before), sums)

    slots = jax.tree.map(
        lambda s: s.at[jnp.maximum(cohort.client_id, 0)].get(mode="clip"), client_state
    )
    return for_each(one, (received, examples, key, lr_scale, number), (cohort, slots))


def _version(past: Any, number: Int[Array, ""]) -> Any:
    """What was sent in round ``number``, of leaves [H, *]."""
    return jax.tree.map(lambda leaf: leaf[number % leaf.shape[0]], past)


def server_step(
    algorithm: Algorithm,
    state: ServerState,
    cohort: Cohort,
    local: Local,
    arrived: Bool[Array, " K"],
    key: Key[Array, ""],
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
      key: ``RoundKeys.server`` of the round.

    Returns:
      The state after the round, and metrics: the sums of the clients that counted, their number
      ``clients``, ``refused``, the number of those that arrived but were not finite or of a larger
      norm, and ``absent``, of those that were asked and did not finish.
    """
    key, attack_key = jax.random.split(key)
    messages, attack_state = opened(algorithm, state, cohort, local.deltas, attack_key)
    weight = jnp.where(arrived, cohort.weight, 0.0)
    asked = weight > 0
    sound = squared_norms(messages) <= algorithm.max_norm**2  # false where not a number
    counts = asked & jnp.isfinite(weight) & sound
    weight = jnp.where(counts, weight, 0.0)
    population = max([leaf.shape[0] for leaf in jax.tree.leaves(state.client_state)], default=1)
    turnout = Turnout(
        share=counts.sum().astype(jnp.float32) / population,
        steps=(weight @ cohort.steps.astype(weight.dtype)) / jnp.maximum(weight.sum(), 1e-30),
    )
    params, memory, agg_state, opt_state = moved(
        algorithm, state, messages, weight, sound, turnout, key
    )
    new = ServerState(
        round=state.round + 1,
        params=params,
        agg_state=agg_state,
        opt_state=opt_state,
        client_state=write_back(state.client_state, cohort, local.client_state),
        memory=memory,
        attack_state=attack_state,
        past=remember(algorithm, state, params, memory),
    )
    return new, round_metrics(local.sums, cohort, asked, counts)


def moved(
    algorithm: Algorithm,
    state: ServerState,
    messages: Any,
    weight: Float[Array, " K"],
    sound: Bool[Array, " K"],
    turnout: Turnout,
    key: Key[Array, ""],
) -> tuple[Params, Any, Any, Any]:
    """Parameters, memory, and states of aggregator and optimizer after the round.

    Messages that are not ``sound`` have weight 0. With fewer of weight than the aggregator's
    ``least``, everything stays.
    """
    combine = functools.partial(_combine, algorithm, state, weight, turnout, key)
    # Two branches around the aggregator: masking in front of it would copy all deltas each round.
    delta, memory, agg_state = jax.lax.cond(
        sound.all(), combine, lambda m: combine(_zero_unless(sound, m)), messages
    )
    updates, opt_state = algorithm.server_opt.update(
        optax.tree.scale(-1.0, delta), state.opt_state, state.params
    )
    after = (optax.apply_updates(state.params, updates), memory, agg_state, opt_state)
    before = (state.params, state.memory, state.agg_state, state.opt_state)
    enough = jnp.greater(weight, 0).sum() >= algorithm.aggregator.least
    return optax.tree.where(enough, after, before)


def opened(
    algorithm: Algorithm, state: ServerState, cohort: Cohort, coded: Any, key: Key[Array, ""]
) -> tuple[Any, Any]:
    """Messages as the aggregator sees them: decoded, attacked, less when old; the attack's state.

    An adversary acts on decoded messages: that of a client which may send any bytes it likes.
    """
    update, adversary = algorithm.client, algorithm.adversary
    messages, attack_state = coded, state.attack_state
    like = update.server.message(state.params)
    if update.coding is not None:
        messages = jax.vmap(update.coding.decode, in_axes=(0, None))(coded, like)
    if adversary is not None:
        messages, attack_state = corrupt(adversary, messages, attack_state, cohort, like, key)
    if cohort.staleness is not None:
        share = (1.0 + cohort.staleness.astype(jnp.float32)) ** -algorithm.staleness_power
        messages = jax.vmap(optax.tree.scale)(share, messages)
    return messages, attack_state


def _combine(
    algorithm: Algorithm,
    state: ServerState,
    weight: Float[Array, " K"],
    turnout: Turnout,
    key: Key[Array, ""],
    messages: Any,
) -> tuple[Params, Any, Any]:
    """The step of the parameters, and the next states of the algorithm's server and aggregator."""

    def absorb(message: Any) -> tuple[Params, Any]:
        return algorithm.client.server.absorb(state.params, state.memory, message, turnout)

    if algorithm.weigh is not None:
        weight = algorithm.weigh(state.params, lambda m: absorb(m)[0], messages, weight)
    message, agg_state = algorithm.aggregator.update(
        messages, state.agg_state, weight=weight, key=key, params=state.params
    )
    return *absorb(message), agg_state


def remember(algorithm: Algorithm, state: ServerState, params: Params, memory: Any) -> Any:
    """``past`` with what is sent next in the place of the oldest."""
    if not jax.tree.leaves(state.past):
        return state.past
    sent = algorithm.client.server.send(params, memory)
    place = lambda old: (state.round + 1) % old.shape[0]  # noqa: E731
    return jax.tree.map(lambda old, new: old.at[place(old)].set(new), state.past, sent)


def write_back(all_states: Any, cohort: Cohort, new: Any) -> Any:
    """States [P, *] in which the clients that took part have their new ones."""
    population = max([leaf.shape[0] for leaf in jax.tree.leaves(all_states)], default=0)
    target = jnp.where((cohort.weight > 0) & (cohort.client_id >= 0), cohort.client_id, population)
    return jax.tree.map(lambda old, own: old.at[target].set(own, mode="drop"), all_states, new)


def make_halves(algorithm: Algorithm, for_each: ForEach = in_turn) -> tuple[Callable, Callable]:
    """The halves with their keys and rates filled in from the run's key and the state's round.

    Returns:
      ``local_fn(state, examples, cohort, key) -> Local`` and
      ``server_fn(state, cohort, local, arrived, key) -> (state, metrics)``.
    """

    def local_fn(
        state: ServerState, examples: Examples, cohort: Cohort, key: Key[Array, ""]
    ) -> Local:
        lr_scale = jnp.asarray(algorithm.schedule(state.round), jnp.float32)
        received = state.past
        if cohort.staleness is None:
            received = algorithm.client.server.send(state.params, state.memory)
        return local_updates(
            algorithm.client, received, state.client_state, examples, cohort,
            round_keys(key, state.round).clients, lr_scale, number=state.round, for_each=for_each,
        )  # fmt: skip

    def server_fn(
        state: ServerState,
        cohort: Cohort,
        local: Local,
        arrived: Bool[Array, " K"],
        key: Key[Array, ""],
    ) -> tuple[ServerState, Sums]:
        return server_step(
            algorithm, state, cohort, local, arrived, round_keys(key, state.round).server
        )  # fmt: skip

    return local_fn, server_fn


def make_round(algorithm: Algorithm, for_each: ForEach = in_turn) -> Callable:
    """``round_fn(state, examples, cohort, key) -> (state, metrics)``: every delta arrives."""
    local_fn, server_fn = make_halves(algorithm, for_each)

    def round_fn(
        state: ServerState, examples: Examples, cohort: Cohort, key: Key[Array, ""]
    ) -> tuple[ServerState, Sums]:
        local = local_fn(state, examples, cohort, key)
        return server_fn(state, cohort, local, jnp.ones(cohort.weight.shape, bool), key)

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


def round_metrics(
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
