"""The hybrid: convolutions and attention within a record, then attention over records. JAX."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from qoejax.nets.embed import EMBEDDINGS
from qoejax.nets.encoder import ACTIVATIONS, Block, LayerNorm, Noise, draw_noise, drop
from qoejax.nets.heads import Heads
from qoejax.nets.members import Factors, MemberHeads, check_members, draw
from qoejax.nets.net import Net, check_rate, choose, from_module
from qoejax.nets.stem import STEMS

POOLS = ("flat", "mean")


class QoENet(nn.Module):
    """Each feature is embedded; convolutions along the features make about F/stride² tokens.

    Transformer blocks attend over the tokens of a record, and their outputs become one vector a
    record; with ``shortcut`` the embedded features enter it too (wide and deep parts, Cheng et al.,
    DLRS 2016). With T > 1, causal blocks attend over the records' vectors: a record is encoded
    once, whatever windows it stands in. The last record's vector is read out. With ``summary`` the
    records that ``summaries`` makes of a window come first, and the others look back at them. With
    ``members`` > 1 all this is shared by an ensemble (``nets.members``). ``embed``, ``stem``,
    ``block`` and ``heads`` are the parts' arguments; see ``qoenet`` for the others.
    """

    embed: Mapping[str, Any]
    stem: Mapping[str, Any]
    block: Mapping[str, Any]
    heads: Mapping[str, Any]
    depth: int
    depth_time: int
    pool: str
    hidden: int
    members: int
    shortcut: bool
    summary: bool
    jitter: float
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B T F"], train: bool) -> dict[str, Array]:
        """Class logits and MOS bin logits at the last record of each window."""
        embed, stem, member = dict(self.embed), dict(self.stem), None
        if self.summary and x.shape[1] > 1:
            x = jnp.concatenate([summaries(x), x], axis=1)
        if train and self.jitter:
            x = x + self.jitter * jax.random.normal(self.make_rng("dropout"), x.shape)
        h = EMBEDDINGS[embed.pop("kind")](**embed, dtype=self.dtype, name="embed")(x)
        if self.members > 1:
            member = draw(self, x.shape[0], self.members) if train else None
            h = Factors(self.members, dtype=self.dtype, name="members")(h, member)
        embedded = h.reshape(*h.shape[:-2], -1)
        h = STEMS[stem.pop("kind")](**stem, dtype=self.dtype, name="stem")(h)
        h = self._positions("token_position", h)
        noise = self._noise(h.shape, train)
        for i in range(self.depth):
            own = noise[2 * i : 2 * i + 2]
            h = Block(**self.block, dtype=self.dtype, name=f"block{i}")(h, own)
        h = LayerNorm(dtype=self.dtype, name="norm")(h)
        h = h.mean(-2) if self.pool == "mean" else h.reshape(*h.shape[:-2], -1)
        if self.shortcut:
            h = jnp.concatenate([h, embedded], axis=-1)
        h = nn.Dense(self.hidden, dtype=self.dtype, name="record")(h)  # [B, T, hidden]
        if x.shape[1] > 1:
            h = self._positions("time_position", h)
            for i in range(self.depth_time):
                own = noise[2 * (self.depth + i) :][:2]
                h = Block(**self.block, causal=True, dtype=self.dtype, name=f"time{i}")(h, own)
            h = LayerNorm(dtype=self.dtype, name="norm_time")(h)
        z = drop(nn.relu(h[:, -1]), noise[-1], self.block["dropout"])
        heads: dict[str, Any] = {**self.heads, "dtype": self.dtype}
        if self.members > 1:
            return MemberHeads(self.members, heads, name="heads")(z, member)
        return Heads(**heads, name="heads")(z)

    def _noise(self, tokens: tuple[int, ...], train: bool) -> list[Noise]:
        """Of two places a block over tokens [B, T, N, width], then over records, then the last."""
        batch, time = tokens[:2]
        records = (batch, time, self.hidden)
        over_time = [records] * (2 * self.depth_time if time > 1 else 0)
        shapes = [tokens] * (2 * self.depth) + over_time + [(batch, self.hidden)]
        return draw_noise(self, self.block["dropout"], train, shapes)

    def _positions(self, name: str, h: Array) -> Array:
        table = self.param(name, nn.initializers.normal(0.02), h.shape[-2:])
        return h + jnp.broadcast_to(table.astype(self.dtype), h.shape)


def summaries(x: Float[Array, "B T F"]) -> Float[Array, "B 4 F"]:
    """Mean of the last three records, mean, least and largest values of each feature in a window.

    Attention would have to learn them, and short training on few windows does not.
    """
    views = [x[:, -3:].mean(1), x.mean(1), x.min(1), x.max(1)]
    return jnp.stack(views, axis=1)


def qoenet(
    *,
    classes: int,
    services: int,
    bins: int = 17,
    width: int = 64,
    depth: int = 2,
    depth_time: int = 1,
    heads: int = 4,
    mlp: int = 128,
    embed: str = "periodic",
    embed_size: int = 8,
    stem: str = "conv",
    kernel: int = 4,
    stride: int = 4,
    pool: str = "flat",
    hidden: int = 128,
    members: int = 1,
    shortcut: bool = False,
    summary: bool = False,
    jitter: float = 0.0,
    dropout: float = 0.1,
    activation: str = "relu",
    dtype: str = "float32",
) -> Net:
    """The CNN-Transformer for intrusion detection and MOS forecasts, see ``QoENet``.

    Args:
        classes: C.
        services: Q, may be 0.
        bins: M, ordinal MOS bins (``qoe.scales``).
        width: Of a token; a multiple of ``heads`` and even.
        depth: Blocks over the tokens of a record.
        depth_time: Blocks over the records of a window; none are made for T = 1.
        heads: Of attention; ``hidden`` must be a multiple too.
        mlp: Hidden units of a block.
        embed: A name of ``EMBEDDINGS``.
        embed_size: Numbers a feature becomes; "none" makes one.
        stem: A name of ``STEMS``: "conv", or "tokens" for a token a feature, without convolution.
        kernel: Taps of both convolutions.
        stride: Of both; cost falls with its square. Equal to ``kernel`` is fastest.
        pool: "flat" (all tokens, each by its own weights) or "mean".
        hidden: Size of a record's vector.
        members: K of the ensemble: a prediction costs K times as much, a training step does not.
        shortcut: A record's vector also has its embedded features as a source, past the blocks.
        summary: Adds four records to a window with T > 1: its means and extremes.
        jitter: Standard deviation of normal noise on every scaled feature, in training only.
        dropout: Rate, on what each block adds and before the heads.
        activation: A name of ``ACTIVATIONS``.
        dtype: What is computed in, "float32" or "bfloat16" (slower on CPU). Parameters, outputs,
            softmax and the statistics of LayerNorm stay float32.

    Raises:
        ValueError: A name that is in no table, a rate out of its range, no member; by ``init``,
            widths that ``heads`` does not divide.
    """
    check_rate("dropout", dropout)
    if jitter < 0:
        raise ValueError(f"jitter: expected 0 or more, got {jitter}")
    choose("embed", embed, EMBEDDINGS)
    choose("stem", stem, STEMS)
    choose("pool", pool, POOLS)
    choose("activation", activation, ACTIVATIONS)
    check_members(members)
    module = QoENet(
        embed={"kind": embed, "size": embed_size},
        stem={"kind": stem, "width": width, "kernel": kernel, "stride": stride},
        block={"heads": heads, "mlp": mlp, "dropout": dropout, "activation": activation},
        heads={"classes": classes, "services": services, "bins": bins},
        depth=depth, depth_time=depth_time, pool=pool, hidden=hidden, members=members,
        shortcut=shortcut, summary=summary, jitter=jitter, dtype=jnp.dtype(dtype),
    )  # fmt: skip
    return from_module(module)
