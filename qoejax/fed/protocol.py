"""What an algorithm is: a client's half, its server's half, and what goes between them. JAX."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Float

from qoejax.types import Examples, Params, Sums

LossFn = Callable[[Params, Examples, Array], tuple[Array, Sums]]
"""``loss_fn(params, batch, key) -> (loss, sums)``.

``loss`` is a scalar to which an example of weight 0 contributes nothing; ``sums`` are metric
numerators and denominators of the batch.
"""


Rate = float | Float[Array, ""]
"""A learning rate or the like: a number, or traced where several are swept at once."""


class Gradient(NamedTuple):
    """How a step's gradient is made of a client's rows, where a loss and its batches are not it.

    ``fn(params, examples, client, keys, step) -> (gradient, sums)``; ``keys`` are of the batches
    and of the loss.
    """

    fn: Callable[..., tuple[Params, Sums]]


class Turnout(NamedTuple):
    """Who counted in a round: their share of the population, and their mean number of steps."""

    share: Float[Array, ""]
    steps: Float[Array, ""]


class ServerSide(NamedTuple):
    """The server's half of an algorithm, as pure functions.

    ``init(params) -> memory``: what the server keeps beside the parameters. ``send(params,
    memory) -> received``: what every client of a round is given. ``message(params) -> tree``: any
    tree with the structure, shapes and dtypes of what one client sends back. ``absorb(params,
    memory, message, turnout) -> (delta, memory)``: makes the step of the parameters of the
    aggregated message. Everything between the two ends sees messages only; the wire sees them
    coded (``Coding``).
    """

    init: Callable[[Params], Any]
    send: Callable[[Params, Any], Any]
    message: Callable[[Params], Any]
    absorb: Callable[[Params, Any, Any, Turnout], tuple[Params, Any]]


AVERAGING = ServerSide(
    init=lambda params: (),
    send=lambda params, memory: params,
    message=lambda params: params,
    absorb=lambda params, memory, message, turnout: (message, memory),
)
"""The global parameters go out, deltas come back, and their aggregate is the step."""


class Coding(NamedTuple):
    """Another form in which messages travel.

    ``layout(message) -> tree`` has the structure, shapes and dtypes of the coded form of any such
    message; ``decode(coded, like) -> message`` reads it, where ``like`` is ``ServerSide.message``.
    """

    layout: Callable[[Any], Any]
    decode: Callable[[Any, Any], Any]


class ClientUpdate(NamedTuple):
    """An algorithm: what a client does, and what its server does with the result.

    ``init(params) -> client_state``: what one client keeps from round to round; ``()`` for
    nothing. ``update(received, client_state, examples, client, key, lr_scale) -> (message,
    client_state, sums)``: ``received`` is what ``server.send`` made, ``client`` is one entry of a
    ``Cohort`` (scalars), ``key`` belongs to that client in that round, ``lr_scale`` multiplies the
    learning rate, and ``sums`` are added over the steps taken. For most algorithms ``received``
    is the parameters, and the message is the delta: new minus old. A client without steps or rows
    has a message of zeros, zero sums and an unchanged state. ``personal(params, client_state) ->
    params`` is the model that a client uses, where that is its own. ``coding`` is there where
    ``update`` returns messages in their coded form (``fed.compress``).
    """

    init: Callable[[Params], Any]
    update: Callable[..., tuple[Any, Any, Sums]]
    server: ServerSide = AVERAGING
    personal: Callable[[Params, Any], Params] | None = None
    coding: Coding | None = None


def layout(update: ClientUpdate, params: Params) -> Any:
    """A tree with the structure, shapes and dtypes of what one client sends."""
    message = update.server.message(params)
    return message if update.coding is None else update.coding.layout(message)
