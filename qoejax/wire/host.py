"""The server's end of an exchange whose clients are elsewhere.

``begin_round`` announces; ``turn`` is what to ask one client; ``receive`` takes whatever came back,
in any order and from any number of threads, one message after the other; ``finish_round`` says what
came out, in the form that a simulated exchange gives. No JAX, and no network either.
"""

import math
import os
import threading
import time
from collections.abc import Sequence

from qoejax.wire import announce, broadcast, client, codec, kem, keys, manifest, server
from qoejax.wire.clock import Clock
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.frames import Turn, sign_turn
from qoejax.wire.keys import Identity, Registry
from qoejax.wire.log.records import Facts
from qoejax.wire.secret import Secret
from qoejax.wire.suites import Suite
from qoejax.wire.tally import RoundResult, Tally


class Host:
    """One run's server: chains, sessions and slots of clients 0 to N-1.

    Args:
        identity: signs for the server.
        ids: id of each client, in order of number.
        registry: who may send; all of ``ids`` are in it.
        spec: layout of an update.
        suite: the run's one suite.
        session: rounds that a session lasts; 0 signs every update instead.
        confidential: encrypt the model to those who take part.
        max_norm: largest L2 norm of an update; infinity for none.
        unsafe: allow the plaintext and classical suites.
        verifier: provider that verifies.
        kem_provider: provider of the KEM.
    """

    def __init__(
        self,
        identity: Identity,
        ids: Sequence[bytes],
        registry: Registry,
        spec: codec.TreeSpec,
        suite: Suite,
        *,
        session: int = 0,
        confidential: bool = False,
        max_norm: float = math.inf,
        unsafe: bool = False,
        verifier: str = "pqcrypto",
        kem_provider: str = "pqcrypto",
    ):
        self._identity, self._registry, self._spec, self._suite = identity, registry, spec, suite
        self._ids, self._index = tuple(ids), {name: i for i, name in enumerate(ids)}
        self._caps = announce.Caps(norm=float(max_norm), session=session)
        self._confidential, self._unsafe = confidential, unsafe
        self._verifier, self._kem_provider = verifier, kem_provider
        agreed = manifest.Manifest(
            os.urandom(16), identity.id, suite.id, codec.spec_digest(spec), session, confidential
        )
        self._run, self._manifest = agreed.run, manifest.publish(identity, agreed)
        self._state = server.State({}, {})
        self._last = (-1, announce.ZERO)
        self._lock = threading.Lock()
        self._open: Tally | None = None
        self._data = b""
        self._model_key: Secret | None = None

    def facts(self) -> Facts:
        """What a log needs to check everything that this server says."""
        public = self._identity.public
        return Facts(self._run, self._manifest, public, self._registry, (), self._ids)

    def begin_round(
        self, number: int, model: bytes, invited: Sequence[int], *, log: bytes = b""
    ) -> bytes:
        """Announces round ``number`` to the clients invited; as ``Exchange.begin_round``."""
        if self._open is not None:
            raise ValueError(f"round {number}: the round before is still open")
        clock = Clock()
        with clock("announce"):
            chosen = frozenset(self._ids[i] for i in invited)
            public, secret = b"", Secret(b"")
            if self._suite.sealed:
                public, secret = kem.keygen(self._suite.kem, self._kem_provider)
            facts = announce.Announce(
                run=self._run,
                round=number,
                suite=self._suite.id,
                previous=self._last[1],
                base_model=codec.model_digest(model),
                tree_spec=codec.spec_digest(self._spec),
                round_key=public,
                registry=keys.registry_digest(self._registry),
                clients=keys.clients_digest(chosen),
                deadline=0,
                caps=self._caps,
                log=log,
            )
            self._model_key = broadcast.new_key() if self._confidential else None
            self._data, told = announce.publish(self._identity, facts, model, self._model_key)
        rnd = server.Round(told, self._spec, self._registry, chosen, self._unsafe)
        self._last = (number, told.digest)
        self._state = server.open_round(self._state)
        tally = Tally(rnd, secret, 0, None)
        tally.clock.add(clock.seconds)
        self._open = tally
        return self._data

    def turn(self, index: int) -> Turn:
        """What to ask client ``index`` in the open round."""
        with self._lock:
            rnd, name = self._now(), self._ids[index]
            head = self._state.chains.get(name, client.Chain())
            reply, granted = self._state.replies.get(name), b""
            if self._model_key is not None and reply is not None:
                with rnd.clock("broadcast"):
                    digest = rnd.round.announced.digest
                    granted = broadcast.grant(reply, digest, self._model_key)
            rnd.bytes_down += len(self._data) + len(granted)
        asked = Turn(self._manifest, self._data, head, granted)
        return sign_turn(self._identity, rnd.round.announced.digest, name, asked)

    def has(self, index: int) -> bool:
        """Whether the open round has an update of client ``index``."""
        with self._lock:
            return index in self._now().payloads

    def receive(self, index: int, data: bytes) -> None:
        """Takes one message that arrived in the place of client ``index``.

        It counts for whoever sealed it, whichever way it came. A refusal is kept for the round's
        result.

        Raises:
            EnvelopeError: it was refused, and why.
        """
        clock = Clock()
        rnd = self._now()
        try:
            self._take(rnd, data, clock)
        except EnvelopeError as error:
            with self._lock:
                rnd.rejected[index] = error
            raise
        finally:
            with self._lock:
                rnd.bytes_up += len(data)
                rnd.clock.add(clock.seconds)

    def _take(self, rnd: Tally, data: bytes, clock: Clock) -> None:
        """Checks under the lock, cryptography outside it, and the slot under it again."""
        with self._lock, clock("check"):
            self._same(rnd)
            sender_key = server.precheck(rnd.round, self._state, data, int(time.time()))
            if sender_key is None:
                rnd.duplicates += 1
                return
            secret = server.opening_key(self._state, data, rnd.secret)
        with clock("open"):
            opened = server.inspect(
                rnd.round.announced.announce,
                self._spec,
                data,
                secret,
                sender_key,
                verifier=self._verifier,
                unsafe=self._unsafe,
                clock=clock,
                provider=self._kem_provider,
            )
        with self._lock, clock("check"):
            self._same(rnd)
            now = int(time.time())
            self._state, outcome = server.commit(rnd.round, self._state, opened, now)
            if outcome == "duplicate":
                rnd.duplicates += 1
            elif not client.is_hello(opened.header):
                sender = self._index[opened.header.sender]
                rnd.payloads[sender] = opened.payload
                rnd.n_samples[sender] = opened.header.n_samples

    def finish_round(self) -> RoundResult:
        """Closes the round; what is still under way is refused as late."""
        with self._lock:
            rnd = self._now()
            self._open = None
            return rnd.result(self._index, self._state.slots, 0.0)

    def _same(self, rnd: Tally) -> None:
        if self._open is not rnd:
            raise EnvelopeError(Code.ROUND, "arrived after its round was closed")

    def _now(self) -> Tally:
        if self._open is None:
            raise ValueError("no round is open; begin_round first")
        return self._open
