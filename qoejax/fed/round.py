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
from jaxtyping import Array, Bool, Int, Key

from qoejax.fed.axis import TURN, Axis
from qoejax.fed.receive import Received, sum_of, summed, together, zero_unless
from qoejax.fed.state import Algorithm, Local, RoundKeys, ServerState, init_state, round_keys
from qoejax.types import Cohort, Examples, Params, Sums

__all__ = [
    "Algorithm", "Local", "RoundKeys", "ServerState", "init_state", "local_updates",
    "make_round", "round_keys", "server_step",
]  # fmt: skip


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
    rule = sum_of(algorithm)
    if rule is None:
        received = together(algorithm, state, cohort, local.deltas, arrived, key)
    else:
        received, _ = summed(
            algorithm, rule, state, cohort, arrived, key, axis,
            lambda shared, message: Local(message, (), {}), (), local.deltas,
        )  # fmt: skip
    client_state, sums = axis.pin(local.client_state), axis.gather(local.sums)
    return advance(algorithm, state, cohort, received, client_state, sums)


def advance(
    algorithm: Algorithm,
    state: ServerState,
    cohort: Cohort,
    received: Received,
    client_state: Any,
    sums: Sums,
) -> tuple[ServerState, Sums]:
    """The next state and the round's metrics, from what was received and what clients keep.

    ``client_state`` and ``sums`` are [K, *], in the cohort's order.
    """
    delta, memory = algorithm.client.server.absorb(
        state.params, state.memory, received.message, received.turnout
    )
    updates, opt_state = algorithm.server_opt.update(
        optax.tree.scale(-1.0, delta), state.opt_state, state.params
    )
    moved = (optax.apply_updates(state.params, updates), memory, received.agg_state, opt_state)
    stayed = (state.params, state.memory, state.agg_state, state.opt_state)
    params, memory, agg_state, opt_state = optax.tree.where(received.enough, moved, stayed)
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
    rule = sum_of(algorithm)

    def round_fn(
        state: ServerState, examples: Examples, cohort: Cohort, key: Key[Array, ""]
    ) -> tuple[ServerState, Sums]:
        arrived = jnp.ones(cohort.weight.shape, bool)
        if rule is None:
            local = local_updates(algorithm, state, examples, cohort, key, axis)
            return server_step(algorithm, state, cohort, local, arrived, key, axis)
        work = _work(algorithm, state, examples, cohort, key)
        received, rest = summed(
            algorithm, rule, state, cohort, arrived, key, axis, _client(algorithm), *work
        )
        return advance(algorithm, state, cohort, received, *rest)

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
        lambda s: jnp.tensordot(counts.astype(s.dtype), s, 1), zero_unless(counts, sums)
    )
    return {**total, **own}
