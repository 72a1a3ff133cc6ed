"""Server optimizers: optax constructors that take the negative delta as their gradient. JAX."""

from collections.abc import Callable

import optax


def sgd(lr: float = 1.0) -> optax.GradientTransformation:
    """Adds ``lr`` times the delta; at 1 this is FedAvg (McMahan et al. 2017)."""
    return optax.sgd(lr)


def momentum(lr: float = 1.0, decay: float = 0.9) -> optax.GradientTransformation:
    """FedAvgM (Hsu et al. 2019)."""
    return optax.sgd(lr, momentum=decay)


def adam(
    lr: float = 0.01, b1: float = 0.9, b2: float = 0.99, eps: float = 1e-3
) -> optax.GradientTransformation:
    """FedAdam (Reddi et al. 2021), whose tau is ``eps``; with optax's bias correction."""
    return optax.adam(lr, b1=b1, b2=b2, eps=eps)


def yogi(
    lr: float = 0.01, b1: float = 0.9, b2: float = 0.99, eps: float = 1e-3
) -> optax.GradientTransformation:
    """FedYogi (Reddi et al. 2021), whose tau is ``eps``; with optax's bias correction."""
    return optax.yogi(lr, b1=b1, b2=b2, eps=eps)


def adagrad(lr: float = 0.01, eps: float = 1e-3) -> optax.GradientTransformation:
    """FedAdagrad (Reddi et al. 2021): the accumulator starts at tau squared, tau is ``eps``."""
    return optax.adagrad(lr, initial_accumulator_value=eps**2, eps=eps**2)


SERVER_OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": sgd,
    "momentum": momentum,
    "adam": adam,
    "yogi": yogi,
    "adagrad": adagrad,
}
