"""Attention over few tokens, with its gradient, beside jax.nn.dot_product_attention. JSON lines.

    python -m experiments.bench.attention
    python -m experiments.bench.attention --tokens=3,7,11,12 --width=128

Microseconds of a call and its gradient on one core, the fastest of some turns: ``ours`` is
``qoejax.nets.encoder.attend``, which adds a place where one is lacking to a multiple of four.
"""

import functools
from typing import Any

from absl import flags

from experiments import cli
from experiments.bench import common

_TOKENS = flags.DEFINE_list("tokens", [str(n) for n in range(2, 13)], "N, by commas.")
_BATCH = flags.DEFINE_integer("batch", 32, "Records.", lower_bound=1)
_WIDTH = flags.DEFINE_integer("width", 64, "Of a token, all heads.", lower_bound=1)
_HEADS = flags.DEFINE_integer("heads", 4, "Of attention.", lower_bound=1)
_CALLS = flags.DEFINE_integer("calls", 500, "In a turn, one after another.", lower_bound=1)
_TURNS = flags.DEFINE_integer("turns", 15, "Of each.", lower_bound=1)


def main() -> dict[str, Any]:
    """Prints one line for each number of tokens."""
    import jax
    import jax.numpy as jnp

    from qoejax.nets.encoder import attend
    from qoejax.run.studies.latency import on_one_core

    on_one_core()
    contenders = {
        "ours": functools.partial(attend, causal=False),
        "jax": jax.nn.dot_product_attention,
    }
    ratios = {}
    for tokens in map(int, _TOKENS.value):
        shape = (3, _BATCH.value, tokens, _HEADS.value, _WIDTH.value // _HEADS.value)
        x = jax.random.normal(jax.random.key(0), shape)

        def run(f: Any, x: Any) -> Any:
            slope = jax.grad(lambda x: jnp.sin(f(*x)).sum())
            return jax.lax.fori_loop(0, _CALLS.value, lambda _, x: x - 1e-6 * slope(x), x)

        compiled = {k: jax.jit(functools.partial(run, f)) for k, f in contenders.items()}
        calls = {k: lambda c=c, x=x: jax.block_until_ready(c(x)) for k, c in compiled.items()}
        seconds = common.turns(calls, _TURNS.value)
        us = {k: min(v) / _CALLS.value * 1e6 for k, v in seconds.items()}
        ratios[tokens] = us["jax"] / us["ours"]
        common.emit({"bench": "attention", "tokens": tokens, "us": us, "ratio": ratios[tokens]})
    return {"bench": "attention", "ratios": ratios}


if __name__ == "__main__":
    cli.run(main)
