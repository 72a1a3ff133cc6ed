"""Differential privacy on the device: who is drawn, what is clipped, what noise is added. JAX.

Two mechanisms, whose price ``fed.accounting`` knows:

    example   DP-SGD inside each client's steps (Abadi et al. 2016): a row is hidden from everybody
              else, the server included
    user      DP-FedAvg at the server (McMahan et al. 2018): a client with all its rows is hidden
              from those who see the models, not from the server; with correlated noise it is
              DP-FTRL (Choquette-Choo et al. 2023)

Noise comes from JAX's generator and the run's key: the guarantee is that of the mechanism, and of a
run only for those who do not know its seed.
"""

from typing import Any

import jax
import jax.numpy as jnp
import jax_privacy
import optax
from jax_privacy.matrix_factorization import streaming_matrix, toeplitz
from jaxtyping import Array, Float, Key

from qoejax.data.cohort import places, poisson
from qoejax.fed.aggregate.base import Aggregator, Linear, linear
from qoejax.fed.client import rows_of
from qoejax.fed.promotion import lenient
from qoejax.fed.protocol import Gradient, LossFn
from qoejax.types import Cohort, Examples, Params, Sums


def _normal(key: Key[Array, ""], like: Any, scale: float | Float[Array, ""]) -> Any:
    noise = optax.tree.random_like(key, like, sampler=jax.random.normal)
    return jax.tree.map(lambda n: jnp.asarray(scale, n.dtype) * n, noise)


def example_level(
    loss_fn: LossFn, *, batch_size: int, clip: float, noise: float, microbatch: int = 0
) -> Gradient:
    """The gradient of DP-SGD: clipped row by row, summed over a Poisson draw, with noise.

    Each row is drawn with chance ``min(1, batch_size / count)``. The sum of the rows' gradients,
    each at most ``clip`` long, gets Gaussian noise of ``noise * clip`` and is divided by the
    expected number of rows. One step is ``accounting.event(noise, rate)`` to the client's rows.

    Args:
      loss_fn: Of one row: what it says of others is not hidden.
      batch_size: Expected rows of a step.
      clip: Largest Euclidean norm of one row's gradient.
      noise: Standard deviation over ``clip``.
      microbatch: Rows whose gradients are alive at once; 0 is all of a batch.

    Raises:
      ValueError: a bound or noise that is not above 0.
    """
    _check(clip, noise)
    size = places(batch_size, max(microbatch, 1))
    gradient = lenient(
        jax_privacy.clipped_grad(
            loss_fn, has_aux=True, l2_clip_norm=clip, batch_argnums=1, prng_argnum=2,
            microbatch_size=microbatch or None,
        )
    )  # fmt: skip

    def one_step(
        params: Params, examples: Examples, client: Cohort, keys: tuple[Array, Array], step: Array
    ) -> tuple[Params, Sums]:
        draw_key, loss_key = (jax.random.fold_in(key, step) for key in keys)
        loss_key, noise_key = jax.random.split(loss_key)
        count = client.count.astype(jnp.float32)
        expected = jnp.minimum(count, batch_size)
        index, valid = poisson(draw_key, client.count, expected / jnp.maximum(count, 1), size)
        batch = rows_of(examples, client, index, valid)
        total, aux = gradient(params, batch, loss_key, is_padding_example=~valid)
        noisy = jax.tree.map(jnp.add, total, _normal(noise_key, total, noise * clip))
        like = jax.eval_shape(loss_fn, params, jax.tree.map(lambda a: a[:1], batch), loss_key)[1]
        sums = jax.tree.map(
            lambda s, each: jnp.tensordot(valid.astype(s.dtype), each, 1).reshape(s.shape),
            like, aux.aux,
        )  # fmt: skip
        return optax.tree.scale(1 / jnp.maximum(expected, 1), noisy), sums

    return Gradient(one_step)


def user_level(
    *,
    clip: float,
    noise: float,
    clients: float,
    matrix: streaming_matrix.StreamingMatrix | None = None,
) -> Aggregator:
    """The mean of DP-FedAvg: each delta clipped, all weights equal, Gaussian noise on the sum.

    The sum is divided by the expected number of clients, not by that of those who came, and
    noise is added even when nobody came. Whatever a client sends, its part of the sum is at most
    ``clip`` long.

    Args:
      clip: Largest Euclidean norm of one client's delta.
      noise: Standard deviation over ``clip``.
      clients: Expected clients of a round.
      matrix: Correlates the noise of successive rounds (``noising``); independent by default.

    Raises:
      ValueError: a bound or noise that is not above 0.
    """
    _check(clip, noise)
    matrix = streaming_matrix.identity() if matrix is None else matrix

    def share(weight: Float[Array, " K"]) -> Float[Array, " K"]:
        return (weight > 0).astype(jnp.float32) / clients

    def finish(total: Params, state: Any, key: Array) -> tuple[Params, Any]:
        fresh = _normal(key, total, noise * clip / clients)
        correlated, state = lenient(matrix.multiply_next)(fresh, state)
        return jax.tree.map(jnp.add, total, correlated), state

    return linear(Linear(share, clip, finish), 0, lenient(matrix.init_multiply))


def square_root(bands: int) -> Float[Array, " b"]:
    """Coefficients of the banded square root of the prefix sums (Kalinin & Lampert 2024).

    The strategy matrix C is lower-triangular Toeplitz with these; noise is C^-1 times fresh noise.
    """
    return lenient(toeplitz.optimal_max_error_strategy_coefs)(bands)


def noising(coefficients: Float[Array, " b"]) -> streaming_matrix.StreamingMatrix:
    """C^-1, for ``user_level``."""
    return lenient(toeplitz.inverse_as_streaming_matrix)(coefficients)


def _check(clip: float, noise: float) -> None:
    if not clip > 0:
        raise ValueError(f"clip is {clip}: noise hides nothing without a bound, expected above 0")
    if not noise > 0:
        raise ValueError(f"noise is {noise}: expected above 0")
