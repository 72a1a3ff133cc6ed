"""Nets: pairs of pure functions from records to class logits and MOS bin logits. JAX."""

from collections.abc import Callable

from qoejax.nets.baselines import cnn, linear, mlp, tabm
from qoejax.nets.net import Net, from_module
from qoejax.nets.qoenet import qoenet
from qoejax.nets.sequences import cnn_lstm, ft_transformer, gru, lstm, transformer

NETS: dict[str, Callable[..., Net]] = {
    "qoenet": qoenet,
    "mlp": mlp,
    "cnn": cnn,
    "linear": linear,
    "tabm": tabm,
    "gru": gru,
    "lstm": lstm,
    "cnn_lstm": cnn_lstm,
    "transformer": transformer,
    "ft_transformer": ft_transformer,
}
"""Factories by name: ``NETS[name](classes=, services=, bins=, ...) -> Net``."""

__all__ = ["NETS", "Net", "cnn", "from_module", "linear", "mlp", "qoenet"]
