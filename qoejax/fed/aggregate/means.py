"""Means: a single Byzantine client moves them anywhere. JAX."""

import jax.numpy as jnp

from qoejax.fed.aggregate.base import Aggregator, Linear, linear, proportional


def weighted_mean() -> Aggregator:
    """Mean with the cohort's weights, by default the clients' numbers of rows (FedAvg)."""
    return linear(Linear(proportional))


def mean() -> Aggregator:
    """Mean in which every client with any weight counts the same."""
    return linear(Linear(lambda weight: proportional((weight > 0).astype(jnp.float32))))
