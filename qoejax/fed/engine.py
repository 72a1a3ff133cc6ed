"""Compiled rounds: cohorts, the client axis, meshes. JAX; the only file with ``shard_map``.

The client axis has three modes that change speed and memory, and results by rounding only:

    turn    one client after the other; each pays for its own steps
    chunk   ``chunk`` clients at once under ``vmap``; a chunk pays for its longest client, so
            clients are ordered by their number of steps
    shard   clients are dealt to the devices of a mesh by their number of steps, in turn on each

Within one mode the same configuration gives the same bits on CPU, however rounds are grouped into
blocks, across a restart, and whether or not deltas leave the device between the two halves.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Integer, Key

from qoejax.data.cohort import cohort as make_cohort
from qoejax.fed import participation as participations
from qoejax.fed.aggregate import Aggregator
from qoejax.fed.attacks import Adversary
from qoejax.fed.masked import Halves, make_masked
from qoejax.fed.participation import Participation
from qoejax.fed.protocol import ClientUpdate, layout
from qoejax.fed.ring import Ring
from qoejax.fed.round import ForEach, in_turn, make_halves
from qoejax.fed.state import MAX_NORM, Algorithm, Local, ServerState, Weigh, init_state, round_keys
from qoejax.types import Cohort, Examples, Params, Sums

AXIS = "clients"
EVERYONE = Participation()
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
      sent: ``(state) -> tree``: what every client of the next round is given.
      message: ``(params) -> tree`` with the layout of what one client sends, see
        ``protocol.layout``; by default that of the parameters.
      models: ``(state) -> params [P, *param]``, every client's own model; None where the global
        one is for all.
      masked: ``(ring) -> masked.Halves``, both ends of a round whose server sees sums only; they
        take the ``Local`` of the slices, as ``server`` does.
    """

    init: Callable[[Params], ServerState]
    place: Callable[[Any], Any]
    cohort_for: Callable[..., Cohort]
    slices: Callable[[Cohort], list[Cohort]]
    local: Callable[..., Local]
    server: Callable[..., tuple[ServerState, Sums]]
    block: Callable[..., tuple[ServerState, Sums]]
    size: int
    sent: Callable[[ServerState], Any]
    message: Callable[[Params], Any]
    models: Callable[[ServerState], Params] | None
    masked: Callable[[Ring], Halves]


class _Axis(NamedTuple):
    """How one mode runs the client axis."""

    for_each: ForEach
    multiple: int  # a slice's length is a multiple of this
    arrange: Callable[[Cohort], Cohort]
    whole: NamedSharding | None = None  # everything on every device; None: the default device
    split: NamedSharding | None = None  # each device has its share of the clients

    def place(self, tree: Any) -> Any:
        """``tree`` on every device; what is there already is not copied."""
        return jax.device_put(tree, self.whole)

    def pin(self, tree: Any, sharding: NamedSharding | None) -> Any:
        """``tree`` in that layout, inside compiled code."""
        return tree if sharding is None else jax.lax.with_sharding_constraint(tree, sharding)


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
    weight: str = "examples",
    participation: Participation = EVERYONE,
    weigh: Weigh | None = None,
    staleness_power: float = 0.5,
    client_axis: str = "turn",
    chunk: int = 4,
    devices: Sequence[Any] | None = None,
    slice_size: int | None = None,
    max_norm: float = MAX_NORM,
    adversary: Adversary | None = None,
) -> Engine:
    """Builds the engine of a run.

    Args:
      client_update: The clients' algorithm.
      aggregator: Makes one delta of many.
      server_opt: Applies it.
      schedule: Multiplier of the clients' learning rate as a function of the round.
      offset: First row of each of the P clients in the staged examples.
      count: Rows of each client, at least 1.
      cohort_size: Clients of a round; their expected number under Poisson sampling.
      batch_size: Rows of a local step.
      epochs: Local epochs, or
      steps: local steps; exactly one of the two.
      weight: A client's weight: its number of rows ("examples"), or 1 ("uniform").
      participation: Who may be sampled, and who does less than asked.
      weigh: Judges the clients by what they sent; see ``state.Algorithm``.
      staleness_power: See ``state.Algorithm``.
      client_axis: "turn", "chunk" or "shard".
      chunk: Clients at once, for "chunk".
      devices: Devices of the mesh, for "shard"; all by default.
      slice_size: Clients of a slice; by default about an eighth of the cohort.
      max_norm: The largest Euclidean norm of a delta that counts.
      adversary: Who is malicious, and how; nobody by default.

    Raises:
      ValueError: an argument that cannot work; the sentence names it.
    """
    _check(offset, count, cohort_size, epochs, steps, weight)
    participations.check(participation, len(count), cohort_size)
    if cohort_size < aggregator.least:
        raise ValueError(
            f"cohort_size is {cohort_size}: the aggregator needs {aggregator.least} clients a "
            "round to tolerate as many Byzantine ones as it was told to expect"
        )
    axis = _axis(client_axis, chunk, devices)
    places = participations.places(participation, len(count), cohort_size)
    piece = _piece(slice_size, places, axis.multiple)
    size = piece * -(-places // piece)
    cohort_for = _cohorts(
        offset, count, participation, cohort_size, size, axis.arrange,
        batch_size=batch_size, epochs=epochs, steps=steps, weight=weight,
    )  # fmt: skip
    algorithm = Algorithm(
        client_update, aggregator, server_opt, schedule, max_norm=max_norm, adversary=adversary,
        weigh=weigh, staleness_power=staleness_power,
    )  # fmt: skip
    plan = participation.schedule
    history = 0 if plan is None else int(plan.staleness.max()) + 1
    local_fn, server_fn = make_halves(algorithm, axis.for_each)
    finish = _finish(server_fn, axis)
    local, server = _apart(local_fn, finish, axis)
    return Engine(
        init=lambda params: axis.place(init_state(algorithm, params, len(count), history)),
        place=axis.place,
        cohort_for=jax.jit(cohort_for),
        slices=lambda cohort: _slices(cohort, piece),
        local=local,
        server=server,
        block=_fused(local_fn, finish, cohort_for, axis),
        size=size,
        sent=lambda state: client_update.server.send(state.params, state.memory),
        message=functools.partial(layout, client_update),
        models=_models(client_update),
        masked=functools.cache(lambda ring: make_masked(algorithm, ring, axis.place)),
    )


# The parts of an engine.


def _models(client_update: ClientUpdate) -> Callable[[ServerState], Params] | None:
    if client_update.personal is None:
        return None
    each = jax.vmap(client_update.personal, in_axes=(None, 0))
    return jax.jit(lambda state: each(state.params, state.client_state))


def _piece(slice_size: int | None, cohort_size: int, multiple: int) -> int:
    """Clients of a slice."""
    if slice_size is None:
        return multiple * -(-cohort_size // (multiple * SLICES))
    if slice_size < 1 or slice_size % multiple:
        raise ValueError(f"slice_size is {slice_size}: expected a multiple of {multiple}")
    return slice_size


def _slices(cohort: Cohort, piece: int) -> list[Cohort]:
    host = jax.device_get(cohort)
    starts = range(0, len(host.weight), piece)
    return [jax.tree.map(lambda leaf, a=a: leaf[a : a + piece], host) for a in starts]


def _cohorts(
    offset: Any,
    count: Any,
    participation: Participation,
    cohort_size: int,
    size: int,
    arrange: Callable[[Cohort], Cohort],
    **work: Any,
) -> Callable[..., Cohort]:
    """``cohort_for``: those that participation names by key and round, and padding."""
    offset, count = jnp.asarray(offset, jnp.int32), jnp.asarray(count, jnp.int32)

    def cohort_for(number: Array, key: Key[Array, ""]) -> Cohort:
        ids, stale = participations.choose(participation, key, number, len(count), cohort_size)
        fill = (0, size - ids.shape[0])
        cohort = make_cohort(jnp.pad(ids, fill, constant_values=-1), offset, count, **work)
        if stale is not None:
            cohort = cohort._replace(staleness=jnp.pad(stale, fill))
        draws = round_keys(key, number).cohort
        return arrange(participations.disturb(participation, draws, cohort))

    return cohort_for


def _finish(server_fn: Callable, axis: _Axis) -> Callable[..., tuple[ServerState, Sums]]:
    """The server's half in one layout: however deltas come, they are summed in the same order."""

    def finish(
        state: ServerState, cohort: Cohort, local: Local, arrived: Bool[Array, " K"], key: Array
    ) -> tuple[ServerState, Sums]:
        local = Local(
            axis.pin(local.deltas, axis.split),
            axis.pin(local.client_state, axis.whole),
            axis.pin(local.sums, axis.whole),
        )
        return axis.pin(server_fn(state, cohort, local, arrived, key), axis.whole)

    return finish


def _fused(
    local_fn: Callable, finish: Callable, cohort_for: Callable, axis: _Axis
) -> Callable[..., tuple[ServerState, Sums]]:
    """``block``: rounds in one dispatch, metrics stacked."""

    @functools.partial(jax.jit, donate_argnums=0, static_argnums=3)
    def compiled(
        state: ServerState, examples: Examples, key: Array, rounds: int
    ) -> tuple[ServerState, Sums]:
        def one(state: ServerState, _: None) -> tuple[ServerState, Sums]:
            cohort = cohort_for(state.round, key)
            local = local_fn(state, examples, cohort, key)
            return finish(state, cohort, local, jnp.ones(cohort.weight.shape, bool), key)

        return jax.lax.scan(one, state, length=rounds)

    def block(
        state: ServerState, examples: Examples, key: Array, rounds: int
    ) -> tuple[ServerState, Sums]:
        if rounds < 1:
            raise ValueError(f"a block needs at least 1 round, got {rounds}")
        return compiled(*axis.place((state, examples, key)), rounds)

    return block


def _apart(local_fn: Callable, finish: Callable, axis: _Axis) -> tuple[Callable, Callable]:
    """``local`` and ``server``: the halves of a round whose deltas leave the device in between."""
    compiled = jax.jit(local_fn, out_shardings=axis.split)

    @functools.partial(jax.jit, donate_argnums=0)
    def joined(
        state: ServerState, cohort: Cohort, deltas: Params, arrived: Array, parts: Any, key: Array
    ) -> tuple[ServerState, Sums]:
        parts = axis.pin(parts, axis.whole)
        rest = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
        return finish(state, cohort, Local(deltas, *rest), arrived, key)

    def local(state: ServerState, examples: Examples, cohort: Cohort, key: Array) -> Local:
        clients = len(cohort.weight)
        if clients % axis.multiple:
            raise ValueError(
                f"a slice of {clients} clients: expected a multiple of {axis.multiple}"
            )
        return compiled(*axis.place((state, examples, cohort, key)))

    def server(
        state: ServerState,
        cohort: Cohort,
        deltas: Params,
        arrived: Any,
        parts: Sequence[Local],
        key: Array,
    ) -> tuple[ServerState, Sums]:
        kept = tuple((part.client_state, part.sums) for part in parts)
        state, cohort, arrived, key = axis.place((state, cohort, jnp.asarray(arrived), key))
        return joined(state, cohort, jax.device_put(deltas, axis.split), arrived, kept, key)

    return local, server


# The client axis.


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
        return _Axis(in_turn, 1, lambda cohort: cohort)
    if client_axis == "chunk":
        if chunk < 1:
            raise ValueError(f"chunk is {chunk}: expected at least 1")
        return _Axis(chunked(chunk), chunk, lambda cohort: deal(cohort, 1))
    if client_axis == "shard":
        devices = list(jax.devices() if devices is None else devices)
        mesh = jax.make_mesh((len(devices),), (AXIS,), (AxisType.Auto,), devices=devices)
        return _Axis(
            sharded(mesh),
            len(devices),
            lambda cohort: deal(cohort, len(devices)),
            NamedSharding(mesh, PartitionSpec()),
            NamedSharding(mesh, PartitionSpec(AXIS)),
        )
    raise ValueError(f"client_axis is {client_axis!r}: expected turn, chunk or shard")


def _check(
    offset: np.ndarray,
    count: np.ndarray,
    cohort_size: int,
    epochs: int | None,
    steps: int | None,
    weight: str,
) -> None:
    if offset.shape != count.shape or offset.ndim != 1:
        raise ValueError(
            f"expected one offset and one count per client, got {offset.shape} and {count.shape}"
        )
    if len(empty := np.flatnonzero(count < 1)):
        raise ValueError(f"client {empty[0]} has no rows; every client needs at least one")
    if not 1 <= cohort_size <= len(count):
        raise ValueError(f"cohort_size is {cohort_size}: expected 1 to {len(count)}")
    if (epochs is None) == (steps is None) or (epochs or steps or 0) < 1:
        raise ValueError(f"expected epochs or steps, at least 1, got {epochs} and {steps}")
    if weight not in ("examples", "uniform"):
        raise ValueError(f"weight is {weight!r}: expected examples or uniform")
