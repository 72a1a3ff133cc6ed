"""What the devices can do at best, and how much of that kind of work the hybrid is."""

import math
from collections.abc import Callable
from typing import Any


def peak_call(size: int, products: int) -> tuple[Callable[[], None], float]:
    """A call that keeps every device busy with products, and its floating-point operations."""
    import jax
    import jax.numpy as jnp

    devices = jax.devices()

    @jax.jit
    def chain(a: Any, b: Any) -> Any:
        return jax.lax.fori_loop(0, products, lambda _, x: jnp.matmul(x, b, precision="highest"), a)

    # A rotation keeps its size however often it is applied.
    a, b = jnp.ones((size, size)), jnp.roll(jnp.eye(size), 1, 0)
    pairs = [jax.device_put((a, b), d) for d in devices]

    def call() -> None:
        jax.block_until_ready([chain(*pair) for pair in pairs])

    return call, 2.0 * size**3 * products * len(devices)


def shapes(sizes: dict[str, Any], features: int, classes: int, batch: int) -> list[tuple[int, ...]]:
    """Products (number, rows, inner, columns) of the hybrid's forward pass at T = 1.

    Those of attention's 3 by 3 scores are left out.
    """
    width, tokens, last = sizes["width"], features, sizes["embed_size"]
    found = [(features, batch, 2 * sizes["frequencies"], last)]
    for channels in (width // 2, width):
        tokens = -(-tokens // sizes["stride"])
        found.append((1, batch * tokens, sizes["kernel"] * last, channels))
        last = channels
    mlp, rows = sizes["mlp"], batch * tokens
    block = [(width, 3 * width), (width, width), (width, mlp), (mlp, width)]
    found += [(1, rows, *each) for each in block] * sizes["depth"]
    hidden = sizes["hidden"]
    return [*found, (1, batch, tokens * width, hidden), (1, batch, hidden, classes + 17)]


def own_call(
    shapes: list[tuple[int, ...]], steps: int, *, train: bool = True
) -> tuple[Callable[[], None], float]:
    """A call of nothing but these products and their gradients', and its operations.

    Operands of a device stay in its cache: nothing that makes these products can be faster. Without
    ``train`` gradients by weights are left out; a product and its gradient by rows are much alike.
    """
    import jax
    import jax.numpy as jnp

    operands = [
        (jnp.zeros((g, m, k)), jnp.zeros((g, k, n)))
        if g > 1
        else (jnp.zeros((m, k)), jnp.zeros((k, n)))
        for g, m, k, n in shapes
    ]

    def step(_: Any, pairs: Any) -> Any:
        out = []
        for x, w in pairs:
            y = x @ w  # each feeds the next step, so that none is left out
            by_weights = jnp.swapaxes(x, -1, -2) @ y if train else w
            out.append((y @ jnp.swapaxes(w, -1, -2), by_weights))
        return out

    run = jax.jit(lambda pairs: jax.lax.fori_loop(0, steps, step, pairs))
    placed = [jax.device_put(operands, d) for d in jax.devices()]

    def call() -> None:
        jax.block_until_ready([run(pairs) for pairs in placed])

    once = sum(math.prod(each) for each in shapes)
    return call, (3.0 if train else 2.0) * 2 * once * steps * len(jax.devices())


def matmul_flops(sizes: dict[str, Any], features: int, classes: int, batch: int) -> int:
    """Operations of matrix products in a gradient step of the hybrid at T = 1, by hand."""
    width, found = sizes["width"], shapes(sizes, features, classes, batch)
    tokens = found[-2][2] // width  # whose outputs make a record's vector
    attention = batch * sizes["depth"] * 2 * tokens * tokens * width
    return 3 * 2 * (sum(math.prod(each) for each in found) + attention)
