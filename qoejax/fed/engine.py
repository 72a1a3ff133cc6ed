"""Compiled rounds: cohorts, the client axis, meshes. JAX; the only file with ``shard_map``.

The client axis has three modes that change speed and memory, and results by rounding only:

    turn    one client after the other; each pays for its own steps
    chunk   ``chunk`` clients at once under ``vmap``; a chunk pays for its longest client, so
            clients are ordered by their number of steps
    shard   clients are dealt to the devices of a mesh by their number of steps, in turn on each

Within one mode the same configuration gives the same bits on CPU, however rounds are grouped into
blocks, across a restart, and whether or not deltas leave the device between the two halves.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Integer, Key

from qoejax.data.cohort import cohort as make_cohort
from qoejax.data.cohort import sample
from qoejax.fed.aggregate import Aggregator
from qoejax.fed.client import ClientUpdate
from qoejax.fed.round import (
    Algorithm,
    ForEach,
    Local,
    ServerState,
    in_turn,
    init_state,
    make_halves,
    round_keys,
)
from qoejax.types import Cohort, Examples, Params, Sums

AXIS = "clients"
SLICES = 8
"""Pieces in which a cohort is handed out by default, so that a host can work beside the device."""


class Engine(NamedTuple):
    """Jitted functions of one run; ``key`` is always the run's own, never folded by the caller.

    Attributes:
      init: ``(params) -> state`` before round 0.
      place: ``(tree) -> tree`` on the engine's devices; do this once with the staged examples.
      cohort_for: ``(round, key) -> cohort`` of K clients; padding has client id -1.
      slices: ``(cohort) -> [cohort, ...]`` in order, of equal length.
      local: ``(state, examples, slice, key) -> Local``, leaves [k, *].
      server: ``(state, cohort, deltas, arrived, parts, key) -> (state, metrics)``: ``deltas`` are
        [K, *param] in the cohort's order, ``arrived`` is bool[K], ``parts`` are the ``Local`` of
        the slices, whose own deltas are ignored. Takes over the buffers of ``state``.
      block: ``(state, examples, key, rounds) -> (state, metrics [rounds])`` in one dispatch. Takes
        over the buffers of ``state``.
      size: K, padding included.
    """

    init: Callable[[Params], ServerState]
    place: Callable[[Any], Any]
    cohort_for: Callable[..., Cohort]
    slices: Callable[[Cohort], list[Cohort]]
    local: Callable[..., Local]
    server: Callable[..., tuple[ServerState, Sums]]
    block: Callable[..., tuple[ServerState, Sums]]
    size: int


class _Axis(NamedTuple):
    """How one mode runs the client axis."""

    for_each: ForEach
    multiple: int  # a slice's length is a multiple of this
    arrange: Callable[[Cohort], Cohort]
    mesh: Mesh | None


def make_engine(
    *,
    client_update: ClientUpdate,
    aggregator: Aggregator,
    server_opt: optax.GradientTransformation,
    schedule: Callable[[Any], Any],
    offset: Integer[np.ndarray, " P"],
    count: Integer[np.ndarray, " P"],
    cohort_size: int,
    batch_size: int,
    epochs: int | None = None,
    steps: int | None = None,
    weight: Literal["examples", "uniform"] = "examples",
    client_axis: str = "turn",
    chunk: int = 4,
    devices: Sequence[Any] | None = None,
    slice_size: int | None = None,
) -> Engine:
    """Builds the engine of a run.

    Args:
      client_update: The clients' algorithm.
      aggregator: Makes one delta of many.
      server_opt: Applies it.
      schedule: Multiplier of the clients' learning rate as a function of the round.
      offset: First row of each of the P clients in the staged examples.
      count: Rows of each client, at least 1.
      cohort_size: Clients of a round, sampled uniformly without replacement.
      batch_size: Rows of a local step.
      epochs: Local epochs, or
      steps: local steps; exactly one of the two.
      weight: A client's weight: its number of rows, or 1.
      client_axis: "turn", "chunk" or "shard".
      chunk: Clients at once, for "chunk".
      devices: Devices of the mesh, for "shard"; all by default.
      slice_size: Clients of a slice; by default about an eighth of the cohort.

    Raises:
      ValueError: an argument that cannot work; the sentence names it.
    """
    _check_population(offset, count, cohort_size)
    if (epochs is None) == (steps is None) or (epochs or steps or 0) < 1:
        raise ValueError(f"expected epochs or steps, at least 1, got {epochs} and {steps}")
    axis = _axis(client_axis, chunk, devices)
    multiple = axis.multiple
    piece = slice_size or multiple * -(-cohort_size // (multiple * SLICES))
    if piece < 1 or piece % multiple:
        raise ValueError(f"slice_size is {piece}: expected a multiple of {multiple}")
    size = piece * -(-cohort_size // piece)
    starts, counts = jnp.asarray(offset, jnp.int32), jnp.asarray(count, jnp.int32)

    def cohort_for(number: Array, key: Key[Array, ""]) -> Cohort:
        ids = jnp.arange(cohort_size, dtype=jnp.int32)
        if cohort_size < len(counts):
            ids = sample(round_keys(key, number).cohort, len(counts), cohort_size)
        ids = jnp.pad(ids, (0, size - cohort_size), constant_values=-1)
        return axis.arrange(
            make_cohort(
                ids, starts, counts,
                batch_size=batch_size, epochs=epochs, steps=steps, weight=weight,
            )
        )  # fmt: skip

    def slices(cohort: Cohort) -> list[Cohort]:
        host = jax.device_get(cohort)
        return [
            jax.tree.map(lambda leaf, a=a: leaf[a : a + piece], host) for a in range(0, size, piece)
        ]

    algorithm = Algorithm(client_update, aggregator, server_opt, schedule)
    place, local, server, block = _compile(algorithm, axis, cohort_for, size)
    return Engine(
        init=lambda params: place(init_state(algorithm, params, len(counts))),
        place=place,
        cohort_for=jax.jit(cohort_for),
        slices=slices,
        local=local,
        server=server,
        block=block,
        size=size,
    )


def _compile(
    algorithm: Algorithm, axis: _Axis, cohort_for: Callable, size: int
) -> tuple[Callable, Callable, Callable, Callable]:
    """``place, local, server, block`` for one mesh, or for the default device."""
    local_fn, server_fn = make_halves(algorithm, axis.for_each)
    everywhere = NamedSharding(axis.mesh, PartitionSpec()) if axis.mesh else None
    split = NamedSharding(axis.mesh, PartitionSpec(AXIS)) if axis.mesh else None

    def pin(tree: Any, sharding: NamedSharding | None) -> Any:
        return tree if sharding is None else jax.lax.with_sharding_constraint(tree, sharding)

    def place(tree: Any) -> Any:
        return jax.device_put(tree, everywhere)

    def finish(
        state: ServerState, cohort: Cohort, local: Local, arrived: Bool[Array, " K"], key: Array
    ) -> tuple[ServerState, Sums]:
        # Both paths enter here with the same layout, hence sum in the same order.
        rest = pin((local.client_state, local.sums), everywhere)
        local = Local(pin(local.deltas, split), *rest)
        return pin(server_fn(state, cohort, local, arrived, key), everywhere)

    def server_fn_parts(
        state: ServerState, cohort: Cohort, deltas: Params, arrived: Array, parts: Any, key: Array
    ) -> tuple[ServerState, Sums]:
        rest = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *pin(parts, everywhere))
        return finish(state, cohort, Local(deltas, *rest), arrived, key)

    def block_fn(
        state: ServerState, examples: Examples, key: Key[Array, ""], rounds: int
    ) -> tuple[ServerState, Sums]:
        def one(state: ServerState, _: None) -> tuple[ServerState, Sums]:
            cohort = cohort_for(state.round, key)
            local = local_fn(state, examples, cohort, key)
            return finish(state, cohort, local, jnp.ones((size,), bool), key)

        return jax.lax.scan(one, state, length=rounds)

    jit_local = jax.jit(local_fn, out_shardings=split)
    jit_server = jax.jit(server_fn_parts, donate_argnums=0)
    jit_block = jax.jit(block_fn, donate_argnums=0, static_argnums=3)

    def local(state: ServerState, examples: Examples, cohort: Cohort, key: Array) -> Local:
        if cohort.weight.shape[0] % axis.multiple:
            raise ValueError(
                f"a slice of {cohort.weight.shape[0]} clients: expected a multiple of "
                f"{axis.multiple}"
            )
        return jit_local(*place((state, examples, cohort, key)))

    def server(
        state: ServerState,
        cohort: Cohort,
        deltas: Params,
        arrived: Any,
        parts: Sequence[Local],
        key: Array,
    ) -> tuple[ServerState, Sums]:
        kept = tuple((part.client_state, part.sums) for part in parts)
        deltas = jax.device_put(deltas, split)
        state, cohort, arrived, key = place((state, cohort, jnp.asarray(arrived), key))
        return jit_server(state, cohort, deltas, arrived, kept, key)

    def block(
        state: ServerState, examples: Examples, key: Array, rounds: int
    ) -> tuple[ServerState, Sums]:
        if rounds < 1:
            raise ValueError(f"a block needs at least 1 round, got {rounds}")
        return jit_block(*place((state, examples, key)), rounds)

    return place, local, server, block


def chunked(chunk: int) -> ForEach:
    """``chunk`` clients at once; the number of clients is a multiple of it."""

    def for_each(fn: Callable[[Any, Any], Any], shared: Any, items: Any) -> Any:
        return jax.lax.map(lambda item: fn(shared, item), items, batch_size=chunk)

    return for_each


def sharded(mesh: Mesh) -> ForEach:
    """A contiguous share of the clients on each device, in turn there."""

    def for_each(fn: Callable[[Any, Any], Any], shared: Any, items: Any) -> Any:
        return jax.shard_map(
            lambda shared, items: in_turn(fn, shared, items),
            mesh=mesh,
            in_specs=(PartitionSpec(), PartitionSpec(AXIS)),
            out_specs=PartitionSpec(AXIS),
            check_vma=False,  # no collective inside; clients differ between devices by intent
        )(shared, items)

    return for_each


def deal(cohort: Cohort, devices: int) -> Cohort:
    """The cohort in device-major order, all devices with about the same number of steps.

    Clients sorted by steps are dealt there and back, like cards; a device's share stays sorted,
    so neighbours, which make a slice, are alike too. K is a multiple of ``devices``.
    """
    rows = cohort.steps.shape[0] // devices
    place = np.arange(rows * devices).reshape(rows, devices)
    place[1::2] = place[1::2, ::-1]
    order = jnp.argsort(-cohort.steps, stable=True)[place.T.reshape(-1)]
    return jax.tree.map(lambda leaf: leaf[order], cohort)


def _axis(client_axis: str, chunk: int, devices: Sequence[Any] | None) -> _Axis:
    if client_axis == "turn":
        return _Axis(in_turn, 1, lambda cohort: cohort, None)
    if client_axis == "chunk":
        if chunk < 1:
            raise ValueError(f"chunk is {chunk}: expected at least 1")
        return _Axis(chunked(chunk), chunk, lambda cohort: deal(cohort, 1), None)
    if client_axis == "shard":
        devices = list(jax.devices() if devices is None else devices)
        mesh = jax.make_mesh((len(devices),), (AXIS,), (AxisType.Auto,), devices=devices)
        return _Axis(sharded(mesh), len(devices), lambda c: deal(c, len(devices)), mesh)
    raise ValueError(f"client_axis is {client_axis!r}: expected turn, chunk or shard")


def _check_population(offset: np.ndarray, count: np.ndarray, cohort_size: int) -> None:
    offset, count = np.asarray(offset), np.asarray(count)
    if offset.shape != count.shape or offset.ndim != 1:
        raise ValueError(
            f"expected one offset and one count per client, got {offset.shape} and {count.shape}"
        )
    if len(empty := np.flatnonzero(count < 1)):
        raise ValueError(f"client {empty[0]} has no rows; every client needs at least one")
    if not 1 <= cohort_size <= len(count):
        raise ValueError(f"cohort_size is {cohort_size}: expected 1 to {len(count)}")
