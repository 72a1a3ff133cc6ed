"""Server optimizers: optax constructors that take the negative delta as their gradient. JAX."""

from collections.abc import Callable

import optax

from qoejax.fed.promotion import lenient_optimizer
from qoejax.fed.protocol import Rate


def sgd(lr: Rate = 1.0) -> optax.GradientTransformation:
    """Adds ``lr`` times the delta; at 1 this is FedAvg (McMahan et al. 2017)."""
    return lenient_optimizer(optax.sgd(lr))


def momentum(lr: Rate = 1.0, decay: float = 0.9) -> optax.GradientTransformation:
    """FedAvgM (Hsu et al. 2019)."""
    return lenient_optimizer(optax.sgd(lr, momentum=decay))


def adam(
    lr: Rate = 0.01, b1: float = 0.9, b2: float = 0.99, eps: float = 1e-3
) -> optax.GradientTransformation:
    """FedAdam (Reddi et al. 2021), whose tau is ``eps``; with optax's bias correction."""
    return lenient_optimizer(optax.adam(lr, b1=b1, b2=b2, eps=eps))


def yogi(
    lr: Rate = 0.01, b1: float = 0.9, b2: float = 0.99, eps: float = 1e-3
) -> optax.GradientTransformation:
    """FedYogi (Reddi et al. 2021), whose tau is ``eps``; with optax's bias correction.

    Both moments start at 0: optax's own start, 1e-6 for the first too, moves without any delta.
    """
    yogi = optax.scale_by_yogi(b1, b2, eps, initial_accumulator_value=0.0)
    return lenient_optimizer(optax.chain(yogi, optax.scale_by_learning_rate(lr)))


def adagrad(lr: Rate = 0.01, eps: float = 1e-3) -> optax.GradientTransformation:
    """FedAdagrad (Reddi et al. 2021): the accumulator starts at tau squared, tau is ``eps``."""
    return lenient_optimizer(optax.adagrad(lr, initial_accumulator_value=eps**2, eps=eps**2))


SERVER_OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": sgd,
    "momentum": momentum,
    "adam": adam,
    "yogi": yogi,
    "adagrad": adagrad,
}
