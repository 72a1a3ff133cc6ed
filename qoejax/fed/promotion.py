"""optax under strict dtype promotion. JAX.

optax mixes integer step counters with Python floats, which strict promotion refuses, harmless as
it is. Strictness is worth keeping for everything else, so only optax' own code is exempt.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax
import optax

P = ParamSpec("P")
R = TypeVar("R")


def lenient(fn: Callable[P, R]) -> Callable[P, R]:
    """``fn`` under JAX's standard promotion rules, whatever is set outside."""

    @functools.wraps(fn)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.numpy_dtype_promotion("standard"):
            return fn(*args, **kwargs)

    return wrapped


def lenient_optimizer(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """``optimizer`` under JAX's standard promotion rules."""
    return optax.GradientTransformation(lenient(optimizer.init), lenient(optimizer.update))
