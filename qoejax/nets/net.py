"""What a net is: two pure functions. JAX."""

import functools
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from qoejax.types import Params

Outputs = dict[str, Array]
"""``{"logits": f32[B,C], "mos": f32[B,Q,M]}``: class logits, and logits of M ordinal MOS bins."""


UNOPTIMISED = {"xla_backend_optimization_level": 0}


class Apply(Protocol):
    """``apply(params, x, *, key=None)``: without a key deterministic, with one dropout is on."""

    def __call__(
        self, params: Params, x: Float[Array, "B T F"], *, key: Array | None = None
    ) -> Outputs:
        """Outputs of B examples, each of which depends on its own rows only."""
        ...


class Net(NamedTuple):
    """``init(key, x) -> params`` and ``apply(params, x, *, key=None) -> Outputs``, both pure.

    ``init`` reads the shape of ``x`` only, never its values: T and F are fixed from then on, B is
    not. Nothing is shared between the examples of a batch (no batch statistics), so padding
    examples are harmless and clients' parameters can be averaged.
    """

    init: Callable[[Array, Float[Array, "B T F"]], Params]
    apply: Apply


def choose(argument: str, name: str, options: Collection[str]) -> None:
    """Raises a ValueError that names the argument unless ``name`` is among the options."""
    if name not in options:
        raise ValueError(f"{argument} {name!r}: expected one of {', '.join(sorted(options))}")


def check_rate(argument: str, value: float) -> None:
    """Raises a ValueError that names the argument unless 0 <= value <= 0.99."""
    if not 0 <= value <= 0.99:
        raise ValueError(f"{argument}: expected a rate from 0 to 0.99, got {value}")


def from_module(module: nn.Module) -> Net:
    """Wraps a linen module whose ``__call__(x, train)`` returns ``{"logits", "mos"}``.

    Args:
        module: Has parameters only (no mutable collections) and draws its randomness, if any,
            from the stream ``"dropout"``.

    Returns:
        The net. Its outputs are float32 whatever the module computes in.
    """

    def drawn(key: Array, shape: tuple[int, ...]) -> Params:
        return module.init({"params": key}, jnp.zeros(shape, jnp.float32), train=False)["params"]

    @functools.cache
    def fresh() -> Callable[[Array, tuple[int, ...]], Params]:
        # Compiled as one: op by op, a first init spends seconds compiling each of them. It runs
        # once, so it is not worth the time that optimising takes on CPU, twice that of the rest.
        options = UNOPTIMISED if jax.default_backend() == "cpu" else None
        return jax.jit(drawn, static_argnums=1, compiler_options=options)

    def init(key: Array, x: Float[Array, "B T F"]) -> Params:
        inside = isinstance(key, jax.core.Tracer)  # of a program, which has options of its own
        return (drawn if inside else fresh())(key, (1, *x.shape[1:]))

    def apply(params: Params, x: Float[Array, "B T F"], *, key: Array | None = None) -> Outputs:
        rngs = {} if key is None else {"dropout": key}
        out: Any = module.apply({"params": params}, x, train=key is not None, rngs=rngs)
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), out)

    return Net(init, apply)
