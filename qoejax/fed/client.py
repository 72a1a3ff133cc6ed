"""What a client does between two rounds: a few optimizer steps from the global parameters. JAX.

Rows never move: a client is a range of the staged ``Examples`` and draws each batch by index
inside its compiled loop. The number of steps is traced, so that one executable serves clients of
every size: in turn, each pays for its own steps only, and under ``vmap`` those that are done wait.

Randomness depends on identity and time only: the key that ``update`` receives belongs to one
client in one round, and each step folds its own number into it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from qoejax.data.cohort import batch_index
from qoejax.fed.promotion import lenient, lenient_optimizer
from qoejax.fed.protocol import ClientUpdate, Gradient, LossFn, Rate
from qoejax.types import Cohort, Examples, Params, Sums


class LocalState(NamedTuple):
    """What a client of ``local_only`` keeps."""

    params: Params
    opt_state: Any


# Optimizers, all at learning rate 1: the client's own rate multiplies their updates.


def _chain(
    optimizer: optax.GradientTransformation, clip: float, weight_decay: float = 0.0
) -> optax.GradientTransformation:
    if clip < 0 or weight_decay < 0:
        raise ValueError(f"expected clip >= 0 and weight_decay >= 0, got {clip}, {weight_decay}")
    parts = [optax.clip_by_global_norm(clip)] if clip else []
    parts += [optax.add_decayed_weights(weight_decay)] if weight_decay else []
    return optax.chain(*parts, optimizer)


def _as_vector(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same on all parameters as one vector: a third less to compile, and as fast."""
    return lenient_optimizer(optax.flatten(optimizer))


def sgd(clip: float = 0.0, weight_decay: float = 0.0) -> optax.GradientTransformation:
    """Gradient descent.

    Args:
      clip: Largest global norm of a step's gradient; 0 is off.
      weight_decay: Adds this multiple of the parameters to the clipped gradient.
    """
    return lenient_optimizer(_chain(optax.sgd(1.0), clip, weight_decay))


def momentum(
    clip: float = 0.0, weight_decay: float = 0.0, decay: float = 0.9, nesterov: bool = False
) -> optax.GradientTransformation:
    """Heavy-ball momentum; ``clip`` and ``weight_decay`` as for ``sgd``."""
    return _as_vector(_chain(optax.sgd(1.0, momentum=decay, nesterov=nesterov), clip, weight_decay))


def adam(
    clip: float = 0.0,
    weight_decay: float = 0.0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2015); ``weight_decay`` enters the gradient, as an L2 penalty would."""
    return _as_vector(_chain(optax.adam(1.0, b1=b1, b2=b2, eps=eps), clip, weight_decay))


def adamw(
    clip: float = 0.0,
    weight_decay: float = 0.01,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), scaled by the learning rate."""
    if weight_decay < 0:
        raise ValueError(f"expected weight_decay >= 0, got {weight_decay}")
    optimizer = optax.adamw(1.0, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay)
    return _as_vector(_chain(optimizer, clip))


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": sgd,
    "momentum": momentum,
    "adam": adam,
    "adamw": adamw,
}


# Learning-rate multipliers as functions of the round.


def constant(rounds: int) -> optax.Schedule:
    """Always 1."""
    del rounds
    return lenient(optax.schedules.constant_schedule(1.0))


def cosine(rounds: int, floor: float = 0.0) -> optax.Schedule:
    """Half a cosine from 1 in round 0 to ``floor`` in round ``rounds`` and after."""
    return lenient(optax.schedules.cosine_decay_schedule(1.0, rounds, alpha=floor))


def warmup_cosine(rounds: int, warmup: int | None = None, floor: float = 0.0) -> optax.Schedule:
    """A straight line up to 1 during ``warmup`` rounds (default a tenth), then ``cosine``.

    Round 0 has the multiplier ``1 / (warmup + 1)``, since a round at rate 0 would be wasted.
    """
    warmup = min(max(1, rounds // 10), rounds - 1) if warmup is None else warmup
    if not 0 <= warmup < rounds:
        raise ValueError(f"expected 0 <= warmup < rounds, got warmup {warmup}, rounds {rounds}")
    return lenient(
        optax.schedules.warmup_cosine_decay_schedule(
            1 / (warmup + 1), 1.0, warmup, rounds, end_value=floor
        )
    )


SCHEDULES: dict[str, Callable[..., optax.Schedule]] = {
    "constant": constant,
    "cosine": cosine,
    "warmup_cosine": warmup_cosine,
}


# Client algorithms.


def draw(
    examples: Examples,
    client: Cohort,
    key: Key[Array, ""],
    step: Int[Array, ""],
    batch_size: int,
) -> Examples:
    """A client's batch number ``step``; places that hold no row have weight 0."""
    return rows_of(examples, client, *batch_index(key, client.count, step, batch_size))


def rows_of(
    examples: Examples, client: Cohort, index: Int[Array, " B"], valid: Bool[Array, " B"]
) -> Examples:
    """A client's rows by number; those that are not valid have weight 0."""
    rows = client.offset + index
    batch = jax.tree.map(lambda leaf: leaf.at[rows].get(mode="clip"), examples)
    return batch._replace(weight=jnp.where(valid, batch.weight, 0.0))


def gradient_of(loss: LossFn | Gradient, batch_size: int) -> Gradient:
    """The plain gradient of a loss over ``draw``; a ``Gradient`` is returned as it is."""
    if isinstance(loss, Gradient):
        return loss
    gradient = jax.grad(loss, has_aux=True)

    def fn(params, examples, client, keys, step):
        batch = draw(examples, client, keys[0], step, batch_size)
        return gradient(params, batch, jax.random.fold_in(keys[1], step))

    return Gradient(fn)


def descend(
    loss_fn: LossFn | Gradient,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    params: Params,
    opt_state: Any,
    examples: Examples,
    client: Cohort,
    key: Array,
    rate: Float[Array, ""],
    penalty: Callable[[Params], Params] | None = None,
) -> tuple[Params, Any, Sums]:
    """``client.steps`` optimizer steps; ``penalty(params)`` is added to every gradient."""
    keys = jax.random.split(key)
    return descend_between(
        loss_fn, optimizer, batch_size, params, opt_state, examples, client,
        (keys[0], keys[1]), rate, (jnp.int32(0), client.steps), penalty,
    )  # fmt: skip


def descend_between(
    loss_fn: LossFn | Gradient,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    params: Params,
    opt_state: Any,
    examples: Examples,
    client: Cohort,
    keys: tuple[Array, Array],
    rate: Float[Array, ""],
    between: tuple[Array, Array],
    penalty: Callable[[Params], Params] | None = None,
) -> tuple[Params, Any, Sums]:
    """As ``descend``, the steps of a half-open range; keys are of the batches and of the loss."""
    gradient = gradient_of(loss_fn, batch_size)

    def step_sums(params: Params, step: Array) -> tuple[Params, Sums]:
        return gradient.fn(params, examples, client, keys, step)

    def body(step: Array, carry: tuple[Params, Any, Sums]) -> tuple[Params, Any, Sums]:
        params, opt_state, sums = carry
        grads, more = step_sums(params, step)
        if penalty is not None:
            grads = jax.tree.map(jnp.add, grads, penalty(params))
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = jax.tree.map(lambda p, u: p + rate * u, params, updates)
        return params, opt_state, jax.tree.map(jnp.add, sums, more)

    shapes = jax.eval_shape(step_sums, params, jnp.int32(0))[1]
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    first, last = (jnp.where(client.count > 0, step, 0) for step in between)
    return jax.lax.fori_loop(first, last, body, (params, opt_state, zeros))


def known(rate: Rate) -> bool:
    """Whether a rate has a value yet; traced ones are for their caller to check."""
    return not isinstance(rate, jax.core.Tracer)


def check_rates(lr: Rate, batch_size: int) -> None:
    """Raises a ValueError for a negative rate or an empty batch."""
    if (known(lr) and lr < 0) or batch_size < 1:
        raise ValueError(f"expected lr >= 0 and batch_size >= 1, got {lr} and {batch_size}")


def fedavg(
    loss_fn: LossFn | Gradient,
    optimizer: optax.GradientTransformation,
    *,
    lr: Rate,
    batch_size: int,
) -> ClientUpdate:
    """Local optimization that starts afresh every round (McMahan et al. 2017)."""
    check_rates(lr, batch_size)

    def update(params, client_state, examples, client, key, lr_scale):
        new, _, sums = descend(
            loss_fn, optimizer, batch_size, params, optimizer.init(params),
            examples, client, key, lr * lr_scale,
        )  # fmt: skip
        return jax.tree.map(jnp.subtract, new, params), client_state, sums

    return ClientUpdate(lambda params: (), update)


def fedprox(
    loss_fn: LossFn | Gradient,
    optimizer: optax.GradientTransformation,
    *,
    lr: Rate,
    batch_size: int,
    mu: Rate = 0.01,
) -> ClientUpdate:
    """FedAvg whose clients are pulled back to the global parameters (Li et al. 2020).

    The local objective gains ``mu/2 |w - w_global|^2``, hence its gradient ``mu (w - w_global)``;
    the loss that is reported leaves it out, so that values of ``mu`` can be compared.
    """
    check_rates(lr, batch_size)
    if known(mu) and mu < 0:
        raise ValueError(f"expected mu >= 0, got {mu}")

    def update(params, client_state, examples, client, key, lr_scale):
        new, _, sums = descend(
            loss_fn, optimizer, batch_size, params, optimizer.init(params),
            examples, client, key, lr * lr_scale,
            penalty=lambda w: jax.tree.map(lambda a, b: mu * (a - b), w, params),
        )  # fmt: skip
        return jax.tree.map(jnp.subtract, new, params), client_state, sums

    return ClientUpdate(lambda params: (), update)


def persistent(
    loss_fn: LossFn | Gradient,
    optimizer: optax.GradientTransformation,
    *,
    lr: Rate,
    batch_size: int,
) -> ClientUpdate:
    """FedAvg whose clients keep their optimizer's state from round to round.

    With one client that holds all rows, and a server that adds the delta, this is ordinary
    centralised training, whatever number of steps makes a round.
    """
    check_rates(lr, batch_size)

    def update(params, client_state, examples, client, key, lr_scale):
        new, opt_state, sums = descend(
            loss_fn, optimizer, batch_size, params, client_state,
            examples, client, key, lr * lr_scale,
        )  # fmt: skip
        return jax.tree.map(jnp.subtract, new, params), opt_state, sums

    return ClientUpdate(optimizer.init, update)


def local_only(
    loss_fn: LossFn | Gradient,
    optimizer: optax.GradientTransformation,
    *,
    lr: Rate,
    batch_size: int,
) -> ClientUpdate:
    """Every client trains its own parameters, and nothing is shared: the delta is zero.

    The comparison that says whether federation helped; ``LocalState.params`` are the models.
    """
    check_rates(lr, batch_size)

    def update(params, client_state, examples, client, key, lr_scale):
        own, opt_state, sums = descend(
            loss_fn, optimizer, batch_size, client_state.params, client_state.opt_state,
            examples, client, key, lr * lr_scale,
        )  # fmt: skip
        return optax.tree.zeros_like(params), LocalState(own, opt_state), sums

    return ClientUpdate(
        lambda params: LocalState(params, optimizer.init(params)),
        update,
        personal=lambda params, client_state: client_state.params,
    )
