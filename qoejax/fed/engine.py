"""Compiled rounds: cohorts, blocks of rounds, and rounds in two halves. JAX.

How the clients of a round share devices (``fed.axis``) changes speed and memory, and results by
rounding only. The same configuration gives the same bits on CPU, however rounds are grouped into
blocks, across a restart, and whether or not deltas leave the device between the two halves.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Integer, Key

from qoejax.data.cohort import cohort as make_cohort
from qoejax.fed import participation as participations
from qoejax.fed.aggregate import Aggregator
from qoejax.fed.attacks import Adversary
from qoejax.fed.axis import Axis, make_axis
from qoejax.fed.homes import Homes, settle
from qoejax.fed.masked import Coding, Halves, make_masked
from qoejax.fed.participation import Participation
from qoejax.fed.protocol import ClientUpdate, layout
from qoejax.fed.round import make_halves, make_round
from qoejax.fed.state import (
    MAX_NORM,
    Algorithm,
    Local,
    ServerState,
    Weigh,
    init_state,
    round_keys,
)
from qoejax.types import Cohort, Examples, Params, Sums

EVERYONE = Participation()
SLICES = 8
"""Pieces in which a cohort is handed out by default, so that a host can work beside the device."""


class Engine(NamedTuple):
    """Jitted functions of one run; ``key`` is always the run's own, never folded by the caller.

    Attributes:
      init: ``(params) -> state`` before round 0.
      place: ``(examples) -> examples`` on the engine's devices; do this once with the staged rows,
        and leave NumPy leaves alone afterwards: CPU devices may read them where they are.
      put: ``(key) -> key`` on all devices; as it is it works too, but is laid out anew each block.
      cohort_for: ``(round, key) -> cohort`` of K clients; padding has client id -1.
      slices: ``(cohort) -> [cohort, ...]`` in order, of equal length; one with homes.
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
      lower: What ``block`` compiles, for its cost and memory, with the same arguments; None where
        a block is more than one program.
      homes: Where each client lives, with ``placement`` "home": a process needs the staged rows
        ``homes.rows[d]`` of its own devices d, and ``place`` reads no others.
    """

    init: Callable[[Params], ServerState]
    place: Callable[[Any], Any]
    put: Callable[[Any], Any]
    cohort_for: Callable[..., Cohort]
    slices: Callable[[Cohort], list[Cohort]]
    local: Callable[..., Local]
    server: Callable[..., tuple[ServerState, Sums]]
    block: Callable[..., tuple[ServerState, Sums]]
    size: int
    sent: Callable[[ServerState], Any]
    message: Callable[[Params], Any]
    models: Callable[[ServerState], Params] | None
    masked: Callable[[Coding], Halves]
    lower: Callable[..., jax.stages.Lowered] | None = None
    homes: Homes | None = None


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
    chunk: int = 1,
    devices: Sequence[Any] | None = None,
    slice_size: int | None = None,
    max_norm: float = MAX_NORM,
    adversary: Adversary | None = None,
    placement: str = "copies",
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
      chunk: Clients at once on a device, for "chunk" and "shard"; at most a device's share.
      devices: Devices of the mesh, for "shard"; all by default.
      slice_size: Clients of a slice; by default about an eighth of the cohort.
      max_norm: The largest Euclidean norm of a delta that counts.
      adversary: Who is malicious, and how; nobody by default.
      placement: "copies": all rows and clients' states on every device of a mesh. "home": each
        client's on one device (``fed.homes``), where it is trained; a small cohort may then keep
        some devices waiting, and the memory of all rows is that of one copy.

    Raises:
      ValueError: an argument that cannot work; the sentence names it.
    """
    _check(offset, count, cohort_size, epochs, steps, weight, aggregator.least)
    participations.check(participation, len(count), cohort_size)
    places = participations.places(participation, len(count), cohort_size)
    homes = _homes(placement, offset, count, devices)
    axis = make_axis(client_axis, chunk, devices, places, homes)
    piece = _piece(slice_size, places, axis.multiple)
    size = piece * -(-places // piece)
    held = axis.put(_held(offset if homes is None else homes.offset, count))
    cohort_for = _cohorts(
        participation, cohort_size, size, axis.arrange,
        batch_size=batch_size, epochs=epochs, steps=steps, weight=weight,
    )  # fmt: skip
    algorithm = Algorithm(
        client_update, aggregator, server_opt, schedule, max_norm=max_norm, adversary=adversary,
        weigh=weigh, staleness_power=staleness_power, population=len(count),
    )  # fmt: skip
    plan = participation.schedule
    history = 0 if plan is None else int(plan.staleness.max()) + 1
    states = axis.states(len(count))
    local, server = _apart(algorithm, axis)
    block, lower = _fused(make_round(algorithm, axis), cohort_for, axis, held)
    cohort_of = jax.jit(cohort_for)
    return Engine(
        init=lambda params: axis.put_state(init_state(algorithm, params, states, history)),
        place=axis.place,
        put=axis.put,
        cohort_for=lambda number, key: cohort_of(number, key, held),
        slices=lambda cohort: cut(jax.device_get(cohort), piece),
        local=local,
        server=server,
        block=block,
        size=size,
        sent=lambda state: client_update.server.send(state.params, state.memory),
        message=functools.partial(layout, client_update),
        models=_models(client_update, len(count)),
        masked=functools.cache(lambda ring: make_masked(algorithm, ring, axis)),
        lower=lower,
        homes=homes,
    )


# The parts of an engine.


def _homes(
    placement: str, offset: np.ndarray, count: np.ndarray, devices: Sequence[Any] | None
) -> Homes | None:
    if placement == "copies":
        return None
    if placement != "home":
        raise ValueError(f"placement is {placement!r}: expected copies or home")
    return settle(offset, count, len(jax.devices() if devices is None else devices))


def _models(client_update: ClientUpdate, population: int) -> Callable[[ServerState], Params] | None:
    if client_update.personal is None:
        return None
    each = jax.vmap(client_update.personal, in_axes=(None, 0))

    @jax.jit
    def models(state: ServerState) -> Params:
        return each(state.params, jax.tree.map(lambda s: s[:population], state.client_state))

    return models


def _piece(slice_size: int | None, cohort_size: int, multiple: int) -> int:
    """Clients of a slice."""
    if slice_size is None:
        return multiple * -(-cohort_size // (multiple * SLICES))
    if slice_size < 1 or slice_size % multiple:
        raise ValueError(f"slice_size is {slice_size}: expected a multiple of {multiple}")
    return slice_size


def cut(cohort: Cohort, piece: int) -> list[Cohort]:
    """The cohort (NumPy leaves) in slices of ``piece`` clients; the last may have fewer."""
    starts = range(0, len(cohort.weight), piece)
    return [jax.tree.map(lambda leaf, a=a: leaf[a : a + piece], cohort) for a in starts]


def _held(offset: Any, count: Any) -> tuple[Array, Array]:
    """Which rows are whose, as arrays: not a part of what is compiled."""
    return jnp.asarray(offset, jnp.int32), jnp.asarray(count, jnp.int32)


def _cohorts(
    participation: Participation,
    cohort_size: int,
    size: int,
    arrange: Callable[[Cohort], Cohort],
    **work: Any,
) -> Callable[..., Cohort]:
    """Those that participation names by key and round, and padding; last comes ``_held``."""

    def cohort_for(number: Array, key: Key[Array, ""], held: tuple[Array, Array]) -> Cohort:
        offset, count = held
        ids, stale = participations.choose(participation, key, number, len(count), cohort_size)
        fill = (0, size - ids.shape[0])
        cohort = make_cohort(jnp.pad(ids, fill, constant_values=-1), offset, count, **work)
        if stale is not None:
            cohort = cohort._replace(staleness=jnp.pad(stale, fill))
        draws = round_keys(key, number).cohort
        return arrange(participations.disturb(participation, draws, cohort))

    return cohort_for


def _fused(
    round_fn: Callable, cohort_for: Callable, axis: Axis, held: tuple[Array, Array]
) -> tuple[Callable, Callable]:
    """``block`` and ``lower``: rounds in one dispatch, metrics stacked."""

    @functools.partial(jax.jit, donate_argnums=0, static_argnums=4)
    def compiled(
        state: ServerState, examples: Examples, key: Array, held: Any, rounds: int
    ) -> tuple[ServerState, Sums]:
        def one(state: ServerState, _: None) -> tuple[ServerState, Sums]:
            # Pinned, lest each device sums its part of the weights and asks the others for theirs.
            cohort = axis.pin(cohort_for(state.round, key, held))
            state, sums = round_fn(state, examples, cohort, key)
            return axis.pin_state(state), axis.pin(sums)

        return jax.lax.scan(one, state, length=rounds)

    def placed(state: ServerState, examples: Examples, key: Array) -> tuple[Any, ...]:
        return axis.put_state(state), axis.put_rows(examples), axis.put(key), held

    def block(
        state: ServerState, examples: Examples, key: Array, rounds: int
    ) -> tuple[ServerState, Sums]:
        if rounds < 1:
            raise ValueError(f"a block needs at least 1 round, got {rounds}")
        return compiled(*placed(state, examples, key), rounds)

    def lower(state: ServerState, examples: Examples, key: Array, rounds: int) -> Any:
        return compiled.lower(*placed(state, examples, key), rounds)

    return block, lower


def _apart(algorithm: Algorithm, axis: Axis) -> tuple[Callable, Callable]:
    """``local`` and ``server``: the halves of a round whose deltas leave the device in between."""
    local_fn, server_fn = make_halves(algorithm, axis)
    compiled = jax.jit(local_fn, out_shardings=axis.split)

    @functools.partial(jax.jit, donate_argnums=0)
    def joined(
        state: ServerState, cohort: Cohort, deltas: Params, arrived: Array, parts: Any, key: Array
    ) -> tuple[ServerState, Sums]:
        rest = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *axis.pin(parts))
        state, sums = server_fn(state, cohort, Local(deltas, *rest), arrived, key)
        return axis.pin_state(state), axis.pin(sums)

    def local(state: ServerState, examples: Examples, cohort: Cohort, key: Array) -> Local:
        clients = len(cohort.weight)
        if clients % axis.multiple:
            raise ValueError(
                f"a slice of {clients} clients: expected a multiple of {axis.multiple}"
            )
        return compiled(axis.put_state(state), axis.put_rows(examples), *axis.put((cohort, key)))

    def server(
        state: ServerState,
        cohort: Cohort,
        deltas: Params,
        arrived: Any,
        parts: Sequence[Local],
        key: Array,
    ) -> tuple[ServerState, Sums]:
        kept = tuple((part.client_state, part.sums) for part in parts)
        cohort, arrived, key = axis.put((cohort, jnp.asarray(arrived), key))
        state = axis.put_state(state)
        return joined(state, cohort, jax.device_put(deltas, axis.split), arrived, kept, key)

    return local, server


def _check(
    offset: np.ndarray,
    count: np.ndarray,
    cohort_size: int,
    epochs: int | None,
    steps: int | None,
    weight: str,
    least: int = 1,
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
    if cohort_size < least:
        raise ValueError(
            f"cohort_size is {cohort_size}: the aggregator needs {least} clients a round to "
            "tolerate as many Byzantine ones as it was told to expect"
        )
