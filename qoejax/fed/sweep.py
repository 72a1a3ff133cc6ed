"""Many runs as one: seeds and rates are one more vmapped axis over whole blocks of rounds. JAX.

Members share the staged rows, the clients and every shape; each has its own key, parameters and
rates. What a member computes is what it would compute alone, up to rounding.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, Key

from qoejax.fed.engine import Engine
from qoejax.fed.state import ServerState
from qoejax.types import Examples, Params, Sums

Rates = Mapping[str, Float[Array, " M"]]


class Sweep(NamedTuple):
    """Jitted functions of M members.

    Attributes:
      init: ``(params) -> state`` before round 0; leaves of both are [M, *].
      block: ``(state, examples, keys [M], rounds) -> (state, metrics [M, rounds])`` in one
        dispatch; ``examples`` are placed by any of the members' engines. Takes over the buffers of
        ``state``.
    """

    init: Callable[[Params], ServerState]
    block: Callable[..., tuple[ServerState, Sums]]


def make_sweep(
    make_engine: Callable[[Mapping[str, Array]], Engine], rates: Rates, at_once: int = 0
) -> Sweep:
    """The members whose rates are ``rates``.

    Args:
      make_engine: The engine of one member, given its rates as traced scalars.
      rates: By name; leaves [M], the same M as that of parameters and keys.
      at_once: Members under one ``vmap``; more of them wait in the same program. 0 is all: what an
        accelerator wants, and a small net; on CPU a net whose activations fill the cache wants 1.
    """

    @jax.jit
    def init(rates: Rates, params: Params) -> ServerState:
        return jax.vmap(lambda own, params: make_engine(own).init(params))(rates, params)

    @functools.partial(jax.jit, donate_argnums=1, static_argnums=4)
    def block(
        rates: Rates, state: ServerState, examples: Examples, keys: Key[Array, " M"], rounds: int
    ) -> tuple[ServerState, Sums]:
        def one(own: Mapping[str, Array], state: ServerState, key: Key[Array, ""]) -> Any:
            return make_engine(own).block(state, examples, key, rounds)

        if at_once == 0:
            return jax.vmap(one)(rates, state, keys)
        # A batch of one would turn loops of a client's own length into masked ones.
        size = None if at_once == 1 else at_once
        return jax.lax.map(lambda own: one(*own), (rates, state, keys), batch_size=size)

    return Sweep(functools.partial(init, rates), functools.partial(block, rates))
