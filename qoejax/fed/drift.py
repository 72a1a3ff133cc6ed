"""Algorithms against client drift: what unequal data and unequal work do to an average. JAX."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from qoejax.fed.client import check_rates, descend, draw, known
from qoejax.fed.protocol import (
    AVERAGING,
    ClientUpdate,
    Gradient,
    LossFn,
    Rate,
    ServerSide,
    Turnout,
)
from qoejax.types import Cohort, Examples, Params

OPTIONS = ("estimate", "gradient")


def scaffold(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    lr: Rate,
    batch_size: int,
    option: str = "estimate",
) -> ClientUpdate:
    """SCAFFOLD: gradients corrected by control variates (Karimireddy et al. 2020, algorithm 1).

    A client steps along ``g(y) - c_i + c``. Its new ``c_i`` is, with ``option="estimate"`` (the
    paper's option II), ``c_i - c + (x - y) / (steps lr)``, which is the mean of the gradients it
    stepped along if its optimizer is plain SGD; with ``"gradient"`` (option I), the mean gradient
    at ``x`` over the batches of the round, a second pass. The server adds the share of clients
    that counted times the mean change of ``c_i`` to ``c``.

    Sent: ``{"control", "model"}`` both ways, twice FedAvg's bytes. Kept: ``c_i`` by each client,
    ``c`` by the server.
    """
    check_rates(lr, batch_size)
    if option not in OPTIONS:
        raise ValueError(f"option is {option!r}: expected one of {', '.join(OPTIONS)}")

    def update(received, control, examples, client, key, lr_scale):
        common, x = received["control"], received["model"]
        rate = lr * lr_scale
        y, _, sums = descend(
            loss_fn, optimizer, batch_size, x, optimizer.init(x), examples, client, key, rate,
            penalty=lambda w: jax.tree.map(jnp.subtract, common, control),
        )  # fmt: skip
        delta = jax.tree.map(jnp.subtract, y, x)
        steps = jnp.where(client.count > 0, client.steps, 0)
        length = steps.astype(jnp.float32) * rate
        if option == "gradient":
            mean = _mean_gradient(loss_fn, batch_size, x, examples, client, key)
        else:
            # Without a step nothing was learnt; the placeholder is never used.
            inverse = 1.0 / jnp.where(length > 0, length, 1.0)
            mean = jax.tree.map(lambda mine, c, d: mine - c - inverse * d, control, common, delta)
        new = optax.tree.where(length > 0, mean, control)
        message = {"control": jax.tree.map(jnp.subtract, new, control), "model": delta}
        return message, new, sums

    return ClientUpdate(optax.tree.zeros_like, update, _scaffold_server())


def _scaffold_server() -> ServerSide:
    def absorb(
        params: Params, control: Params, message: Any, turnout: Turnout
    ) -> tuple[Params, Params]:
        del params
        control = jax.tree.map(lambda c, d: c + turnout.share * d, control, message["control"])
        return message["model"], control

    return ServerSide(
        init=optax.tree.zeros_like,
        send=lambda params, control: {"control": control, "model": params},
        message=lambda params: {"control": params, "model": params},
        absorb=absorb,
    )


def _mean_gradient(
    loss_fn: LossFn,
    batch_size: int,
    params: Params,
    examples: Examples,
    client: Cohort,
    key: Array,
) -> Params:
    """Mean of the gradients at ``params`` over ``client.steps`` batches of their own order."""
    order_key, loss_key = jax.random.split(jax.random.fold_in(key, 1))

    def body(step: Array, total: Params) -> Params:
        batch = draw(examples, client, order_key, step, batch_size)
        grads = jax.grad(loss_fn, has_aux=True)(params, batch, jax.random.fold_in(loss_key, step))
        return jax.tree.map(jnp.add, total, grads[0])

    steps = jnp.where(client.count > 0, client.steps, 0)
    total = jax.lax.fori_loop(0, steps, body, optax.tree.zeros_like(params))
    return optax.tree.scale(1.0 / jnp.maximum(steps, 1).astype(jnp.float32), total)


def fednova(
    loss_fn: LossFn, optimizer: optax.GradientTransformation, *, lr: Rate, batch_size: int
) -> ClientUpdate:
    """FedNova: deltas are averaged per local step (Wang et al. 2020, equation 6).

    A client sends its delta divided by its number of steps, and the server takes the mean times
    the weighted mean number of steps, so that clients who do more steps do not pull the fixed
    point of the rounds towards their own. Exact for plain SGD, where a step's part in the delta
    is the same whenever it is taken.

    Sent: the parameters down, a message of their shape up. Kept: nothing.
    """
    check_rates(lr, batch_size)

    def update(params, client_state, examples, client, key, lr_scale):
        new, _, sums = descend(
            loss_fn, optimizer, batch_size, params, optimizer.init(params),
            examples, client, key, lr * lr_scale,
        )  # fmt: skip
        share = 1.0 / jnp.maximum(client.steps, 1).astype(jnp.float32)
        return jax.tree.map(lambda a, b: share * (a - b), new, params), client_state, sums

    def absorb(
        params: Params, memory: Any, message: Params, turnout: Turnout
    ) -> tuple[Params, Any]:
        del params
        return optax.tree.scale(turnout.steps, message), memory

    return ClientUpdate(lambda params: (), update, AVERAGING._replace(absorb=absorb))


def feddyn(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    lr: Rate,
    batch_size: int,
    alpha: Rate = 0.1,
) -> ClientUpdate:
    """FedDyn: dynamic regularisation (Acar et al. 2021, algorithm 1).

    The local objective gains ``-<g_i, w> + alpha/2 |w - w_global|^2``, where ``g_i`` becomes
    ``g_i - alpha (w_i - w_global)`` after each round: the gradient at the client's own solution.
    The server keeps ``h``, from which it takes alpha times the share of clients that counted
    times their mean delta, and steps by the mean delta minus ``h / alpha``: the server's
    optimizer should be SGD at 1.

    Sent: as FedAvg. Kept: ``g_i`` by each client, ``h`` by the server.
    """
    check_rates(lr, batch_size)
    if known(alpha) and not alpha > 0:
        raise ValueError(f"expected alpha > 0, got {alpha}")

    def update(params, slope, examples, client, key, lr_scale):
        new, _, sums = descend(
            loss_fn, optimizer, batch_size, params, optimizer.init(params),
            examples, client, key, lr * lr_scale,
            penalty=lambda w: jax.tree.map(lambda a, b, g: alpha * (a - b) - g, w, params, slope),
        )  # fmt: skip
        delta = jax.tree.map(jnp.subtract, new, params)
        return delta, jax.tree.map(lambda g, d: g - alpha * d, slope, delta), sums

    def absorb(params: Params, h: Params, delta: Params, turnout: Turnout) -> tuple[Params, Params]:
        del params
        share = alpha * turnout.share
        h = jax.tree.map(lambda a, d: a - share * d, h, delta)
        return jax.tree.map(lambda d, a: d - a / alpha, delta, h), h

    server = AVERAGING._replace(init=optax.tree.zeros_like, absorb=absorb)
    return ClientUpdate(optax.tree.zeros_like, update, server)


MOMENTS = ("mu", "nu", "trace")
"""Fields of optax states that are means over past gradients, or over their squares."""


def shared_moments(
    loss_fn: LossFn | Gradient,
    optimizer: optax.GradientTransformation,
    *,
    lr: Rate,
    batch_size: int,
) -> ClientUpdate:
    """FedAvg that averages the optimizer's moments too (Yu, Jin, Yang 2019; Chen, Li, Li 2020).

    A client goes on from the moments of the server, where FedAvg's starts from zero in each round,
    and sends by how much they changed. So steps are scaled alike everywhere, and momentum points
    at first where all clients went. Corrections of Adam's bias go on from the mean number of steps.
    With one step a round and SGD with momentum this is synchronous training in one place.

    Sent: the parameters and each moment of their shape, both ways: with Adam 3x FedAvg's bytes.
    Kept: the moments, by the server.
    """
    check_rates(lr, batch_size)

    def update(received, client_state, examples, client, key, lr_scale):
        x, moments = received["model"], received["moments"]
        start = _with_moments(optimizer.init(x), moments, received["steps"])
        y, end, sums = descend(
            loss_fn, optimizer, batch_size, x, start, examples, client, key, lr * lr_scale
        )
        message = {"model": y, "moments": _moments(end)}
        message = jax.tree.map(jnp.subtract, message, {"model": x, "moments": moments})
        return message, client_state, sums

    def init(params: Params) -> Any:
        return {"moments": _moments(optimizer.init(params)), "steps": jnp.float32(0)}

    def absorb(params: Params, memory: Any, message: Any, turnout: Turnout) -> tuple[Params, Any]:
        del params
        moments = jax.tree.map(jnp.add, memory["moments"], message["moments"])
        if "nu" in moments:  # A mean of squares, but for the rounding of differences.
            moments["nu"] = jax.tree.map(lambda v: jnp.maximum(v, 0.0), moments["nu"])
        return message["model"], {"moments": moments, "steps": memory["steps"] + turnout.steps}

    server = ServerSide(
        init=init,
        send=lambda params, memory: {"model": params, **memory},
        message=lambda params: {"model": params, "moments": init(params)["moments"]},
        absorb=absorb,
    )
    return ClientUpdate(lambda params: (), update, server)


def _moments(opt_state: Any) -> dict[str, Any]:
    found = {name: optax.tree.get(opt_state, name) for name in MOMENTS}
    return {name: value for name, value in found.items() if value is not None}


def _with_moments(opt_state: Any, moments: dict[str, Any], steps: Array) -> Any:
    """A state as if it had seen ``steps`` gradients."""
    count = optax.tree.get(opt_state, "count")
    if count is not None:
        opt_state = optax.tree.set(opt_state, count=jnp.round(steps).astype(count.dtype))
    return optax.tree.set(opt_state, **moments)
