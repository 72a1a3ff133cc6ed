"""ChaCha20 (RFC 8439) on the device, for simulating many masking clients at once. JAX.

JAX's own generator has a 64-bit key and no cryptographic review: never masks. Real clients use
AES-CTR on the host (`wire.secagg.masks`); this is for whole cohorts in one compiled program.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

_CONSTANTS = np.frombuffer(b"expand 32-byte k", "<u4")
_COLUMNS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
_DIAGONALS = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
WORDS = 16
"""32-bit words of a block."""


def _rotate(x: Array, by: int) -> Array:
    return (x << np.uint32(by)) | (x >> np.uint32(32 - by))


def quarter_round(
    a: UInt32[Array, "*B"], b: UInt32[Array, "*B"], c: UInt32[Array, "*B"], d: UInt32[Array, "*B"]
) -> tuple[Array, Array, Array, Array]:
    """RFC 8439, section 2.1."""
    a = a + b
    d = _rotate(d ^ a, 16)
    c = c + d
    b = _rotate(b ^ c, 12)
    a = a + b
    d = _rotate(d ^ a, 8)
    c = c + d
    b = _rotate(b ^ c, 7)
    return a, b, c, d


def blocks(
    key: UInt32[Array, "8"], nonce: UInt32[Array, "3"], counter: UInt32[Array, " B"]
) -> UInt32[Array, "B 16"]:
    """The blocks of these counters (RFC 8439, section 2.3); words of key and nonce little-endian.

    Word by word over all counters, so that a vector unit works on as many blocks at once.
    """
    shape = counter.shape
    fixed = [*jnp.asarray(_CONSTANTS), *key]
    first = [jnp.broadcast_to(word, shape) for word in fixed]
    first += [counter, *(jnp.broadcast_to(word, shape) for word in nonce)]

    def double_round(_: Array, words: tuple[Array, ...]) -> tuple[Array, ...]:
        state = list(words)
        for places in _COLUMNS + _DIAGONALS:
            mixed = quarter_round(*(state[p] for p in places))
            for place, word in zip(places, mixed, strict=True):
                state[place] = word
        return tuple(state)

    last = jax.lax.fori_loop(0, 10, double_round, tuple(first))
    return jnp.stack([a + b for a, b in zip(first, last, strict=True)], axis=1)


def keystream(
    key: UInt32[Array, "8"], length: int, nonce: UInt32[Array, "3"] | None = None
) -> UInt32[Array, " N"]:
    """``length`` words from counter 0 on: one key masks one vector of at most 256 GiB."""
    counter = jnp.arange(-(-length // WORDS), dtype=jnp.uint32)
    zero = jnp.zeros(3, jnp.uint32)
    return blocks(key, zero if nonce is None else nonce, counter).reshape(-1)[:length]
