"""Means: a single Byzantine client moves them anywhere. JAX."""

import jax.numpy as jnp

from qoejax.fed.aggregate.base import Aggregator, average, combine, stateless


def weighted_mean() -> Aggregator:
    """Mean with the cohort's weights, by default the clients' numbers of rows (FedAvg)."""
    return stateless(lambda deltas, weight, key: combine(deltas, weight))


def mean() -> Aggregator:
    """Mean in which every client with any weight counts the same."""
    return stateless(lambda deltas, weight, key: average(deltas, jnp.greater(weight, 0)))
