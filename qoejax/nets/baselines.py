"""Nets to compare with, of the same signature. JAX."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from qoejax.nets.embed import EMBEDDINGS
from qoejax.nets.encoder import Dropout
from qoejax.nets.heads import Heads
from qoejax.nets.members import Factors, MemberHeads, check_members, draw
from qoejax.nets.net import Net, check_rate, choose, from_module
from qoejax.nets.stem import PatchConv


class _Linear(nn.Module):
    heads: Mapping[str, Any]

    @nn.compact
    def __call__(self, x: Float[Array, "B T F"], train: bool) -> dict[str, Array]:
        del train
        return Heads(**self.heads, name="heads")(x.reshape(x.shape[0], -1))


class _MLP(nn.Module):
    heads: Mapping[str, Any]
    widths: tuple[int, ...]
    embed: str
    embed_size: int
    members: int
    dropout: float

    @nn.compact
    def __call__(self, x: Float[Array, "B T F"], train: bool) -> dict[str, Array]:
        dtype, member = self.heads["dtype"], None
        h = EMBEDDINGS[self.embed](size=self.embed_size, dtype=dtype, name="embed")(x)
        if self.members > 1:
            member = draw(self, x.shape[0], self.members) if train else None
            h = Factors(self.members, dtype=dtype, name="members")(h, member)
        h = h.reshape(h.shape[0], -1)
        for i, width in enumerate(self.widths):
            h = nn.relu(nn.Dense(width, dtype=dtype, name=f"dense{i}")(h))
            h = Dropout(self.dropout, name=f"drop{i}")(h, train)
        if self.members > 1:
            return MemberHeads(self.members, self.heads, name="heads")(h, member)
        return Heads(**self.heads, name="heads")(h)


class _CNN(nn.Module):
    heads: Mapping[str, Any]
    channels: tuple[int, ...]
    kernel: int
    hidden: int
    dropout: float

    @nn.compact
    def __call__(self, x: Float[Array, "B T F"], train: bool) -> dict[str, Array]:
        dtype = self.heads["dtype"]
        h = x[..., None].astype(dtype)
        for i, channels in enumerate(self.channels):
            conv = PatchConv(channels, self.kernel, dtype=dtype, name=f"conv{i}")
            h = nn.relu(conv(h))
        h = nn.relu(nn.Dense(self.hidden, dtype=dtype, name="dense")(h.reshape(x.shape[0], -1)))
        h = Dropout(self.dropout, name="drop")(h, train)
        return Heads(**self.heads, name="heads")(h)


def linear(*, classes: int, services: int, bins: int = 17, dtype: str = "float32") -> Net:
    """Logistic regression on all T·F values of an example; arguments as of ``qoenet``."""
    return from_module(_Linear(head_arguments(classes, services, bins, dtype)))


def mlp(
    *,
    classes: int,
    services: int,
    bins: int = 17,
    width: int = 256,
    depth: int = 2,
    widths: Sequence[int] = (),
    embed: str = "none",
    embed_size: int = 8,
    members: int = 1,
    dropout: float = 0.1,
    dtype: str = "float32",
) -> Net:
    """``depth`` ReLU layers of ``width``, or layers of ``widths``, on all T·F values of an example.

    With ``embed="periodic"`` this is the strong MLP-PLR of Gorishniy et al. (2022), with
    ``members`` also TabM-mini, see ``nets.members``. Other arguments as of ``qoenet``.
    """
    check_members(members)
    choose("embed", embed, EMBEDDINGS)
    check_rate("dropout", dropout)
    heads = head_arguments(classes, services, bins, dtype)
    layers = tuple(widths) or (width,) * depth
    return from_module(_MLP(heads, layers, embed, embed_size, members, dropout))


tabm = functools.partial(mlp, embed="periodic", members=16)
"""TabM-mini with periodic embeddings: ``mlp`` with other defaults."""


def cnn(
    *,
    classes: int,
    services: int,
    bins: int = 17,
    channels: Sequence[int] = (32, 64),
    kernel: int = 3,
    hidden: int = 64,
    dropout: float = 0.1,
    dtype: str = "float32",
) -> Net:
    """ReLU convolutions along the features of each record, and a dense layer on all they make.

    ``channels`` are the widths of the convolutions, whose outputs are as long as a record;
    ``hidden`` is the width of the dense layer. Other arguments as of ``qoenet``.
    """
    check_rate("dropout", dropout)
    heads = head_arguments(classes, services, bins, dtype)
    return from_module(_CNN(heads, tuple(channels), kernel, hidden, dropout))


def head_arguments(classes: int, services: int, bins: int, dtype: str) -> dict[str, Any]:
    """Arguments of ``Heads``."""
    return {"classes": classes, "services": services, "bins": bins, "dtype": jnp.dtype(dtype)}
