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

from qoejax.fed.aggregate import Aggregator, squared_norms
from qoejax.fed.client import ClientUpdate
from qoejax.types import Cohort, Examples, Params, Sums

ForEach = Callable[[Callable[[Any, Any], Any], Any, Any], Any]
"""``for_each(fn, shared, items)``: ``fn(shared, item)`` of every item, results stacked [K, ...]."""


class ServerState(NamedTuple):
    """All that a run carries from round to round.

    ``client_state`` leaves are [P, *]: one entry for every client of the population.
    """

    round: Int[Array, ""]
    params: Params
    agg_state: Any
    opt_state: Any
    client_state: Any


class Local(NamedTuple):
    """What the K clients of a cohort, or of a slice of it, computed; all leaves are [K, *].

    ``deltas`` are what clients send: the deltas themselves, or their ``ClientUpdate.message``. A
    client whose delta or state is not finite has a delta with NaN in it, which the server refuses,
    and the state it came with.
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

    ``schedule(round)`` multiplies the clients' learning rate; ``decode(message, params) -> delta``
    reads what clients send, where that is not a delta.
    """

    client: ClientUpdate
    aggregator: Aggregator
    server_opt: optax.GradientTransformation
    schedule: Callable[[Any], Any]
    decode: Callable[[Any, Params], Params] | None = None


def round_keys(key: Key[Array, ""], number: Int[Array, ""]) -> RoundKeys:
    """The keys of round ``number``."""
    return RoundKeys(*jax.random.split(jax.random.fold_in(key, number), 3))


def init_state(algorithm: Algorithm, params: Params, population: int) -> ServerState:
    """State before round 0 of ``population`` clients; shares no buffer with ``params``."""
    params = jax.tree.map(lambda p: jnp.array(p, copy=True), params)
    one = algorithm.client.init(params)
    return ServerState(
        round=jnp.zeros((), jnp.int32),
        params=params,
        agg_state=algorithm.aggregator.init(params),
        opt_state=algorithm.server_opt.init(params),
        client_state=jax.tree.map(
            lambda s: jnp.repeat(jnp.asarray(s)[None], population, axis=0), one
        ),
    )


def in_turn(fn: Callable[[Any, Any], Any], shared: Any, items: Any) -> Any:
    """One client after the other: each pays for its own steps, memory is that of one client."""
    return jax.lax.map(lambda item: fn(shared, item), items)


def local_updates(
    client_update: ClientUpdate,
    params: Params,
    client_state: Any,
    examples: Examples,
    cohort: Cohort,
    key: Key[Array, ""],
    lr_scale: Float[Array, ""],
    *,
    for_each: ForEach = in_turn,
) -> Local:
    """First half: what every client of ``cohort`` makes of ``params``.

    Args:
      client_update: The clients' algorithm.
      params: The global parameters.
      client_state: Leaves [P, *], of the whole population.
      examples: The staged rows of all clients.
      cohort: K clients; those of weight 0 take no step.
      key: ``RoundKeys.clients`` of the round.
      lr_scale: Multiplies the clients' learning rate.
      for_each: How the client axis is run; never changes the result beyond rounding.
    """

    def one(shared: Any, item: tuple[Cohort, Any]) -> Local:
        params, examples, key, lr_scale = shared
        client, before = item
        steps = jnp.where(client.weight > 0, client.steps, 0)
        delta, after, sums = client_update.update(
            params, before, examples, client._replace(steps=steps),
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
    return for_each(one, (params, examples, key, lr_scale), (cohort, slots))


def server_step(
    aggregator: Aggregator,
    server_opt: optax.GradientTransformation,
    state: ServerState,
    cohort: Cohort,
    local: Local,
    arrived: Bool[Array, " K"],
    key: Key[Array, ""],
) -> tuple[ServerState, Sums]:
    """Second half: the next state, and the round's metrics.

    A client counts when it has weight and its delta arrived and is finite (with a norm below
    1e19). A delta is a negative gradient, so any optax optimizer fits. Without any client that
    counts, the parameters and the states of aggregator and optimizer stay as they are.

    Args:
      aggregator: Makes one delta of many.
      server_opt: Applies it.
      state: Before the round.
      cohort: Who was asked.
      local: What they computed, in the cohort's order.
      arrived: False for clients whose delta was lost or refused on its way; their own state moves
        on nevertheless, since a client does not know.
      key: ``RoundKeys.server`` of the round.

    Returns:
      The state after the round, and metrics: the sums of the clients that counted, their number
      ``clients``, and ``refused``, the number of those that arrived but were not finite.
    """
    weight = jnp.where(arrived, cohort.weight, 0.0)
    asked = weight > 0
    finite = jnp.isfinite(squared_norms(local.deltas))
    counts = asked & jnp.isfinite(weight) & finite
    weight = jnp.where(counts, weight, 0.0)

    def combine(deltas: Params) -> tuple[Params, Any]:
        return aggregator.update(deltas, state.agg_state, weight=weight, key=key)

    # Two branches around the aggregator: masking in front of it would copy all deltas each round.
    delta, agg_state = jax.lax.cond(
        finite.all(), combine, lambda d: combine(_zero_unless(finite, d)), local.deltas
    )
    updates, opt_state = server_opt.update(
        optax.tree.scale(-1.0, delta), state.opt_state, state.params
    )
    moved = (optax.apply_updates(state.params, updates), agg_state, opt_state)
    stayed = (state.params, state.agg_state, state.opt_state)
    params, agg_state, opt_state = optax.tree.where(counts.sum() >= aggregator.least, moved, stayed)

    population = max([leaf.shape[0] for leaf in jax.tree.leaves(state.client_state)], default=0)
    target = jnp.where((cohort.weight > 0) & (cohort.client_id >= 0), cohort.client_id, population)
    client_state = jax.tree.map(
        lambda all_, new: all_.at[target].set(new, mode="drop"),
        state.client_state,
        local.client_state,
    )
    new = ServerState(state.round + 1, params, agg_state, opt_state, client_state)
    return new, _metrics(local.sums, asked, counts)


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
        return local_updates(
            algorithm.client, state.params, state.client_state, examples, cohort,
            round_keys(key, state.round).clients, lr_scale, for_each=for_each,
        )  # fmt: skip

    def server_fn(
        state: ServerState,
        cohort: Cohort,
        local: Local,
        arrived: Bool[Array, " K"],
        key: Key[Array, ""],
    ) -> tuple[ServerState, Sums]:
        if algorithm.decode is not None:
            decode = jax.vmap(algorithm.decode, in_axes=(0, None))
            local = local._replace(deltas=decode(local.deltas, state.params))
        return server_step(
            algorithm.aggregator, algorithm.server_opt, state, cohort, local, arrived,
            round_keys(key, state.round).server,
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


def _metrics(sums: Sums, asked: Bool[Array, " K"], counts: Bool[Array, " K"]) -> Sums:
    own = {
        "clients": counts.sum().astype(jnp.float32),
        "refused": (asked & ~counts).sum().astype(jnp.float32),
    }
    if clash := sorted(own.keys() & sums.keys()):
        raise ValueError(f"metric {clash[0]!r} of the loss has the name of one of the round's own")
    total = jax.tree.map(
        lambda s: jnp.tensordot(counts.astype(s.dtype), s, 1), _zero_unless(counts, sums)
    )
    return {**total, **own}
