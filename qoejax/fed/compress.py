"""Smaller messages: what a client sends instead of its delta, and how the server reads it. JAX.

A compressor's message is a tree of small arrays, packed to the bit: its bytes are the bytes on the
wire. Clients compress inside their compiled half of a round and the server decodes inside its own,
so a round gives the same bits whether or not messages travel in between.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Key, UInt8, UInt32

from qoejax.fed.protocol import ClientUpdate, Coding
from qoejax.types import Params

BLOCK = 256
"""Numbers that share one scale when quantised."""


class Compressor(NamedTuple):
    """An ``init/update`` pair, and its inverse.

    ``init(params) -> memory``: what one client keeps from round to round. ``update(delta, memory,
    key) -> (message, memory)``. ``decode(message, params) -> delta``, a tree like ``params``. The
    message of a delta that is not finite decodes to one that is not.
    """

    init: Callable[[Params], Any]
    update: Callable[[Params, Any, Key[Array, ""]], tuple[Any, Any]]
    decode: Callable[[Any, Params], Params]


class Memory(NamedTuple):
    """What a client keeps: its algorithm's own state, and its compressor's."""

    own: Any
    compressor: Any


def pack(codes: UInt32[Array, " N"], bits: int) -> UInt8[Array, " M"]:
    """Numbers below 2**bits, ``bits`` bits each and nothing between: M = ceil(N * bits / 8)."""
    if bits == 8:
        return codes.astype(jnp.uint8)
    places = jnp.arange(bits, dtype=jnp.uint32)
    return jnp.packbits(((codes[:, None] >> places[None]) & 1).astype(jnp.uint8).reshape(-1))


def unpack(packed: UInt8[Array, " M"], bits: int, count: int) -> UInt32[Array, " N"]:
    """Inverse of ``pack`` for N = ``count`` numbers."""
    if bits == 8:
        return packed.astype(jnp.uint32)
    places = jnp.arange(bits, dtype=jnp.uint32)
    digits = jnp.unpackbits(packed, count=count * bits).reshape(count, bits).astype(jnp.uint32)
    return (digits << places[None]).sum(axis=1, dtype=jnp.uint32)


def _stateless(encode: Callable[[Params, Array], Any], decode: Callable) -> Compressor:
    return Compressor(lambda params: (), lambda d, m, key: (encode(d, key), m), decode)


def quantise(bits: int) -> Compressor:
    """Stochastic rounding to 2**bits - 1 levels between plus and minus a block's largest number.

    Unbiased, and off by less than one level: ``max|block| / (2**(bits - 1) - 1)`` (QSGD with the
    maximum norm, Alistarh et al. 2017). One float32 for ``BLOCK`` numbers on top of the bits.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"bits is {bits}: expected 2 to 8")
    top = 2 ** (bits - 1) - 1

    def encode(delta: Params, key: Array) -> dict[str, Array]:
        flat, _ = ravel_pytree(delta)
        rows = jnp.pad(flat, (0, -flat.size % BLOCK)).reshape(-1, BLOCK)
        scale = jnp.abs(rows).max(axis=1) / top
        steps = rows / jnp.where(scale > 0, scale, 1.0)[:, None]
        level = jnp.floor(steps + jax.random.uniform(key, rows.shape))
        codes = (jnp.clip(level, -top, top) + top).astype(jnp.uint32).reshape(-1)
        return {"codes": pack(codes[: flat.size], bits), "scale": scale}

    def decode(message: dict[str, Array], params: Params) -> Params:
        flat, unravel = ravel_pytree(params)
        codes = unpack(message["codes"], bits, flat.size).astype(jnp.float32) - top
        rows = jnp.pad(codes, (0, -flat.size % BLOCK)).reshape(-1, BLOCK)
        return unravel((rows * message["scale"][:, None]).reshape(-1)[: flat.size])

    return _stateless(encode, decode)


def top_k(fraction: float) -> Compressor:
    """The largest numbers by magnitude, as float32 with their places; the others are zero.

    A place takes ceil(log2(size)) bits. Biased: use it ``with_feedback`` (Stich et al. 2018).
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction}: expected more than 0, at most 1")

    def kept(size: int) -> tuple[int, int]:
        return max(1, round(fraction * size)), max(1, math.ceil(math.log2(size)))

    def encode(delta: Params, key: Array) -> dict[str, Array]:
        del key
        flat, _ = ravel_pytree(delta)
        count, bits = kept(flat.size)
        _, place = jax.lax.top_k(jnp.nan_to_num(jnp.abs(flat), nan=jnp.inf), count)
        return {"place": pack(place.astype(jnp.uint32), bits), "value": flat[place]}

    def decode(message: dict[str, Array], params: Params) -> Params:
        flat, unravel = ravel_pytree(params)
        place = unpack(message["place"], kept(flat.size)[1], kept(flat.size)[0])
        return unravel(jnp.zeros_like(flat).at[place].set(message["value"], mode="drop"))

    return _stateless(encode, decode)


def low_rank(rank: int) -> Compressor:
    """Every matrix as two thin ones, by a random range finder (Halko et al. 2011, section 4.1).

    A leaf of shape [..., n] counts as a matrix of n columns; it is sent as it is where that is
    smaller. The error is at most the leaf's own norm. Biased: use it ``with_feedback``
    (PowerSGD, Vogels et al. 2019, starts its range from the round before instead of afresh).
    """
    if rank < 1:
        raise ValueError(f"rank is {rank}: expected at least 1")

    def thin(leaf: Array) -> bool:
        columns = leaf.shape[-1] if leaf.ndim > 1 else 1
        return rank * (leaf.size // max(columns, 1) + columns) < leaf.size

    def encode(delta: Params, key: Array) -> list[dict[str, Array]]:
        leaves = jax.tree.leaves(delta)
        message = []
        for leaf, one in zip(leaves, jax.random.split(key, len(leaves)), strict=True):
            if not thin(leaf):
                message.append({"whole": leaf})
                continue
            matrix = leaf.reshape(-1, leaf.shape[-1])
            probe = jax.random.normal(one, (matrix.shape[1], rank), matrix.dtype)
            basis, _ = jnp.linalg.qr(matrix @ probe)
            message.append({"basis": basis, "columns": basis.T @ matrix})
        return message

    def decode(message: list[dict[str, Array]], params: Params) -> Params:
        leaves, structure = jax.tree.flatten(params)
        out = [
            m["whole"] if "whole" in m else (m["basis"] @ m["columns"]).reshape(leaf.shape)
            for m, leaf in zip(message, leaves, strict=True)
        ]
        return jax.tree.unflatten(structure, out)

    return _stateless(encode, decode)


def with_feedback(compressor: Compressor) -> Compressor:
    """Adds to each delta what compression took from those before (Seide et al. 2014).

    What was decoded so far is the sum of the deltas so far minus the memory, exactly but for
    rounding, so nothing is lost for good.
    """

    def update(delta: Params, memory: Params, key: Array) -> tuple[Any, Params]:
        due = jax.tree.map(jnp.add, delta, memory)
        message, _ = compressor.update(due, (), key)
        return message, jax.tree.map(jnp.subtract, due, compressor.decode(message, due))

    return Compressor(optax.tree.zeros_like, update, compressor.decode)


COMPRESSORS: dict[str, Callable[..., Compressor]] = {
    "int8": lambda fraction, rank: quantise(8),
    "int4": lambda fraction, rank: quantise(4),
    "top_k": lambda fraction, rank: top_k(fraction),
    "low_rank": lambda fraction, rank: low_rank(rank),
}


def compressed(update: ClientUpdate, compressor: Compressor) -> ClientUpdate:
    """An algorithm whose clients send its messages as ``compressor`` codes them."""
    personal = update.personal

    def init(params: Params) -> Memory:
        return Memory(update.init(params), compressor.init(update.server.message(params)))

    def run(received, client_state, examples, client, key, lr_scale):
        own_key, key = jax.random.split(key)
        delta, own, sums = update.update(
            received, client_state.own, examples, client, own_key, lr_scale
        )
        message, memory = compressor.update(delta, client_state.compressor, key)
        return message, Memory(own, memory), sums

    def layout(message: Any) -> Any:
        one = lambda m: compressor.update(m, compressor.init(m), jax.random.key(0))[0]  # noqa: E731
        return jax.eval_shape(one, message)

    return update._replace(
        init=init,
        update=run,
        personal=personal and (lambda params, state: personal(params, state.own)),
        coding=Coding(layout, compressor.decode),
    )
