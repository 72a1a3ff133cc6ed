"""Algorithms against client drift: what unequal data and unequal work do to an average. JAX."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from qoejax.fed.client import check_rates, descend, draw, known
from qoejax.fed.protocol import AVERAGING, ClientUpdate, LossFn, Rate, ServerSide, Turnout
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
