"""All clients at once under ``vmap``, with the layers of flax."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.contenders.nets import make_local, rows_of, to_flax, to_ours, tree
from experiments.bench.workload import Contender, Workload
from qoejax import trees


def prepare(workload: Workload) -> Contender:
    """One compiled function a round, on the default device."""
    every = jax.vmap(make_local(workload), in_axes=(None, None, 0, 0))
    rows, key, numbers = rows_of(workload), jax.random.key(1), itertools.count()

    @jax.jit
    def compiled(params, rows, index, key):
        new = every(params, rows, index, jax.random.split(key, workload.cohort))
        share = jnp.full(workload.cohort, 1 / workload.cohort)
        return jax.tree.map(lambda leaf: jnp.tensordot(share, leaf, 1), new)

    params = to_flax(tree(workload.params), workload)

    def one_round() -> None:
        nonlocal params
        number = next(numbers)
        params = compiled(params, rows, workload.draw(number), jax.random.fold_in(key, number))
        jax.block_until_ready(params)

    return Contender(
        one_round, lambda: {n: np.asarray(a) for n, a in trees.named_leaves(to_ours(params))}
    )
