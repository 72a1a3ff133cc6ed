"""The client axis: who runs where, how many at once, and in what order sums come about. JAX.

The only file with ``shard_map``. An axis is a number of devices, each with a contiguous share of
the cohort, which it works off in chunks of ``chunk`` clients:

    turn    one device, one client at a time; each pays for its own steps
    chunk   one device, ``chunk`` clients at a time under ``vmap``; a chunk pays for its longest
            client, so clients are ordered by their number of steps
    shard   all devices of a mesh, to which clients are dealt by their number of steps; in turn on
            each, or ``chunk`` at a time
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from qoejax.fed.homes import Homes
from qoejax.fed.state import ServerState
from qoejax.types import Cohort, Examples

AXIS = "clients"
EVERYWHERE, SPLIT = PartitionSpec(), PartitionSpec(AXIS)
ALIGNMENT = 64
"""Bytes; XLA's CPU devices use a host buffer that starts at a multiple of these as it is."""

ForEach = Callable[..., tuple[Any, Any]]
"""``for_each(fn, shared, items, gather, like) -> (total, kept)``.

``fn(shared, item)`` of every item, leaves [K, *] of ``items``. ``gather(total, shared, items,
results) -> (total, kept)`` sees k of them at a time: leaves of ``kept`` are [k, *] and come back
stacked [K, *]; ``total``, of the shapes of ``like``, starts at zero and goes from chunk to chunk.
By default results are kept.
"""


def keep(total: Any, shared: Any, items: Any, results: Any) -> tuple[Any, Any]:
    """Keeps all results; nothing is added up."""
    del shared, items
    return total, results


def in_chunks(chunk: int) -> ForEach:
    """``chunk`` clients at a time, of which K is a multiple."""

    def for_each(
        fn: Callable, shared: Any, items: Any, gather: Callable = keep, like: Any = ()
    ) -> tuple[Any, Any]:
        def step(total: Any, items: Any) -> tuple[Any, Any]:
            return gather(total, shared, items, _some(fn, chunk, shared, items))

        start = jax.tree.map(jnp.zeros_like, like)
        total, kept = jax.lax.scan(step, start, _folded(items, chunk))
        return total, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), kept)

    return for_each


def _folded(items: Any, chunk: int) -> Any:
    return jax.tree.map(lambda leaf: leaf.reshape(-1, chunk, *leaf.shape[1:]), items)


def _some(fn: Callable, chunk: int, shared: Any, items: Any) -> Any:
    """A single client is not batched: vmapped, a loop of its own length would become masked."""
    if chunk > 1:
        return jax.vmap(fn, in_axes=(None, 0))(shared, items)
    one = fn(shared, jax.tree.map(lambda leaf: leaf[0], items))
    return jax.tree.map(lambda leaf: leaf[None], one)


in_turn = in_chunks(1)


def sharded(mesh: Mesh, chunk: int = 1, rows: PartitionSpec = EVERYWHERE) -> ForEach:
    """A contiguous share of the clients on each device, ``chunk`` at a time there.

    Totals meet once, when all devices are done. ``rows`` says how ``Examples`` lie, wherever they
    are among what is shared; all else that is shared is on every device.
    """
    inner = in_chunks(chunk)

    def is_rows(node: Any) -> bool:
        return isinstance(node, Examples)

    def for_each(
        fn: Callable, shared: Any, items: Any, gather: Callable = keep, like: Any = ()
    ) -> tuple[Any, Any]:
        def share(shared: Any, like: Any, items: Any) -> tuple[Any, Any]:
            total, kept = inner(fn, shared, items, gather, like)
            return jax.lax.psum(total, AXIS), kept

        return jax.shard_map(
            share,
            mesh=mesh,
            in_specs=(
                jax.tree.map(lambda n: rows if is_rows(n) else EVERYWHERE, shared, is_leaf=is_rows),
                EVERYWHERE,
                SPLIT,
            ),
            out_specs=(EVERYWHERE, SPLIT),
            check_vma=False,  # clients differ between devices by intent
        )(shared, like, items)

    return for_each


class Axis(NamedTuple):
    """How one mode runs the client axis."""

    for_each: ForEach = in_turn
    multiple: int = 1  # a slice's length is a multiple of this
    arrange: Callable[[Cohort], Cohort] = lambda cohort: cohort
    whole: NamedSharding | None = None  # everything on every device; None: the default device
    split: NamedSharding | None = None  # each device has its share of the clients
    homes: Homes | None = None  # rows and clients' states are on one device each

    def put(self, tree: Any) -> Any:
        """``tree`` on every device; what is there already is not copied."""
        return _laid(tree, self.whole)

    @property
    def own(self) -> NamedSharding | None:
        """The layout of rows and of clients' states."""
        return self.whole if self.homes is None else self.split

    def put_state(self, state: ServerState) -> ServerState:
        """``state`` where its parts belong."""
        kept = _laid(state.client_state, self.own)
        return self.put(state._replace(client_state=()))._replace(client_state=kept)

    def put_rows(self, examples: Examples) -> Examples:
        """Rows that ``place`` has placed, or the same from elsewhere."""
        if self.homes is not None and len(examples.label) != self.homes.rows.size:
            raise ValueError(
                f"examples have {len(examples.label)} rows: expected the {self.homes.rows.size} "
                "that Engine.place makes of the staged ones"
            )
        return _laid(examples, self.own)

    def states(self, population: int) -> int:
        """States to keep for so many clients: devices have equal numbers of them."""
        devices = 1 if self.homes is None else len(self.homes.rows)
        return devices * -(-population // devices)

    def place(self, examples: Examples) -> Examples:
        """Staged rows where they will be read; CPU devices of one process share one copy.

        With homes, every device gets its own clients' rows, and a process reads those of its own
        devices only (``homes.rows``): others may be absent, as in a sparse or mapped file.
        """
        homes, split = self.homes, self.split
        if homes is not None and split is not None:
            return jax.tree.map(lambda leaf: _slabs(homes, split, leaf), examples)
        if self.whole is None or not _one_memory(self.whole):
            return _laid(examples, self.whole)
        once = jax.tree.map(lambda leaf: _aligned(np.asarray(leaf)), examples)
        return jax.device_put(once, self.whole, may_alias=True)

    def pin(self, tree: Any) -> Any:
        """``tree`` on every device, inside compiled code."""
        return tree if self.whole is None else jax.lax.with_sharding_constraint(tree, self.whole)

    def gather(self, tree: Any) -> Any:
        """As ``pin``, of leaves [K, *] that are small: all that share a dtype go in one exchange.

        Between CPU devices each is a meeting of their threads, however small. Flags go as floats.
        """
        if self.whole is None:
            return tree
        leaves, shape = jax.tree.flatten(tree)
        kinds = [jnp.dtype(jnp.float32) if v.dtype == bool else v.dtype for v in leaves]
        for kind in dict.fromkeys(kinds):
            own = [i for i, k in enumerate(kinds) if k == kind]
            rows = [leaves[i].astype(kind).reshape(len(leaves[i]), -1) for i in own]
            columns = np.cumsum([row.shape[1] for row in rows])[:-1].tolist()
            parts = jnp.split(self.pin(jnp.concatenate(rows, axis=1)), columns, axis=1)
            for i, part in zip(own, parts, strict=True):
                leaves[i] = part.reshape(leaves[i].shape).astype(leaves[i].dtype)
        return jax.tree.unflatten(shape, leaves)

    def pin_state(self, state: ServerState) -> ServerState:
        """As ``put_state``, inside compiled code."""
        kept = state.client_state
        if self.own is not None:
            kept = jax.lax.with_sharding_constraint(kept, self.own)
        return self.pin(state._replace(client_state=()))._replace(client_state=kept)


TURN = Axis()


def make_axis(
    client_axis: str,
    chunk: int,
    devices: Sequence[Any] | None,
    places: int,
    homes: Homes | None = None,
) -> Axis:
    """The axis of a mode for cohorts of ``places`` clients, padding apart.

    Raises:
      ValueError: a mode that does not exist, a chunk below 1, or homes without a mesh.
    """
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}: expected at least 1")
    if homes is not None and client_axis != "shard":
        raise ValueError(f"client_axis is {client_axis!r}: placement 'home' wants 'shard'")
    if client_axis == "turn":
        return TURN
    if client_axis == "chunk":
        chunk = min(chunk, places)
        return Axis(in_chunks(chunk), chunk, lambda cohort: deal(cohort, 1))
    if client_axis != "shard":
        raise ValueError(f"client_axis is {client_axis!r}: expected turn, chunk or shard")
    devices = list(jax.devices() if devices is None else devices)
    mesh = jax.make_mesh((len(devices),), (AXIS,), (AxisType.Auto,), devices=devices)
    layouts = NamedSharding(mesh, EVERYWHERE), NamedSharding(mesh, SPLIT)
    if homes is None:
        chunk = min(chunk, -(-places // len(devices)))
        return Axis(
            sharded(mesh, chunk), len(devices) * chunk,
            lambda cohort: deal(cohort, len(devices)), *layouts,
        )  # fmt: skip
    share = min(homes.most, places)  # all of a cohort may live on one device
    chunk = min(chunk, share)
    return Axis(
        sharded(mesh, chunk, SPLIT), len(devices) * chunk * -(-share // chunk),
        lambda cohort: send_home(cohort, homes.device, len(devices)), *layouts, homes,
    )  # fmt: skip


def deal(cohort: Cohort, devices: int) -> Cohort:
    """The cohort in device-major order, all devices with about the same number of steps.

    Clients sorted by steps are dealt there and back, like cards; a device's share stays sorted,
    so neighbours, which make a slice or a chunk, are alike too. K is a multiple of ``devices``.
    """
    rows = cohort.steps.shape[0] // devices
    place = np.arange(rows * devices).reshape(rows, devices)
    place[1::2] = place[1::2, ::-1]
    order = jnp.argsort(-cohort.steps, stable=True)[place.T.reshape(-1)]
    return jax.tree.map(lambda leaf: leaf[order], cohort)


def send_home(cohort: Cohort, device: Int[np.ndarray, " P"], devices: int) -> Cohort:
    """The cohort in device-major order, each client on its own device, padding behind them.

    K is a multiple of ``devices`` and leaves each device places enough. Those of a device are
    sorted by steps.
    """
    size, real = len(cohort.client_id), cohort.client_id >= 0
    home = jnp.where(real, jnp.asarray(device)[jnp.maximum(cohort.client_id, 0)], devices)
    order = jnp.lexsort((-cohort.steps, home))
    home = home[order]
    rank = jnp.arange(size) - jnp.searchsorted(home, home)
    place = jnp.where(home < devices, home * (size // devices) + rank, size)
    source = jnp.full(size, size).at[place].set(order, mode="drop")
    out = jax.tree.map(lambda leaf: leaf.at[source].get(mode="fill", fill_value=0), cohort)
    return out._replace(client_id=jnp.where(source < size, out.client_id, -1))


def _slabs(homes: Homes, split: NamedSharding, leaf: Any) -> jax.Array:
    devices, longest = homes.rows.shape

    def own(index: Any) -> np.ndarray:
        return np.asarray(leaf[homes.rows.reshape(-1)[index[0]]])

    return jax.make_array_from_callback((devices * longest, *leaf.shape[1:]), split, own)


def _one_memory(sharding: NamedSharding) -> bool:
    """Whether all devices are CPU devices of this process."""
    cpu = all(d.platform == "cpu" for d in sharding.mesh.devices.flat)
    return cpu and sharding.is_fully_addressable


def _laid(tree: Any, sharding: NamedSharding | None) -> Any:
    """``tree`` in that layout; across processes each hands over what its own devices hold."""
    leaves, structure = jax.tree.flatten(tree)
    # device_put of what is there already takes a millisecond for a small model, each round.
    if all(_is_there(leaf, sharding) for leaf in leaves):
        return tree
    if sharding is None or sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    laid = [_across(sharding, leaf) for leaf in leaves]
    return jax.tree.unflatten(structure, laid)


def _is_there(leaf: Any, sharding: NamedSharding | None) -> bool:
    """Whether it is an array in that layout; what is traced (``sweep``) has none."""
    concrete = isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)
    return concrete and leaf.sharding == sharding


def _across(sharding: NamedSharding, leaf: Any) -> jax.Array:
    """A value that every process has, on devices of all of them."""
    if _is_there(leaf, sharding):
        return leaf
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = _across(sharding, jax.random.key_data(leaf))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _aligned(leaf: np.ndarray) -> np.ndarray:
    """The array where a device can use it in place: itself, or a copy."""
    if leaf.flags.c_contiguous and leaf.ctypes.data % ALIGNMENT == 0:
        return leaf
    raw = np.empty(leaf.nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    out = raw[start : start + leaf.nbytes].view(leaf.dtype).reshape(leaf.shape)
    out[...] = leaf
    return out
