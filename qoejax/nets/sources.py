"""A small net over the sources of a scene: their classes, and users' MOS under actions on all. JAX.

Every source is encoded by itself; what it loads the link with is a vector of its own, and the
admitted parts of these vectors, summed over sources, are what a user's MOS depends on (a deep set:
Zaheer et al. 2017). So actions on N sources cost one sum and one narrow layer, not a new pass,
and the order of sources does not matter.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

BLOCKED_MOS = 1.0
LOW, SPAN = 1.0, 4.0


class Described(NamedTuple):
    """What a net makes of N sources before any action.

    Attributes:
        logits: of C classes; C may be 0.
        own: R values that a source's response starts from.
        part: what each source loads the link with: its measured share of capacity first, then P
            values that are learned.
    """

    logits: Float[Array, "N C"]
    own: Float[Array, "N R"]
    part: Float[Array, "N P1"]


class SourceNet(nn.Module):
    """Two heads on one encoder; either may be left out.

    Attributes:
        width: of the encoder's two layers and of the response's one.
        classes: C of the class head; 0 for none.
        kinds: of MOS: 2 for MOS_k(x, a) of a benign (0) and of a compromised source (1), 1 for
            MOS(x, a) whatever the class, 0 for no response head.
        admitted: share of a source's packets that each action lets through; the last is none.
        parts: P.
    """

    width: int
    classes: int
    kinds: int
    admitted: tuple[float, ...]
    parts: int = 8

    def setup(self) -> None:
        """Layers of both heads, as far as they are there."""
        self.first, self.second = nn.Dense(self.width), nn.Dense(self.width)
        if self.classes:
            self.to_logits = nn.Dense(self.classes)
        if self.kinds:
            self.to_own, self.to_part = nn.Dense(self.width), nn.Dense(self.parts)
            self.to_load = nn.Dense(self.width, use_bias=False)
            self.to_mos = nn.Dense(self.kinds * (len(self.admitted) - 1))

    def describe(self, x: Float[Array, "N F"], use: Float[Array, " N"]) -> Described:
        """Everything that does not depend on actions.

        Args:
            x: features, standardised.
            use: measured rate of each source as a share of the link.
        """
        h = nn.relu(self.second(nn.relu(self.first(x))))
        none = jnp.zeros((x.shape[0], 0))
        logits = self.to_logits(h) if self.classes else none
        if not self.kinds:
            return Described(logits, none, none)
        part = jnp.concatenate([use[:, None], nn.relu(self.to_part(h))], axis=1)
        return Described(logits, self.to_own(h), part)

    def respond(self, described: Described, actions: Int[Array, " N"]) -> Float[Array, "N K"]:
        """MOS in [1, 5] of each source's user and kind, under actions on all sources.

        A blocked source's user has MOS 1, which is not learned.
        """
        share = jnp.array(self.admitted)[actions]
        load = (share[:, None] * described.part).sum(0)
        load = jnp.concatenate([load, jnp.log(load[:1] + 0.05)])
        h = nn.relu(described.own + self.to_load(load)[None])
        each = self.to_mos(h).reshape(-1, len(self.admitted) - 1, self.kinds)
        chosen = jnp.minimum(actions, len(self.admitted) - 2)
        mos = LOW + SPAN * nn.sigmoid(jnp.take_along_axis(each, chosen[:, None, None], axis=1))
        blocked = actions == len(self.admitted) - 1
        return jnp.where(blocked[:, None], BLOCKED_MOS, mos[:, 0])

    def __call__(
        self, x: Float[Array, "N F"], use: Float[Array, " N"], actions: Int[Array, " N"]
    ) -> tuple[Float[Array, "N C"], Float[Array, "N K"] | None]:
        """Logits, and MOS where there is a response head."""
        described = self.describe(x, use)
        return described.logits, self.respond(described, actions) if self.kinds else None
