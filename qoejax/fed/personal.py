"""Algorithms that give every client a model of its own. JAX."""

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from qoejax import trees
from qoejax.fed.client import check_rates, descend, descend_between, known
from qoejax.fed.protocol import AVERAGING, ClientUpdate, LossFn, Rate, ServerSide, Turnout
from qoejax.types import Params


def local_names(params: Params, patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a parameter stays with its client: its path (``net/heads/...``) fits a pattern.

    Raises:
      ValueError: a pattern fits no parameter, or all parameters are local.
    """
    names = [name for name, _ in trees.named_leaves(params)]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise ValueError(
                f"personal: no parameter fits {pattern!r}; the net has {', '.join(names)}"
            )

    def local(name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

    held = sum(map(local, names))
    if not 0 < held < len(names):
        raise ValueError(
            f"personal: {held} of {len(names)} parameters are local; expected some, not all"
        )
    return local


def _partial_server(patterns: Sequence[str]) -> ServerSide:
    """Only the shared parameters travel: local ones are absent (None) from every message."""

    def shared(params: Params) -> Params:
        return trees.split(params, local_names(params, patterns))[1]

    def absorb(
        params: Params, memory: Any, message: Params, turnout: Turnout
    ) -> tuple[Params, Any]:
        del turnout
        local, _ = trees.split(params, local_names(params, patterns))
        return trees.merge(message, optax.tree.zeros_like(local)), memory

    return ServerSide(
        init=lambda params: (),
        send=lambda params, memory: shared(params),
        message=shared,
        absorb=absorb,
    )


def _partial(update: Callable[..., Any], patterns: Sequence[str]) -> ClientUpdate:
    return ClientUpdate(
        init=lambda params: trees.split(params, local_names(params, patterns))[0],
        update=update,
        server=_partial_server(patterns),
        personal=lambda params, own: trees.merge(
            trees.split(params, local_names(params, patterns))[1], own
        ),
    )


def fedper(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    lr: Rate,
    batch_size: int,
    personal: Sequence[str],
) -> ClientUpdate:
    """Some parameters never leave their client; all are trained together.

    With the heads local this is FedPer (Arivazhagan et al. 2019); with the scales and biases of
    normalisation, FedBN (Li et al. 2021); with the position table, a learned embedding per site.

    Args:
      loss_fn: See ``LossFn``.
      optimizer: Of the local steps; starts afresh every round.
      lr: Learning rate.
      batch_size: Rows of a step.
      personal: Patterns (``fnmatch``) of the paths of local parameters.

    Sent: the other parameters, both ways. Kept: the local ones, by each client.
    """
    check_rates(lr, batch_size)

    def update(received, own, examples, client, key, lr_scale):
        params = trees.merge(received, own)
        new, _, sums = descend(
            loss_fn, optimizer, batch_size, params, optimizer.init(params),
            examples, client, key, lr * lr_scale,
        )  # fmt: skip
        own, shared = trees.split(new, local_names(new, personal))
        return jax.tree.map(jnp.subtract, shared, received), own, sums

    return _partial(update, personal)


def fedrep(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    lr: Rate,
    batch_size: int,
    personal: Sequence[str],
    head_share: float = 0.5,
) -> ClientUpdate:
    """FedRep: the local parameters learn first, then the shared ones (Collins et al. 2021).

    Of a round's steps the first ``head_share``, rounded up, move the local parameters only and
    the others the shared ones only. Other arguments, what is sent and what is kept: as ``fedper``.
    """
    check_rates(lr, batch_size)
    if not 0 < head_share < 1:
        raise ValueError(f"expected 0 < head_share < 1, got {head_share}")

    def update(received, own, examples, client, key, lr_scale):
        keys = jax.random.split(key)
        work = (examples, client, (keys[0], keys[1]), lr * lr_scale)
        steps = client.steps
        turn = jnp.ceil(head_share * steps.astype(jnp.float32)).astype(steps.dtype)
        own, _, first = descend_between(
            lambda own, batch, key: loss_fn(trees.merge(received, own), batch, key),
            optimizer, batch_size, own, optimizer.init(own), *work, (jnp.zeros_like(turn), turn),
        )  # fmt: skip
        shared, _, second = descend_between(
            lambda shared, batch, key: loss_fn(trees.merge(shared, own), batch, key),
            optimizer, batch_size, received, optimizer.init(received), *work, (turn, steps),
        )  # fmt: skip
        delta = jax.tree.map(jnp.subtract, shared, received)
        return delta, own, jax.tree.map(jnp.add, first, second)

    return _partial(update, personal)


def ditto(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    lr: Rate,
    batch_size: int,
    mu: Rate = 0.1,
) -> ClientUpdate:
    """Ditto: a personal model beside FedAvg's, held near it (Li et al. 2021, algorithm 1).

    Each round a client trains the global parameters as FedAvg does, to the bit, and takes as many
    steps with its own ``v`` on ``loss(v) + mu/2 |v - w_global|^2``. The sums are FedAvg's.

    Sent: as FedAvg. Kept: ``v`` by each client, at twice FedAvg's local work.
    """
    check_rates(lr, batch_size)
    if known(mu) and mu < 0:
        raise ValueError(f"expected mu >= 0, got {mu}")

    def update(params, own, examples, client, key, lr_scale):
        work = (examples, client)
        new, _, sums = descend(
            loss_fn, optimizer, batch_size, params, optimizer.init(params),
            *work, key, lr * lr_scale,
        )  # fmt: skip
        own, _, _ = descend(
            loss_fn, optimizer, batch_size, own, optimizer.init(own),
            *work, jax.random.fold_in(key, 1), lr * lr_scale,
            penalty=lambda v: jax.tree.map(lambda a, b: mu * (a - b), v, params),
        )  # fmt: skip
        return jax.tree.map(jnp.subtract, new, params), own, sums

    return ClientUpdate(lambda params: params, update, AVERAGING, lambda params, own: own)
