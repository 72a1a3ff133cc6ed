"""One round as a pure function of its state, in two halves with nothing but deltas between. JAX.

Whatever changes from round to round is in ``ServerState``; every key is folded from the run's key,
the round and, for clients, their identity. Hence a run continues from its state alone, and where
a client sits in the cohort or on the mesh is invisible.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from qoejax.fed.aggregate import Aggregator
from qoejax.fed.client import ClientUpdate, Turnout
from qoejax.types import Cohort, Examples, Params, Sums

ForEach = Callable[[Callable[[Any, Any], Any], Any, Any], Any]
"""``for_each(fn, shared, items)``: ``fn(shared, item)`` of every item, results stacked [K, ...]."""


Weigh = Callable[[Params, Callable[[Any], Params], Any, Any], Any]
"""``weigh(params, delta_of, deltas, weight) -> weight [K]``: new weights of the clients.

``delta_of(message)`` is the step of the parameters that one client's message alone would be.
"""


class ServerState(NamedTuple):
    """All that a run carries from round to round.

    ``client_state`` leaves are [P, *]: one entry for every client of the population. ``memory`` is
    what the algorithm's server keeps. ``past`` leaves are [H, *]: what was sent in the last H
    rounds, round r at r mod H, if clients may start from an older model; else ().
    """

    round: Int[Array, ""]
    params: Params
    agg_state: Any
    opt_state: Any
    client_state: Any
    memory: Any = ()
    past: Any = ()


class Local(NamedTuple):
    """What the K clients of a cohort, or of a slice of it, computed; all leaves are [K, *].

    ``deltas`` are the algorithm's messages, for most algorithms of the shape of the parameters. A
    client whose delta or state is not finite has a delta with NaN in it, which the server
    refuses, and the state it came with.
    """

    deltas: Params
    client_state: Any
    sums: Sums


class RoundKeys(NamedTuple):
    """Independent keys of one round."""

    cohort: Key[Array, ""]
    clients: Key[Array, ""]
    server: Key[Array, ""]


class Algorithm(NamedTuple):
    """The swappable parts of a round.

    ``schedule(round)`` multiplies the clients' learning rate; ``weigh``, if given, judges the
    clients that count by what they sent. A message of staleness t is scaled by (1 + t) to the
    power of minus ``staleness_power`` (FedBuff: 0.5).
    """

    client: ClientUpdate
    aggregator: Aggregator
    server_opt: optax.GradientTransformation
    schedule: Callable[[Any], Any]
    weigh: Weigh | None = None
    staleness_power: float = 0.5


def round_keys(key: Key[Array, ""], number: Int[Array, ""]) -> RoundKeys:
    """The keys of round ``number``."""
    return RoundKeys(*jax.random.split(jax.random.fold_in(key, number), 3))


def init_state(
    algorithm: Algorithm, params: Params, population: int, history: int = 0
) -> ServerState:
    """State before round 0 of ``population`` clients; shares no buffer with ``params``.

    ``history`` is H, the number of rounds whose models are kept for clients that start late.
    """
    # A weakly typed leaf, such as jnp.array(0.5), would compile again when it comes back strong.
    params = jax.tree.map(lambda p: jnp.array(p, jnp.result_type(p), copy=True), params)
    server = algorithm.client.server
    memory = server.init(params)
    return ServerState(
        round=jnp.zeros((), jnp.int32),
        params=params,
        agg_state=algorithm.aggregator.init(server.message(params)),
        opt_state=algorithm.server_opt.init(params),
        client_state=_repeat(algorithm.client.init(params), population),
        memory=memory,
        past=_repeat(server.send(params, memory), history) if history else (),
    )


def _repeat(tree: Any, times: int) -> Any:
    return jax.tree.map(lambda s: jnp.repeat(jnp.asarray(s)[None], times, axis=0), tree)


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
    staleness_power: float = 0.5,
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
      staleness_power: See ``Algorithm``.
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
        if client.staleness is not None:
            age = 1.0 + client.staleness.astype(jnp.float32)
            delta = optax.tree.scale(age**-staleness_power, delta)
        if not jax.tree.leaves(after):
            return Local(delta, after, sums)
        ok = _finite(delta) & _finite(after)
        delta = jax.tree.map(lambda d: jnp.where(ok, d, jnp.nan), delta)
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

    A client counts when it has weight and its delta arrived and is finite (with a norm below
    1e19). A delta is a negative gradient, so any optax optimizer fits. Without any client that
    counts, the parameters and the states of aggregator, optimizer and server stay as they are.

    Args:
      algorithm: Its aggregator makes one message of many, its server a delta of that, and its
        optimizer applies it.
      state: Before the round.
      cohort: Who was asked.
      local: What they computed, in the cohort's order.
      arrived: False for clients whose delta was lost or refused on its way; their own state moves
        on nevertheless, since a client does not know.
      key: ``RoundKeys.server`` of the round.

    Returns:
      The state after the round, and metrics: the sums of the clients that counted, their number
      ``clients``, ``refused``, the number of those that arrived but were not finite, and
      ``absent``, of those that were asked and did not finish.
    """
    server = algorithm.client.server
    weight = jnp.where(arrived, cohort.weight, 0.0)
    asked = weight > 0
    finite = jnp.isfinite(_square_norms(local.deltas))
    counts = asked & jnp.isfinite(weight) & finite
    weight = jnp.where(counts, weight, 0.0)
    population = max([leaf.shape[0] for leaf in jax.tree.leaves(state.client_state)], default=1)

    def absorb(message: Any) -> tuple[Params, Any]:
        return server.absorb(state.params, state.memory, message, turnout)

    def combine(deltas: Params) -> tuple[Params, Any, Any]:
        judged = weight
        if algorithm.weigh is not None:
            judged = algorithm.weigh(state.params, lambda m: absorb(m)[0], deltas, weight)
        message, agg_state = algorithm.aggregator.update(
            deltas, state.agg_state, weight=judged, key=key
        )
        return *absorb(message), agg_state

    turnout = Turnout(
        share=counts.sum().astype(jnp.float32) / population,
        steps=(weight @ cohort.steps.astype(weight.dtype)) / jnp.maximum(weight.sum(), 1e-30),
    )
    # Two branches around the aggregator: masking in front of it would copy all deltas each round.
    delta, memory, agg_state = jax.lax.cond(
        finite.all(), combine, lambda d: combine(_zero_unless(finite, d)), local.deltas
    )
    updates, opt_state = algorithm.server_opt.update(
        optax.tree.scale(-1.0, delta), state.opt_state, state.params
    )
    moved = (optax.apply_updates(state.params, updates), memory, agg_state, opt_state)
    stayed = (state.params, state.memory, state.agg_state, state.opt_state)
    params, memory, agg_state, opt_state = optax.tree.where(counts.any(), moved, stayed)
    new = ServerState(
        round=state.round + 1,
        params=params,
        agg_state=agg_state,
        opt_state=opt_state,
        client_state=_write_back(state.client_state, cohort, local.client_state),
        memory=memory,
        past=jax.tree.map(
            lambda old, sent: old.at[(state.round + 1) % old.shape[0]].set(sent),
            state.past,
            server.send(params, memory) if jax.tree.leaves(state.past) else (),
        ),
    )
    return new, _metrics(local.sums, cohort, asked, counts)


def _write_back(all_states: Any, cohort: Cohort, new: Any) -> Any:
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
            round_keys(key, state.round).clients, lr_scale, number=state.round,
            staleness_power=algorithm.staleness_power, for_each=for_each,
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


def _square_norms(tree: Any) -> Float[Array, " K"]:
    """Squared norms of K deltas: not finite where a number is not, or the norm is past 1e19.

    Row-wise dot products run at memory speed, several times that of a reduction over ``isfinite``.
    """
    flat = [leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(tree)]
    norms = [jnp.einsum("ki,ki->k", leaf, leaf).astype(jnp.float32) for leaf in flat]
    return jnp.stack(norms, axis=1).sum(axis=1)


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
