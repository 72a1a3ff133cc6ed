"""DrJAX: ``broadcast``, ``map_fn`` and ``reduce_mean`` over clients, with the layers of flax."""

import itertools

import drjax
import jax
import numpy as np

from experiments.bench.contenders.nets import make_local, rows_of, to_flax, to_ours, tree
from experiments.bench.workload import Contender, Workload
from qoejax import trees


def prepare(workload: Workload) -> Contender:
    """One compiled program a round, on the default device."""
    local = make_local(workload)
    rows, key, numbers = rows_of(workload), jax.random.key(1), itertools.count()

    @jax.jit
    @drjax.program(placements={"clients": workload.cohort})
    def compiled(params, rows, index, key):
        keys = jax.random.split(key, workload.cohort)
        sent = drjax.broadcast(params)
        new = drjax.map_fn(lambda p, i, k: local(p, rows, i, k), (sent, index, keys))
        return drjax.reduce_mean(new)

    params = to_flax(tree(workload.params), workload)

    def one_round() -> None:
        nonlocal params
        number = next(numbers)
        index = jax.numpy.asarray(workload.draw(number))
        params = compiled(params, rows, index, jax.random.fold_in(key, number))
        jax.block_until_ready(params)

    return Contender(
        one_round, lambda: {n: np.asarray(a) for n, a in trees.named_leaves(to_ours(params))}
    )
