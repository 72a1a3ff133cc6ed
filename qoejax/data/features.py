"""``preprocess.apply`` as a function that compiles: raw columns to features inside a program. JAX.

The statistics become constants of the program. Cells of rank maps are found by comparing the raw
float32 values with the knots, exactly as on the host, and logarithms of quotients replace
differences of logarithms: float32 then agrees with the host's float64 to about 1e-6.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from qoejax.data import candidates
from qoejax.data.preprocess import Stats
from qoejax.data.scaling import LIMIT, View

_BEYOND = np.finfo(np.float32).max
Part = Callable[[Float[Array, "N T D"]], Float[Array, "N T P"]]


def make(stats: Stats) -> Callable[[Float[Array, "N T D"]], Float[Array, "N T F"]]:
    """A pure function with the outputs of ``preprocess.apply(stats, x)``.

    It cannot refuse what is wrong: the caller checks that cells are finite, and codes of their
    vocabularies.
    """
    kinds: dict[Callable[[Stats, list[int]], Part], list[int]] = {}
    for f, output in enumerate(stats.outputs):
        view = output.view
        make_part = _membership if view is None else _ranks if len(view.knots) else _affine
        kinds.setdefault(make_part, []).append(f)
    parts = [make_part(stats, fs) for make_part, fs in kinds.items()]
    order = np.argsort([f for fs in kinds.values() for f in fs])

    def apply(x: Float[Array, "N T D"]) -> Float[Array, "N T F"]:
        return jnp.concatenate([part(x) for part in parts], axis=-1)[..., order]

    return apply


def _views(stats: Stats, fs: list[int]) -> tuple[list[View], np.ndarray]:
    views = [v for f in fs if (v := stats.outputs[f].view) is not None]
    return views, np.array([stats.outputs[f].column for f in fs])


def _affine(stats: Stats, fs: list[int]) -> Part:
    views, columns = _views(stats, fs)
    log = np.array([v.log for v in views])
    shift, scale = (np.array([getattr(v, n) for v in views], np.float32) for n in View._fields[1:3])

    def apply(x: Array) -> Array:
        values = x[..., columns]
        like = values.shape
        plain = jnp.where(jnp.broadcast_to(log, like), _signed_log(values), values)
        centred = plain - jnp.broadcast_to(shift, like)
        return jnp.clip(centred / jnp.broadcast_to(scale, like), -LIMIT, LIMIT)

    return apply


def _ranks(stats: Stats, fs: list[int]) -> Part:
    views, columns = _views(stats, fs)
    most = max(2, *(len(v.knots) for v in views))
    knots = np.full((len(fs), most), _BEYOND, np.float32)
    targets = np.zeros((len(fs), most), np.float32)
    for i, view in enumerate(views):
        count = len(view.knots)
        knots[i, :count], targets[i, :count] = view.knots, view.targets
        targets[i, count:] = view.targets[-1]
    last = np.array([max(0, len(v.knots) - 2) for v in views])
    first = most * np.arange(len(fs))

    def apply(x: Array) -> Array:
        values = x[..., columns]
        above = values[..., None] >= jnp.broadcast_to(knots, (*values.shape, most))
        cell = above.sum(-1, dtype=jnp.int32) - 1
        cell = jnp.clip(cell, 0, jnp.broadcast_to(last, cell.shape).astype(jnp.int32))
        at = cell + jnp.broadcast_to(first, cell.shape).astype(jnp.int32)
        low, high = jnp.asarray(knots).ravel()[at], jnp.asarray(knots).ravel()[at + 1]
        left, right = jnp.asarray(targets).ravel()[at], jnp.asarray(targets).ravel()[at + 1]
        share = jnp.clip(_log_gap(values, low) / _log_gap(high, low), 0.0, 1.0)
        return left + share * (right - left)

    return apply


def _membership(stats: Stats, fs: list[int]) -> Part:
    columns = np.array([stats.outputs[f].column for f in fs])
    sizes = [stats.sizes[c] for c in columns]
    table = np.zeros((len(fs), max(sizes)), np.float32)
    for i, f in enumerate(fs):
        table[i, : sizes[i]] = candidates.membership(stats.outputs[f].codes, sizes[i])
    first = table.shape[1] * np.arange(len(fs))

    def apply(x: Array) -> Array:
        codes = x[..., columns].astype(jnp.int32)
        at = codes + jnp.broadcast_to(first, codes.shape).astype(jnp.int32)
        return jnp.asarray(table).ravel()[at]

    return apply


def _signed_log(values: Array) -> Array:
    return jnp.copysign(jnp.log1p(jnp.abs(values)), values)


def _log_gap(a: Array, b: Array) -> Array:
    """Difference of the signed logs, without cancellation where the signs agree."""
    size_a, size_b = jnp.abs(a), jnp.abs(b)
    sign = jnp.where((a < 0) | (b < 0), -1.0, 1.0)  # that both share; 0 goes with either
    close = sign * jnp.log1p((size_a - size_b) / (1.0 + size_b))
    return jnp.where(a * b >= 0, close, _signed_log(a) - _signed_log(b))
