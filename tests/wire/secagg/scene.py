"""A server, members and plans, small and quick."""

import functools

import numpy as np

from qoejax.wire import keys
from qoejax.wire.secagg import local, plan

RUN = b"run-0123456789ab"
LENGTH = 23


@functools.cache
def server():
    return keys.generate("openssl")


@functools.cache
def identities(count):
    return tuple(keys.generate("openssl") for _ in range(count))


def members(count):
    return {one.id: one for one in identities(40)[:count]}


def make_plan(degree, threshold, number=0, first=None, **changes):
    facts = plan.Plan(
        announce=bytes([number % 256]) * 32,
        run=RUN,
        round=number,
        first=number if first is None else first,
        server=server().id,
        suite=1,
        base_model=bytes(32),
        tree_spec=bytes(32),
        degree=degree,
        threshold=threshold,
        least=max(2, threshold),
        length=LENGTH,
    )
    return facts._replace(**changes)


def inputs(group, length=LENGTH, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.integers(0, 2**32, length, np.uint32) for name in group}


def plain(vectors, names):
    """The ring sum in the clear, by Python's integers."""
    return np.array(
        [sum(int(vectors[n][i]) for n in names) % 2**32 for i in range(LENGTH)], np.uint32
    )


def run(facts, count, **options):
    group = members(count)
    vectors = inputs(group, facts.length)
    return vectors, local.run(server(), facts, group, vectors, **options)
