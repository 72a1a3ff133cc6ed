"""Shared by the tests of nets."""

import functools

import jax

# Most of these tests' time is compilation, and nothing here needs it to be thorough.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def started(module, *args, **kwargs):
    """The module's parameters, and its compiled apply."""
    init = jit(functools.partial(module.init, **kwargs))
    return init(jax.random.key(0), *args), jit(functools.partial(module.apply, **kwargs))
