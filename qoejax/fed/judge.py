"""Weights of clients by what their updates do to users: held-out MOS error and recall. JAX."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from qoejax.fed.state import Weigh
from qoejax.qoe import scales
from qoejax.types import Examples, Params


def harm(outputs: dict[str, Array], rows: Examples, mos_share: float) -> Float[Array, ""]:
    """How badly outputs serve users, from 0 to 1.

    ``(1 - mos_share) (1 - macro recall) + mos_share RMSE / (HIGH - LOW)``: recall is the mean over
    the classes that the rows have, RMSE is over their rated services, in the range of the bins.
    The second term is 0 where nothing is rated.
    """
    classes = outputs["logits"].shape[-1]
    truth = jax.nn.one_hot(rows.label, classes)
    right = jnp.argmax(outputs["logits"], -1) == rows.label
    support = truth.sum(0)
    recall = (right.astype(jnp.float32) @ truth) / jnp.maximum(support, 1.0)
    macro = recall.sum() / jnp.maximum((support > 0).sum().astype(jnp.float32), 1.0)
    error = jnp.where(rows.mos_mask, scales.mean(outputs["mos"]) - rows.mos, 0.0)
    rated = jnp.maximum(rows.mos_mask.sum().astype(jnp.float32), 1.0)
    rmse = jnp.sqrt(jnp.square(error).sum() / rated)
    return (1 - mos_share) * (1 - macro) + mos_share * rmse / (scales.HIGH - scales.LOW)


def by_experience(
    predict: Callable[[Params, Any], dict[str, Array]],
    held_out: Examples,
    *,
    mos_share: float = 0.5,
    temperature: float = 0.05,
) -> Weigh:
    """Each client's weight times ``exp(gain / temperature)``.

    The gain is ``harm`` of the global model minus that of the global model after this client's
    delta alone, on rows that only the server holds; the exponent is kept within 10 either way. A
    client that leaves users as well off as another thus counts by its rows, as in FedAvg. Costs
    one pass over the held-out rows for each client.

    Args:
      predict: ``(params, x) -> {"logits": [N,C], "mos": [N,Q,M]}``.
      held_out: Rows of no client, on the device.
      mos_share: Weight of the MOS error against that of recall, 0 to 1.
      temperature: Gain at which a weight grows by e.

    Raises:
      ValueError: ``mos_share`` or ``temperature`` out of range.
    """
    if not 0 <= mos_share <= 1 or not temperature > 0:
        raise ValueError(
            f"expected 0 <= mos_share <= 1 and temperature > 0, got {mos_share} and {temperature}"
        )

    def weigh(
        params: Params,
        delta_of: Callable[[Any], Params],
        deltas: Any,
        weight: Float[Array, " K"],
    ) -> Float[Array, " K"]:
        def harm_after(delta: Params) -> Array:
            moved = jax.tree.map(jnp.add, params, delta)
            return harm(predict(moved, held_out.x), held_out, mos_share)

        before = harm(predict(params, held_out.x), held_out, mos_share)
        after = jax.lax.map(lambda message: harm_after(delta_of(message)), deltas)
        exponent = jnp.clip((before - after) / temperature, -10.0, 10.0)
        return jnp.where(weight > 0, weight * jnp.exp(exponent), 0.0)

    return weigh
