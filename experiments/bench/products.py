"""What the devices can do at best, and how much of that kind of work the hybrid is."""

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


def matmul_flops(sizes: dict[str, Any], features: int, classes: int, batch: int) -> int:
    """Operations of matrix products in a gradient step of the hybrid at T = 1, by hand."""
    width, tokens, last = sizes["width"], features, sizes["embed_size"]
    forward = features * 2 * sizes["frequencies"] * last
    for channels in (width // 2, width):
        tokens = -(-tokens // sizes["stride"])
        forward += tokens * sizes["kernel"] * last * channels
        last = channels
    dense = tokens * width * (3 * width + width + 2 * sizes["mlp"])
    attention = 2 * tokens * tokens * width
    forward += sizes["depth"] * (dense + attention)
    forward += tokens * width * sizes["hidden"] + sizes["hidden"] * (classes + 17)
    return 3 * 2 * batch * forward
