"""One client of a run as a process of its own: its key, its rows, and the jitted client's half.

``Node.answer`` is bytes in, bytes out; a transport carries them. What the wire must not forget is
in a file before an answer leaves, so a client that is killed goes on when it is started again.
"""

import logging
import operator
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from qoejax.fed.engine import Engine
from qoejax.fed.state import ServerState
from qoejax.run import build, files, network, opening, train, wired
from qoejax.run.errors import RunError
from qoejax.types import Cohort, Examples
from qoejax.wire import codec, envelope, frames, keys, member, suites
from qoejax.wire.errors import EnvelopeError

LOG = logging.getLogger("qoejax")


class Local(NamedTuple):
    """What one client computes with.

    Attributes:
        client: its number.
        engine: of the run; it holds the numbers of everybody's rows, and no row.
        examples: this client's rows, and no others.
        state: before round 0, for its layout.
        key: the run's.
    """

    client: int
    engine: Engine
    examples: Examples
    state: ServerState
    key: jax.Array


def prepare(config: ml_collections.ConfigDict, client: int) -> Local:
    """The client's half of a run; the rows of all others are dropped before anything is placed.

    The dataset is read whole, because who holds which rows is part of the experiment: a device
    with data of its own would read only those.

    Raises:
      RunError, DataError: as ``train``; or there is no such client.
    """
    build.check(config)
    network.check(config)
    data = build.data(config)
    population = build.population(config, data)
    if not 0 <= client < len(population.count):
        raise RunError(f"client {client}: expected 0 to {len(population.count) - 1}")
    counts = np.bincount(data.train.label, minlength=len(data.spec.label_names))
    objective = build.objective(config, data.spec, counts)
    make_engine, _, _ = train.engines(_half(config), _without(data), population, objective)
    engine = make_engine(None)
    start = int(population.offset[client])
    end = start + int(population.count[client])
    own = jax.tree.map(lambda leaf: np.array(leaf[start:end]), population.examples)
    key = jax.random.key(config.seed)
    params = objective.init(jax.random.fold_in(key, 0), jnp.asarray(own.x[:1]))
    state = engine.init(params)
    network.check_state(engine, state)
    return Local(client, engine, engine.place(own), state, jax.random.fold_in(key, 1))


def _half(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config of an engine whose server's half is never used."""
    half = config.copy_and_resolve_references().unlock()
    half.server.update(aggregator="weighted_mean", optimizer="sgd", byzantine=0, root_rows=0)
    if half.fed.weight == "qoe":
        half.fed.weight = "examples"
    return half.lock()


def _without(data: build.Data) -> build.Data:
    """The data without the rows that only the server has."""
    return data._replace(root=None, held_out=None)


def mine(piece: Cohort, client: int) -> Cohort:
    """A slice in which all but one client are padding, and that one's rows start at 0."""
    own = np.asarray(piece.client_id) == client
    blank = Cohort(-1, 0, 0, 0, 0.0)
    kept = [np.where(own, a, np.asarray(b, a.dtype)) for a, b in zip(piece, blank, strict=False)
            if a is not None]  # fmt: skip
    return Cohort(*kept)._replace(offset=np.zeros_like(piece.offset))


def work(local: Local, number: int, model: bytes) -> tuple[bytes, int]:
    """The client's update of round ``number`` (from 0) and its number of rows.

    Args:
      local: The client.
      number: Of the round; the client draws the cohort from it, as the server does.
      model: Encoded, as announced.

    Raises:
      RunError: this client is not in the cohort of that round.
    """
    engine, like = local.engine, local.state.params
    leaves = codec.decode(wired.tree_spec(engine.sent(local.state)), model)
    params = jax.tree.unflatten(jax.tree.structure(like), [jnp.asarray(leaf) for leaf in leaves])
    state = local.state._replace(round=jnp.int32(number), params=params)
    for piece in engine.slices(engine.cohort_for(state.round, local.key)):
        (slots,) = np.nonzero(np.asarray(piece.client_id) == local.client)
        if len(slots):
            at = int(slots[0])
            out = engine.local(state, local.examples, mine(piece, local.client), local.key)
            delta = jax.tree.map(operator.itemgetter(at), jax.device_get(out.deltas))
            return wired.encoded(delta)[1], int(piece.count[at])
    raise RunError(f"client {local.client} is not in the cohort of round {number}")


class Node:
    """A client's answers.

    Args:
      config: Of the run.
      workdir: The client's own folder, for its key and what it remembers.
      client: Its number.
      server: Id of the server in hexadecimal; None takes the first that is met, for good.
      work: ``member.Work``: what it computes.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        workdir: pathlib.Path,
        client: int,
        server: str | None,
        work: member.Work,
    ):
        c = config.exchange
        self._client, self._work = client, work
        self._agreed = network.agreement(config)
        self._path = workdir / "state.cbor"
        self._state = _remembered(self._path)
        opening.self_test(config)
        one = opening.identity(config, workdir / "keys" / "identity.key")
        chosen = suites.suite(c.suite, c.unsafe)
        known = keys.key_id(self._state.server) if self._state.server else b""
        self._setup = member.Setup(
            one, _pinned(server, known), c.suite, c.unsafe, c.signer,
            suites.kem_provider(chosen, c.kem_provider),
        )  # fmt: skip

    @property
    def id(self) -> bytes:
        """Id of this client's key."""
        return self._setup.identity.id

    def answer(self, question: bytes) -> bytes:
        """The answer to a question of the server; empty to one that cannot be believed.

        Raises:
          RunError: the server is configured otherwise; no answer would be of use.
        """
        try:
            asked = frames.parse(question)
            if isinstance(asked, frames.Who):
                return self._who(asked)
            return self._turn(asked)
        except EnvelopeError as error:
            LOG.warning("client %d does not answer: %s", self._client, error)
            return b""

    def _who(self, asked: frames.Who) -> bytes:
        if not self._setup.server:
            pinned = keys.key_id(asked.server)
            LOG.warning("pinned the server that was met first: %s", pinned.hex())
            self._setup = self._setup._replace(server=pinned)
        state = member.meet(self._setup, self._state, asked)
        if asked.config != self._agreed:
            raise RunError(
                "the server's configuration is another: expected the same --config and overrides "
                "at both ends"
            )
        self._keep(state)
        setup = self._setup
        return frames.join(asked, setup.identity, self._client, setup.suite)

    def _turn(self, turn: frames.Turn) -> bytes:
        start = time.perf_counter()
        state, data = member.answer(self._setup, self._state, turn, self._work, int(time.time()))
        self._keep(state)
        hello = envelope.unpack(data).type == envelope.HELLO
        LOG.info(
            "round %d: %s of %d bytes after %.2f s",
            envelope.unpack(data).round + 1, "HELLO" if hello else "UPDATE", len(data),
            time.perf_counter() - start,
        )  # fmt: skip
        return data

    def _keep(self, state: member.State) -> None:
        files.write_bytes(self._path, member.pack(state))
        self._state = state


def _remembered(path: pathlib.Path) -> member.State:
    if not path.exists():
        return member.State()
    try:
        return member.parse(path.read_bytes())
    except (EnvelopeError, OSError) as error:
        raise RunError(f"{path} cannot be read: {error}") from None


def _pinned(server: str | None, known: bytes) -> bytes:
    """Id of the server: as given, or the one that is remembered; empty if there is neither."""
    if server is None:
        return known
    try:
        wanted = bytes.fromhex(server)
    except ValueError:
        wanted = b""
    if len(wanted) != keys.ID_SIZE:
        raise RunError(f"server {server!r}: expected {2 * keys.ID_SIZE} hexadecimal digits")
    return wanted


def open_node(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, client: int, server: str | None
) -> Callable[[bytes], bytes]:
    """``Node.answer`` of one client, everything prepared.

    Raises:
      RunError, DataError: bad config, unwritable folder, no such client, unusable key.
    """
    workdir = files.writable_folder(workdir, "workdir")
    local = prepare(config, client)
    compute: Any = lambda number, model: work(local, number, model)  # noqa: E731
    node = Node(config, workdir, client, server, compute)
    LOG.info("client %d: key %s, %d rows", client, node.id.hex(), len(local.examples.label))
    return node.answer
