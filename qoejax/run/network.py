"""The server's side of a run whose clients are other processes.

A transport (``qoejax.run.flower``, or plain sockets in the tests) hands over one ``Ask`` for every
connection; nothing here knows what it runs on. ``Gate`` finds out who is at the other end;
``collect`` takes the place of the simulated clients in ``wired.run_round``, so everything else,
``server_step`` and the log included, is what a simulated run does, and the parameters agree to
the bit.
"""

import logging
import os
import pathlib
import threading
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from qoejax.fed.engine import Engine
from qoejax.fed.state import Local, ServerState
from qoejax.run import build, files, transparency, wired
from qoejax.run.errors import RunError
from qoejax.wire import cbor, enrolment, frames, keys
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.host import Host

LOG = logging.getLogger("qoejax")

Ask = Callable[[bytes, float], bytes]
"""``ask(question, seconds) -> answer`` of one connection; OSError when it is lost or too late."""

TRIES = 3
"""Answers of one client that may be refused in a round before the server stops asking it; of any
answers, twice as many."""

WHO_SECONDS = 30.0
"""For the answer to who is there."""


class Patience(NamedTuple):
    """Seconds that the server waits: for all clients to join, and for the answers of a round."""

    joining: float = 600.0
    round: float = 120.0


class Terms(NamedTuple):
    """What connections are let in by.

    Attributes:
      server: public key of the server.
      agreed: ``agreement`` of the configuration.
      clients: number of clients, 0 to N-1.
      suite: number of the suite that all must be enrolled for.
      roster: file that keeps which key is which client, from the first time on.
      verifier: provider that verifies.
    """

    server: bytes
    agreed: bytes
    clients: int
    suite: int
    roster: pathlib.Path
    verifier: str = "pqcrypto"


def agreement(config: ml_collections.ConfigDict) -> bytes:
    """Digest [32] of what both ends must have configured alike: not paths, not who signs how."""
    plain = build.plain_config(config)
    own = {"exchange", "evaluation", "checkpoint"}
    shared = {section: values for section, values in plain.items() if section not in own}
    shared["data"] = {k: v for k, v in plain["data"].items() if k not in ("dir", "manual_dir")}
    return transparency.config_digest(shared)


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses what has no meaning, or not yet, where clients are other processes.

    Raises:
      RunError: names the key, its value and what was expected.
    """
    wants = [
        ("exchange.mode", config.exchange.mode == "pqc", "'pqc'"),
        ("perf.client_axis", config.perf.client_axis != "auto", "a mode that all ends share"),
        ("calibration.share", not config.calibration.share, "0.0: its sums do not travel yet"),
        ("perf.placement", config.perf.placement == "copies", "'copies'"),
    ]
    for key, good, expected in wants:
        if not good:
            section, name = key.split(".")
            raise RunError(
                f"config.{key} is {config[section][name]!r}, but the clients are other processes: "
                f"expected {expected}"
            )


def check_state(engine: Engine, state: ServerState) -> None:
    """Refuses algorithms whose clients keep something, or are given more than the parameters.

    Raises:
      RunError: names the key.
    """
    given = jax.tree.structure(engine.sent(state))
    if jax.tree.leaves(state.client_state) or given != jax.tree.structure(state.params):
        raise RunError(
            "config.fed.algorithm: its clients keep a state, or are given more than the "
            "parameters, which clients in other processes cannot do yet: expected one such as "
            "'fedavg' or 'fedprox'"
        )


class Gate:
    """Who is connected: asks every new connection, and lets in those who may take part.

    Connections may come before the run has begun; they wait.

    Args:
      registry: those whom the authority enrolled; None takes every key the first time it is shown.
      patience: how long to wait.
    """

    def __init__(self, registry: keys.Registry | None, patience: Patience = Patience()):  # noqa: B008
        self.patience = patience
        self._enrolled = registry
        self._terms: Terms | None = None
        self._entries: dict[int, keys.Entry] = {}
        self._links: dict[int, Ask] = {}
        self._changed = threading.Condition()

    def begin(self, terms: Terms) -> None:
        """From here on connections are let in, on these terms.

        Raises:
          RunError: the list of clients that an earlier process of the run left cannot be read.
        """
        with self._changed:
            self._entries, self._terms = _read_roster(terms.roster), terms
            self._changed.notify_all()

    def arrived(self, ask: Ask) -> bool:
        """Asks a new connection who it is; whether it was let in."""
        with self._changed:
            self._changed.wait_for(lambda: self._terms is not None, self.patience.joining)
            terms = self._terms
        if terms is None:
            return False
        asked = frames.Who(os.urandom(32), terms.server, terms.agreed)
        try:
            found = frames.joined(asked, ask(frames.pack(asked), WHO_SECONDS), terms.verifier)
            with self._changed:
                self._admit(found, terms)
                self._links[found.client] = ask
                self._changed.notify_all()
        except (EnvelopeError, OSError) as error:
            LOG.warning("a connection was turned away: %s", error)
            return False
        LOG.info("client %d joined: %s", found.client, found.entry.id.hex())
        return True

    def _admit(self, found: frames.Join, terms: Terms) -> None:
        """SENDER unless this key is, or from now on is, this client's."""
        number, name, who = found.client, found.entry.id, f"client {found.client}"
        if number >= terms.clients:
            raise EnvelopeError(Code.SENDER, f"{who}: there are clients 0 to {terms.clients - 1}")
        pool = self._enrolled or keys.Registry({name: found.entry}, frozenset())
        entry = pool.entries.get(name, found.entry)
        keys.lookup(pool, name, entry.epoch, terms.suite, int(time.time()))
        taken = {entry.id: i for i, entry in self._entries.items()}
        known = self._entries.get(number)
        if taken.get(name, number) != number or (known is not None and known.id != name):
            raise EnvelopeError(
                Code.SENDER, f"{who}: it has another key, or this key another number"
            )
        if known is None:
            self._entries[number] = entry
            _write_roster(terms.roster, self._entries)

    def everybody(self) -> tuple[list[bytes], keys.Registry]:
        """Ids in order and the run's registry, once every client has joined at least once.

        Raises:
          RunError: some have not in time; names them.
        """
        with self._changed:
            terms = self._terms
            if terms is None:
                raise ValueError("begin first")
            all_here = lambda: len(self._entries) == terms.clients  # noqa: E731
            if not self._changed.wait_for(all_here, self.patience.joining):
                missing = sorted(set(range(terms.clients)) - self._entries.keys())
                raise RunError(
                    f"client(s) {', '.join(map(str, missing))} did not join within "
                    f"{self.patience.joining:g} s: expected one process for each of "
                    f"{terms.clients} clients"
                )
            entries = [self._entries[i] for i in range(terms.clients)]
        return [entry.id for entry in entries], keys.register(entries, terms.verifier)

    def link(self, index: int, seconds: float) -> Ask | None:
        """The connection of a client, waiting for it if need be; None if it does not come."""
        with self._changed:
            self._changed.wait_for(lambda: index in self._links, max(0.0, seconds))
            return self._links.get(index)

    def lost(self, index: int, ask: Ask) -> None:
        """Forgets a connection, unless a newer one has taken its place."""
        with self._changed:
            if self._links.get(index) is ask:
                del self._links[index]


def _read_roster(path: pathlib.Path) -> dict[int, keys.Entry]:
    if not path.exists():
        return {}
    try:
        rows: Any = cbor.decode(path.read_bytes())
        return {int(number): enrolment.unpack_entry(entry) for number, entry in rows}
    except (EnvelopeError, TypeError, ValueError) as error:
        raise RunError(f"{path} cannot be read as the run's clients: {error}") from None


def _write_roster(path: pathlib.Path, entries: dict[int, keys.Entry]) -> None:
    rows = [[number, enrolment.pack_entry(entries[number])] for number in sorted(entries)]
    files.write_bytes(path, cbor.encode(rows))


class Remote:
    """A ``Host`` and the connections to its clients: what ``wired.run_round`` calls an exchange."""

    def __init__(self, host: Host, gate: Gate):
        self._host, self._gate = host, gate
        self.facts, self.begin_round = host.facts, host.begin_round
        self.finish_round = host.finish_round
        self.report: dict[str, Any] = {}

    def collect(
        self,
        engine: Engine,
        state: ServerState,
        examples: Any,
        cohort: Any,
        key: jax.Array,
    ) -> list[Local]:
        """Asks every client of the cohort; what it keeps for itself is zeros to the server.

        Returns when all updates are there, or the round's patience is over.
        """
        start = time.monotonic()
        deadline = start + self._gate.patience.round
        ids, weight = np.asarray(cohort.client_id), np.asarray(cohort.weight)
        wanted = [int(i) for i, w in zip(ids, weight, strict=True) if i >= 0 and w > 0]
        with futures.ThreadPoolExecutor(max(1, len(wanted)), "ask") as pool:
            done = list(pool.map(lambda i: self._attend(i, deadline), wanted))
        silent = [i for i in wanted if not self._host.has(i)]
        if silent:
            LOG.warning("no update from client(s) %s", ", ".join(map(str, silent)))
        self.report = {
            "silent": silent,
            "asked_again": sum(again for again, _ in done),
            "lost": sum(lost for _, lost in done),
            "collect_s": round(time.monotonic() - start, 6),
        }
        pieces = engine.slices(cohort)
        return [_nothing(engine, state, examples, piece, key) for piece in pieces]

    def _attend(self, index: int, deadline: float) -> tuple[int, int]:
        """Asks one client until its update is there; how often again, and connections lost."""
        asked = refused = lost = 0
        while not self._host.has(index) and refused < TRIES and asked - lost < 2 * TRIES:
            ask = self._gate.link(index, deadline - time.monotonic())
            left = deadline - time.monotonic()
            if ask is None or left <= 0:
                break
            asked += 1
            try:
                data = ask(frames.pack(self._host.turn(index)), left)
                if not data:
                    raise EnvelopeError(Code.FORMAT, "nothing to say to the announcement")
                self._host.receive(index, data)
            except OSError as error:
                lost += 1
                self._gate.lost(index, ask)
                LOG.warning("client %d: connection lost: %s", index, error)
            except EnvelopeError as error:
                refused += 1
                LOG.warning("client %d: refused: %s", index, error)
        return max(0, asked - 1), lost


def run_round(
    engine: Engine,
    remote: Remote,
    state: ServerState,
    examples: Any,
    key: jax.Array,
    ledger: transparency.Ledger | None = None,
) -> tuple[ServerState, dict[str, Any], dict[str, Any]]:
    """``wired.run_round`` with the clients at the other end; its report has a ``network``."""
    state, metrics, wire = wired.run_round(
        engine, remote, state, examples, key, ledger, remote.collect
    )
    return state, metrics, wire | {"network": remote.report}


def _nothing(engine: Engine, state: ServerState, examples: Any, piece: Any, key: Any) -> Local:
    """What stays with a client, as zeros: the server's half wants it, and ignores its deltas."""
    shapes = jax.eval_shape(engine.local, state, examples, piece, key)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return Local((), zeros.client_state, zeros.sums)
