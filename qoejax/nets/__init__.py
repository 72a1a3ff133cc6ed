"""Nets: pairs of pure functions from records to class logits and MOS bin logits. JAX."""

from collections.abc import Callable

from qoejax.nets.baselines import cnn, linear, mlp
from qoejax.nets.net import Net, from_module
from qoejax.nets.qoenet import qoenet

NETS: dict[str, Callable[..., Net]] = {
    "qoenet": qoenet,
    "mlp": mlp,
    "cnn": cnn,
    "linear": linear,
}
"""Factories by name: ``NETS[name](classes=, services=, bins=, ...) -> Net``."""

__all__ = ["NETS", "Net", "cnn", "from_module", "linear", "mlp", "qoenet"]
