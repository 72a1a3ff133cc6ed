"""Rounds that give the same bits on any number of devices. JAX.

Bits of compiled code depend on its shapes, on what is computed together and on the order of sums.
Here neither the devices nor the cohort's order or slices decide any of these:

- Clients train in one executable for ``chunk`` of them, in turn within it; chunks are dispatched to
  the devices by turns. So a client's delta depends on neither its place nor its neighbours.
- The server's half is one executable of the whole cohort on one device, and is given the clients
  by their ids. So rules, attacks and metrics see one order, whatever order clients were asked in.
- Means are exact (``aggregate.exact``), so that a sum's order does not matter to begin with.

What is left is the size of XLA's pool of CPU threads, which decides how large operations are cut
up: whoever starts JAX has to fix it (``run.threads``).

The price: each device compiles the chunk's executable for itself and holds all rows and all
clients' states, and one device holds the deltas of the whole cohort.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array

from qoejax.fed import engine
from qoejax.fed.engine import SLICES, Engine, cut
from qoejax.fed.state import Local, ServerState
from qoejax.types import Cohort, Examples, Params, Sums


class _Devices(NamedTuple):
    """Where chunks go: to each of ``each`` by turns; ``each[0]`` is the server's too."""

    each: list[Any]
    all: NamedSharding  # everything on every device

    def copies(self, tree: Any) -> list[Any]:
        """``tree`` on each device by itself; what is there already is not copied."""
        spread = jax.device_put(tree, self.all)
        return [jax.tree.map(lambda leaf, d=d: _on(leaf, d), spread) for d in self.each]

    def home(self, tree: Any) -> Any:
        """``tree`` on the server's device."""
        return jax.device_put(tree, self.each[0])


def _on(leaf: Array, device: Any) -> Array:
    return next(s.data for s in leaf.addressable_shards if s.device == device)


def make_engine(*, chunk: int = 4, devices: Sequence[Any] | None = None, **options: Any) -> Engine:
    """An engine whose bits do not depend on devices, the cohort's order or its slices.

    Args:
      chunk: Clients of one dispatch. Changing it may change the last bits.
      devices: Those that train; all by default.
      options: As for ``engine.make_engine``, without ``client_axis`` and ``slice_size``.

    Raises:
      ValueError: an argument that cannot work, or several processes; the sentence names it.
    """
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}: expected at least 1")
    if jax.process_count() > 1:
        raise ValueError("client_axis is 'strict', which runs in one process: expected 'shard'")
    if options.get("placement", "copies") != "copies":
        raise ValueError(
            f"placement is {options['placement']!r}: expected 'copies', since with client_axis "
            "'strict' any device may train any client"
        )
    one = engine.make_engine(client_axis="turn", slice_size=1, **options)
    each = list(jax.devices() if devices is None else devices)
    mesh = jax.make_mesh((len(each),), ("devices",), (AxisType.Auto,), devices=each)
    on = _Devices(each, NamedSharding(mesh, PartitionSpec()))
    piece = chunk * len(each)
    piece *= -(-one.size // (piece * SLICES))
    local, server = _local(one, on, chunk), _server(one, on)
    return one._replace(
        init=lambda params: on.home(one.init(params)),
        place=lambda tree: jax.device_put(tree, on.all),
        cohort_for=lambda number, key: one.cohort_for(on.home(number), on.home(key)),
        slices=lambda cohort: cut(jax.device_get(cohort), piece),
        local=local,
        server=server,
        block=_block(one, on, local, server),
        lower=None,
    )


def _local(one: Engine, on: _Devices, chunk: int) -> Any:
    """``Engine.local``: chunks by turns on the devices, clients with most steps first."""

    def local(state: ServerState, examples: Examples, cohort: Cohort, key: Array) -> Local:
        host = jax.device_get(cohort)
        order = np.argsort(-host.steps, kind="stable")
        chunks = cut(_padded(jax.tree.map(lambda leaf: leaf[order], host), chunk), chunk)
        # Only the server reads the rest of the state.
        sent = on.copies(state._replace(agg_state=(), opt_state=(), attack_state=()))
        rows, keys = on.copies(examples), on.copies(key)
        turn = [c % len(on.each) for c in range(len(chunks))]
        parts = [
            one.local(sent[d], rows[d], jax.device_put(c, on.each[d]), keys[d])
            for c, d in zip(chunks, turn, strict=True)
        ]
        return _pick(on.home(parts), on.home(np.argsort(order)))

    return local


def _padded(cohort: Cohort, chunk: int) -> Cohort:
    """With clients that are none, up to a multiple of ``chunk``."""
    missing = -len(cohort.weight) % chunk
    rest = jax.tree.map(lambda leaf: np.zeros(missing, leaf.dtype), cohort)
    rest = rest._replace(client_id=rest.client_id - 1)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), cohort, rest)


@jax.jit
def _pick(parts: Sequence[Any], index: Array) -> Any:
    """Entries ``index`` of the parts put together; moves numbers, computes none."""
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[index], *parts)


def _server(one: Engine, on: _Devices) -> Any:
    """``Engine.server`` with the clients by their ids."""

    def server(
        state: ServerState,
        cohort: Cohort,
        deltas: Params,
        arrived: Any,
        parts: Sequence[Local],
        key: Array,
    ) -> tuple[ServerState, Sums]:
        cohort = jax.device_get(cohort)
        order = np.argsort(cohort.client_id, kind="stable")
        cohort = jax.tree.map(lambda leaf: leaf[order], cohort)
        home = on.home((state, cohort, np.asarray(arrived)[order], key))
        deltas = _pick([on.home(deltas)], on.home(order))
        rest = _pick([on.home(part._replace(deltas=())) for part in parts], on.home(order))
        return one.server(*home[:2], deltas, home[2], [rest], home[3])

    return server


def _block(one: Engine, on: _Devices, local: Any, server: Any) -> Any:
    """``Engine.block``: the two halves, round after round."""

    def block(
        state: ServerState, examples: Examples, key: Array, rounds: int
    ) -> tuple[ServerState, Sums]:
        if rounds < 1:
            raise ValueError(f"a block needs at least 1 round, got {rounds}")
        state, metrics, first = on.home(state), [], int(state.round)
        for number in range(first, first + rounds):
            cohort = jax.device_get(one.cohort_for(np.int32(number), key))
            part = local(state, examples, cohort, key)
            arrived = np.ones(one.size, bool)
            state, sums = server(state, cohort, part.deltas, arrived, [part], key)
            metrics.append(sums)
        return state, jax.tree.map(lambda *leaves: jnp.stack(leaves), *metrics)

    return block
