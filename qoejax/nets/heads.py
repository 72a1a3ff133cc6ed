"""From one vector an example to class logits and to logits of ordinal MOS bins. JAX."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float


class Heads(nn.Module):
    """``[B, D] -> {"logits": [B, C], "mos": [B, Q, M]}``; Q may be 0."""

    classes: int
    services: int
    bins: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, z: Float[Array, "B D"]) -> dict[str, Array]:
        """Both heads."""
        logits = nn.Dense(self.classes, dtype=self.dtype, name="class")(z)
        shape = (z.shape[0], self.services, self.bins)
        if self.services == 0:
            return {"logits": logits, "mos": jnp.zeros(shape, self.dtype)}
        mos = nn.Dense(self.services * self.bins, dtype=self.dtype, name="mos")(z)
        return {"logits": logits, "mos": mos.reshape(shape)}
