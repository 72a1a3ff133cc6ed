"""Recurrent and attention nets to compare with, of the same signature. JAX.

Their sequence is that of the records of a window. A dataset of single records has none, and there
these nets read the features of the record one after the other, as the literature on intrusion
detection does: an order that means nothing, which the comparison is the place to show.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from qoejax.nets.baselines import head_arguments
from qoejax.nets.encoder import Block, Dropout, LayerNorm, draw_noise
from qoejax.nets.heads import Heads
from qoejax.nets.net import Net, check_rate, from_module
from qoejax.nets.stem import FeatureTokens, PatchConv


def sequence(x: Float[Array, "B T F"]) -> Float[Array, "B L A"]:
    """The records of a window, or the features of a single record, as a sequence."""
    return x if x.shape[1] > 1 else jnp.swapaxes(x, 1, 2)


class _Recurrent(nn.Module):
    heads: Mapping[str, Any]
    cell: str
    channels: tuple[int, ...]
    kernel: int
    hidden: int
    dropout: float

    @nn.compact
    def __call__(self, x: Float[Array, "B T F"], train: bool) -> dict[str, Array]:
        dtype = self.heads["dtype"]
        h = sequence(x).astype(dtype)
        for i, channels in enumerate(self.channels):
            h = nn.relu(PatchConv(channels, self.kernel, dtype=dtype, name=f"conv{i}")(h))
        cell = CELLS[self.cell](self.hidden, dtype=dtype, name="cell")
        zeros = cell.initialize_carry(jax.random.key(0), h[:, 0].shape)  # float32 by itself
        start = jax.tree.map(lambda leaf: leaf.astype(dtype), zeros)
        states: Any = nn.RNN(cell, name="rnn")(h, initial_carry=start)
        h = Dropout(self.dropout, name="drop")(states[:, -1], train)
        return Heads(**self.heads, name="heads")(h)


class _Transformer(nn.Module):
    heads: Mapping[str, Any]
    block: Mapping[str, Any]
    width: int
    depth: int
    by_feature: bool

    @nn.compact
    def __call__(self, x: Float[Array, "B T F"], train: bool) -> dict[str, Array]:
        dtype = self.heads["dtype"]
        if self.by_feature:
            by_feature = jnp.swapaxes(x, 1, 2)
            h = FeatureTokens(self.width, dtype=dtype, name="tokens")(by_feature)
        else:
            h = nn.Dense(self.width, dtype=dtype, name="tokens")(sequence(x).astype(dtype))
            h = h + self._learned("position", h.shape[-2:], h)
        mark = self._learned("mark", (1, self.width), h[:, :1])
        h = jnp.concatenate([h, mark], axis=1)
        noise = draw_noise(self, self.block["dropout"], train, [h.shape] * (2 * self.depth))
        for i in range(self.depth):
            h = Block(**self.block, dtype=dtype, name=f"block{i}")(h, noise[2 * i : 2 * i + 2])
        z = nn.relu(LayerNorm(dtype=dtype, name="norm")(h[:, -1]))
        return Heads(**self.heads, name="heads")(z)

    def _learned(self, name: str, shape: tuple[int, ...], like: Array) -> Array:
        value = self.param(name, nn.initializers.normal(0.02), shape)
        return jnp.broadcast_to(value.astype(like.dtype), like.shape)


CELLS: dict[str, Any] = {"gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell}


def gru(
    *,
    classes: int,
    services: int,
    bins: int = 17,
    hidden: int = 64,
    dropout: float = 0.1,
    dtype: str = "float32",
) -> Net:
    """A gated recurrent unit (Cho et al. 2014) over the sequence, whose last state is read out."""
    return _recurrent(classes, services, bins, dtype, "gru", (), 3, hidden, dropout)


def lstm(
    *,
    classes: int,
    services: int,
    bins: int = 17,
    hidden: int = 64,
    dropout: float = 0.1,
    dtype: str = "float32",
) -> Net:
    """As ``gru``, with a long short-term memory (Hochreiter and Schmidhuber 1997)."""
    return _recurrent(classes, services, bins, dtype, "lstm", (), 3, hidden, dropout)


def cnn_lstm(
    *,
    classes: int,
    services: int,
    bins: int = 17,
    channels: tuple[int, ...] = (32, 64),
    kernel: int = 3,
    hidden: int = 64,
    dropout: float = 0.1,
    dtype: str = "float32",
) -> Net:
    """ReLU convolutions along the sequence, then an LSTM over what they make."""
    return _recurrent(classes, services, bins, dtype, "lstm", channels, kernel, hidden, dropout)


def transformer(
    *,
    classes: int,
    services: int,
    bins: int = 17,
    width: int = 64,
    depth: int = 2,
    heads: int = 4,
    mlp: int = 128,
    dropout: float = 0.1,
    dtype: str = "float32",
) -> Net:
    """Pre-LN blocks over the sequence with learned positions, read out at a mark at its end."""
    return _attending(classes, services, bins, dtype, width, depth, heads, mlp, dropout, False)


def ft_transformer(
    *,
    classes: int,
    services: int,
    bins: int = 17,
    width: int = 64,
    depth: int = 2,
    heads: int = 4,
    mlp: int = 128,
    dropout: float = 0.1,
    dtype: str = "float32",
) -> Net:
    """A token a feature, by weights of its own, whatever T (Gorishniy et al., NeurIPS 2021)."""
    return _attending(classes, services, bins, dtype, width, depth, heads, mlp, dropout, True)


def _recurrent(
    classes: int,
    services: int,
    bins: int,
    dtype: str,
    cell: str,
    channels: tuple[int, ...],
    kernel: int,
    hidden: int,
    dropout: float,
) -> Net:
    check_rate("dropout", dropout)
    heads = head_arguments(classes, services, bins, dtype)
    return from_module(_Recurrent(heads, cell, tuple(channels), kernel, hidden, dropout))


def _attending(
    classes: int,
    services: int,
    bins: int,
    dtype: str,
    width: int,
    depth: int,
    heads: int,
    mlp: int,
    dropout: float,
    by_feature: bool,
) -> Net:
    check_rate("dropout", dropout)
    block = {"heads": heads, "mlp": mlp, "dropout": dropout}
    ends = head_arguments(classes, services, bins, dtype)
    return from_module(_Transformer(ends, block, width, depth, by_feature))
