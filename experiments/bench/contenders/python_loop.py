"""A Python loop over clients, each compiled: its whole round, or one of its steps."""

import itertools

import jax
import numpy as np

from experiments.bench.contenders import nets
from experiments.bench.workload import Contender, Workload
from qoejax import trees


def prepare(workload: Workload, *, whole: bool) -> Contender:
    """``whole``: a dispatch is a client's round; otherwise it is a step."""
    rows, key, numbers = nets.rows_of(workload), jax.random.key(1), itertools.count()
    local, step = jax.jit(nets.make_local(workload)), jax.jit(nets.make_step(workload))

    @jax.jit
    def add(total, new):
        return jax.tree.map(lambda t, n: t + n / workload.cohort, total, new)

    def client(params, index, key):
        if whole:
            return local(params, rows, index, key)
        for batch, k in zip(index, jax.random.split(key, len(index)), strict=True):
            params = step(params, rows, batch, k)
        return params

    params = nets.to_flax(nets.tree(workload.params), workload)

    def one_round() -> None:
        nonlocal params
        number = next(numbers)
        index = workload.draw(number)
        keys = jax.random.split(jax.random.fold_in(key, number), workload.cohort)
        total = jax.tree.map(jax.numpy.zeros_like, params)
        for own, k in zip(index, keys, strict=True):
            total = add(total, client(params, own, k))
        params = jax.block_until_ready(total)

    return Contender(
        one_round, lambda: {n: np.asarray(a) for n, a in trees.named_leaves(nets.to_ours(params))}
    )
