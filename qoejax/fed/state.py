"""What a round carries, and what it is made of. JAX."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, Key

from qoejax.fed.aggregate import Aggregator
from qoejax.fed.attacks import Adversary
from qoejax.fed.protocol import ClientUpdate
from qoejax.types import Params, Sums

MAX_NORM = 1e4
"""Euclidean norm above which a delta is taken for broken or wild."""

Weigh = Callable[[Params, Callable[[Any], Params], Any, Any], Any]
"""``weigh(params, delta_of, deltas, weight) -> weight [K]``: new weights of the clients.

``delta_of(message)`` is the step of the parameters that one client's message alone would be.
"""


class ServerState(NamedTuple):
    """All that a run carries from round to round.

    ``client_state`` leaves are [P, *]: one entry for every client of the population. ``memory`` is
    what the algorithm's server keeps, ``attack_state`` what an adversary does. ``past`` leaves are
    [H, *]: what was sent in the last H rounds, round r at r mod H, if clients may start from an
    older model; else ().
    """

    round: Int[Array, ""]
    params: Params
    agg_state: Any
    opt_state: Any
    client_state: Any
    memory: Any = ()
    attack_state: Any = ()
    past: Any = ()


class Local(NamedTuple):
    """What the K clients of a cohort, or of a slice of it, computed; all leaves are [K, *].

    ``deltas`` are the algorithm's messages as they travel (``protocol.layout``), for most
    algorithms of the shape of the parameters. A client whose delta or state is not finite has a
    delta with NaN in it, which the server refuses, and the state it came with.
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

    ``schedule(round)`` multiplies the clients' learning rate. A message of a norm above
    ``max_norm`` is refused. An ``adversary`` corrupts what arrives. ``weigh``, if given, judges
    the clients that count by what they sent. A message of staleness t is scaled by (1 + t) to the
    power of minus ``staleness_power`` (FedBuff: 0.5). ``population`` is P, by default the number of
    clients' states, where there are any.
    """

    client: ClientUpdate
    aggregator: Aggregator
    server_opt: optax.GradientTransformation
    schedule: Callable[[Any], Any]
    max_norm: float = MAX_NORM
    adversary: Adversary | None = None
    weigh: Weigh | None = None
    staleness_power: float = 0.5
    population: int | None = None


def round_keys(key: Key[Array, ""], number: Int[Array, ""]) -> RoundKeys:
    """The keys of round ``number``."""
    return RoundKeys(*jax.random.split(jax.random.fold_in(key, number), 3))


def init_state(
    algorithm: Algorithm, params: Params, population: int, history: int = 0
) -> ServerState:
    """State before round 0 of ``population`` clients; shares no buffer with ``params``.

    ``history`` is H, the number of rounds whose models are kept for clients that start late.
    """
    params = _copy(params)
    server = algorithm.client.server
    layout = server.message(params)
    memory, adversary = server.init(params), algorithm.adversary
    return ServerState(
        round=jnp.zeros((), jnp.int32),
        params=params,
        agg_state=algorithm.aggregator.init(layout),
        opt_state=algorithm.server_opt.init(params),
        client_state=_repeat(algorithm.client.init(params), population),
        memory=memory,
        attack_state=() if adversary is None else _copy(adversary.attack.init(layout)),
        past=_repeat(server.send(params, memory), history) if history else (),
    )


def _copy(tree: Any) -> Any:
    # A weakly typed leaf, such as jnp.array(0.5), would compile again when it comes back strong.
    return jax.tree.map(lambda p: jnp.array(p, jnp.result_type(p), copy=True), tree)


def _repeat(tree: Any, times: int) -> Any:
    return jax.tree.map(lambda s: jnp.repeat(jnp.asarray(s)[None], times, axis=0), tree)
