"""Members of a parameter-efficient ensemble, which share all but their ends. JAX.

After BatchEnsemble (Wen, Tran and Ba, ICLR 2020) in the form of TabM-mini (Gorishniy, Kotelnikov
and Babenko, "TabM: Advancing Tabular Deep Learning with Parameter-Efficient Ensembling", ICLR
2025): a member has its own factors of the embedded features and its own heads. In training, unlike
there, each example goes through one member, drawn at random, so a step costs what it costs a
single net; a prediction is the mean of all members' probabilities.
"""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from qoejax.nets.heads import Heads


def check_members(members: int) -> None:
    """Raises a ValueError unless there is a member."""
    if members < 1:
        raise ValueError(f"members: expected 1 or more, got {members}")


def draw(module: nn.Module, examples: int, members: int) -> Int[Array, " B"]:
    """The member that each example of a training step goes through."""
    return jax.random.randint(module.make_rng("dropout"), (examples,), 0, members)


class Factors(nn.Module):
    """Each member's factors of the embedded features.

    They start normal, one a feature: signs and sizes that tell the members apart.
    """

    members: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, h: Float[Array, "B T F E"], member: Int[Array, " B"] | None
    ) -> Float[Array, "KB T F E"]:
        """Each example as its ``member`` sees it (K = 1), or as all K do, member-major."""

        def start(key: Array, shape: tuple[int, ...]) -> Array:
            return jnp.broadcast_to(jax.random.normal(key, (*shape[:-1], 1)), shape)

        factors = self.param("factors", start, (self.members, *h.shape[2:])).astype(self.dtype)
        if member is not None:
            return h * jnp.broadcast_to(factors[member][:, None], h.shape)
        every = (self.members, *h.shape)
        out = jnp.broadcast_to(h, every) * jnp.broadcast_to(factors[:, None, None], every)
        return out.reshape(-1, *h.shape[1:])


class MemberHeads(nn.Module):
    """Heads of each member; parameters have a leading axis of members."""

    members: int
    heads: Mapping[str, Any]

    @nn.compact
    def __call__(
        self, z: Float[Array, "KB D"], member: Int[Array, " B"] | None
    ) -> dict[str, Array]:
        """Logits of each example's ``member``, or of the mean probability of all."""
        alone = member is not None
        every = nn.vmap(
            Heads, variable_axes={"params": 0}, split_rngs={"params": True},
            in_axes=None if alone else 0, axis_size=self.members,
        )(**self.heads, name="of")  # fmt: skip
        if alone:
            out = every(z)
            return jax.tree.map(lambda leaf: leaf[member, jnp.arange(len(z))], out)
        return jax.tree.map(pooled, every(z.reshape(self.members, -1, z.shape[-1])))


def pooled(logits: Float[Array, "K *batch M"]) -> Float[Array, "*batch M"]:
    """Log of the members' mean probability, in float32."""
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    return jax.nn.logsumexp(log_p, axis=0) - math.log(len(logits))
