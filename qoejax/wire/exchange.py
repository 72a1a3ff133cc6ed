"""All clients and the server of a simulated run, exchanging sealed updates.

Every update is really signed, encrypted, sent as bytes, checked, decrypted and verified; only the
network is missing. One of the simulated clients reads each announcement for all, because they
hold the same pinned facts and would find the same. Acknowledgements are not sealed: a client's
chain moves on when the server accepts.
"""

import math
import os
import pathlib
import time
from collections.abc import Sequence

import numpy as np

from qoejax.wire import (
    announce,
    broadcast,
    client,
    codec,
    envelope,
    kem,
    keys,
    manifest,
    members,
    pool,
    revocation,
    server,
    sign,
    suites,
)
from qoejax.wire import worker as tasks
from qoejax.wire.clock import Clock
from qoejax.wire.errors import EnvelopeError
from qoejax.wire.fleet import Fleet
from qoejax.wire.log.records import Facts
from qoejax.wire.pipeline import Pipeline
from qoejax.wire.secret import Secret
from qoejax.wire.tally import RoundResult, Tally, Tamper

__all__ = ["Exchange", "RoundResult", "Tamper"]


class Exchange:
    """N enrolled clients and one server; see the module's text.

    Use it as a context manager, or call ``close``: it owns threads or processes.

    Args:
        clients: number of clients, named 0 to N-1.
        spec: layout of an update.
        signer: provider that signs and verifies for all: "pqcrypto" or "openssl".
        workers: threads or processes that seal and open.
        mode: "threads" or "processes"; by default processes for pqcrypto, which holds the
            interpreter lock while it signs, and threads for openssl.
        run_id: 16 bytes; random by default.
        max_norm: largest L2 norm of an update; infinity for none.
        max_samples: largest ``n_samples`` of an update.
        key_dir: where identities are kept between processes; in memory only by default.
        passphrase: encrypts the key files.
        plain_keys: keep readable key files instead; only with ``passphrase=None``.
        suite: number of the suite.
        session: rounds that a session lasts; 0 signs every update instead.
        confidential: encrypt the model to those who take part.
        kem_provider: library of the KEM; HQC and SNTRUP are always pqcrypto's.
        unsafe: allow the plaintext and classical suites.
        tamper: stands for the network; None delivers as sent.
        state: what ``state`` returned earlier; identities must be the same.
        who: the parties (``members``) in the place of those that ``key_dir`` would give; their
            keys are of the suite's scheme.

    Raises:
        ValueError: an argument is out of range; names it.
        keyfile.KeyFileError: a key file cannot be used; names it.
        kem.SelfTestError: a primitive gives wrong answers on this machine.
    """

    def __init__(
        self,
        *,
        clients: int,
        spec: codec.TreeSpec,
        signer: str = "pqcrypto",
        workers: int = 1,
        mode: str | None = None,
        run_id: bytes | None = None,
        max_norm: float = math.inf,
        max_samples: int = 2**32 - 1,
        key_dir: pathlib.Path | None = None,
        passphrase: bytes | None = None,
        plain_keys: bool = False,
        suite: int = envelope.DEFAULT,
        session: int = 0,
        confidential: bool = False,
        kem_provider: str = "pqcrypto",
        unsafe: bool = False,
        tamper: Tamper | None = None,
        state: dict[str, np.ndarray] | None = None,
        who: members.Members | None = None,
    ):
        chosen = envelope.suite(suite, unsafe)
        _check(clients, max_norm, run_id, session)
        if not chosen.sealed and (session or confidential):
            raise ValueError("the plaintext suite has neither sessions nor confidential models")
        self._kem_provider = suites.kem_provider(chosen, kem_provider)
        _self_test(chosen, signer, self._kem_provider)
        self.tamper = tamper
        self.run_id = os.urandom(16) if run_id is None else run_id
        self._spec, self._suite, self._unsafe, self._verifier = spec, chosen, unsafe, signer
        self._caps = announce.Caps(float(max_norm), max_samples, session=session)
        self._confidential = confidential
        who = who or members.simulated(
            clients, suite, signer, key_dir, passphrase, plain=plain_keys
        )
        _check_parties(who, clients, chosen)
        self._server, self._registry, self._signed = who.server, who.registry, who.signed
        self._fleet = Fleet(who.clients, who.registry, session > 0)
        self.manifest, self._agreed = self._agree()
        self._notices, self._issued = client.Chain(), []
        self._last = (-1, announce.ZERO)
        known = {} if state is None else self._restore(state)
        self._open: Tally | None = None
        setup = tasks.Setup(self._fleet.ids, spec, signer, unsafe, self._kem_provider)
        self._pool = pool.start(setup, workers, mode or pool.mode_of(signer))
        self._line = Pipeline(self._pool, self._fleet, server.State(known, {}))

    def __enter__(self) -> "Exchange":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends workers, also in the middle of a round; may be called twice."""
        self._open = None
        self._pool.close()

    def _agree(self) -> tuple[bytes, manifest.Manifest]:
        """The run's manifest, signed by the server and read back as a client does."""
        facts = manifest.Manifest(
            run=self.run_id,
            server=self._server.id,
            suite=self._suite.id,
            tree_spec=codec.spec_digest(self._spec),
            session=self._caps.session,
            confidential=self._confidential,
        )
        data = manifest.publish(self._server, facts)
        key, verifier = self._server.public, self._verifier
        return data, manifest.read(data, key, verifier=verifier, unsafe=self._unsafe)

    def facts(self) -> Facts:
        """What a log needs to check everything that the exchange says."""
        server, ids = self._server.public, tuple(self._fleet.index)
        notices = tuple(self._issued)
        return Facts(
            self.run_id, self.manifest, server, self._registry, notices, ids, self._signed
        )  # fmt: skip

    def revoke(self, index: int) -> bytes:
        """Refuses a client from now on, in the open round too; returns the signed notice."""
        common = (self.run_id, self._suite.id, self._notices)
        subject = self._fleet.ids[index].id
        data, _ = revocation.seal(self._server, *common, subject, 1)
        with self._line.changed:
            notice, self._notices = revocation.read(
                data, self._server.public, *common, verifier=self._verifier
            )
            self._registry = keys.revoke(self._registry, notice.subject)
            self._issued.append(data)
            if self._open is not None:
                self._open.round = self._open.round._replace(registry=self._registry)
        return data

    def state(self) -> dict[str, np.ndarray]:
        """What a checkpoint needs to continue every chain; only between rounds."""
        if self._open is not None:
            raise ValueError("the state is taken between rounds; finish_round first")
        return {
            "round": np.array(self._last[0], np.int64),
            "announce": _array(self._last[1]),
            "registry": _array(keys.registry_digest(self._registry)),
            **self._fleet.state(),
        }

    def _restore(self, state: dict[str, np.ndarray]) -> dict[bytes, client.Chain]:
        if bytes(state["registry"].tobytes()) != keys.registry_digest(self._registry):
            raise ValueError("the saved exchange belongs to other client identities")
        self._last = (int(state["round"]), state["announce"].tobytes())
        return self._fleet.restore(state)

    def begin_round(
        self,
        number: int,
        model: bytes,
        invited: Sequence[int] | None = None,
        *,
        deadline: int = 0,
        log: bytes = b"",
    ) -> bytes:
        """Announces round ``number`` with the encoded base model; returns the announcement.

        Args:
            number: greater than that of every round before.
            model: encoded base model; clients check that they got it whole.
            invited: clients that may answer, by default all.
            deadline: Unix seconds after which updates are refused; 0 for none.
            log: checkpoint of the transparency log, as the announcement is to name it.
        """
        if self._open is not None:
            raise ValueError(f"round {number}: the round before is still open")
        clock = Clock()
        with clock("announce"):
            ids = [i.id for i in self._fleet.ids]
            who = range(len(ids)) if invited is None else invited
            chosen = frozenset(ids[i] for i in who)
            public, secret = b"", Secret(b"")
            if self._suite.sealed:
                public, secret = kem.keygen(self._suite.kem, self._kem_provider)
            facts = self._facts(number, model, chosen, public)
            facts = facts._replace(deadline=deadline, log=log)
            model_key = broadcast.new_key() if self._confidential else None
            data, _ = announce.publish(self._server, facts, model, model_key)
            told = announce.read(
                data,
                self._server.public,
                self.run_id,
                self._last,
                agreed=self._agreed,
                verifier=self._verifier,
                unsafe=self._unsafe,
                clock=clock,
            )
        rnd = server.Round(told, self._spec, self._registry, chosen, self._unsafe)
        self._last = (number, told.digest)
        self._line.state = server.open_round(self._line.state)
        self._open = Tally(rnd, secret, len(data) * len(chosen), self.tamper)
        self._open.clock.add(clock.seconds)
        self._greet(self._open, who)
        if model_key is not None:
            self._hand_out(self._open, who, model_key)
        return data

    def _facts(
        self, number: int, model: bytes, chosen: frozenset[bytes], round_key: bytes
    ) -> announce.Announce:
        return announce.Announce(
            run=self.run_id,
            round=number,
            suite=self._suite.id,
            previous=self._last[1],
            base_model=codec.model_digest(model),
            tree_spec=codec.spec_digest(self._spec),
            round_key=round_key,
            registry=keys.registry_digest(self._registry),
            clients=keys.clients_digest(chosen),
            deadline=0,
            caps=self._caps,
            log=b"",
        )

    def _greet(self, rnd: Tally, who: Sequence[int]) -> None:
        """HELLO from every client that has no session, or no reply key, and needs one."""
        told, now = rnd.round.announced, int(time.time())
        for index in who:
            if self._fleet.must_greet(index, told, now):
                header, payload = self._fleet.hello(index, told)
                self._line.send(rnd, index, "seal", index, header, payload, told.announce.round_key)
        self._line.settle(rnd)

    def _hand_out(self, rnd: Tally, who: Sequence[int], model_key: Secret) -> None:
        """The model's key to each client; the first who gets it decrypts the model for all."""
        told, revealed = rnd.round.announced, False
        with rnd.clock("broadcast"):
            for index in who:
                reply = self._line.state.replies.get(self._fleet.ids[index].id)
                if reply is None:  # its HELLO was refused
                    continue
                granted = broadcast.grant(reply, told.digest, model_key)
                rnd.bytes_down += len(granted)
                key = self._fleet.granted(index, told, granted)
                if not revealed:
                    announce.reveal(told, key)
                    revealed = True

    def submit(self, index: int, payload: bytes, n_samples: int) -> None:
        """Hands one client's payload over and returns at once; it is sealed, sent and opened.

        Raises:
            ValueError: no round is open, no such client, or the client submitted already.
            EnvelopeError: SIZE, if the payload is not of the agreed spec.
            pool.WorkerError: a worker died.
        """
        rnd = self._round()
        if not 0 <= index < len(self._fleet.ids):
            raise ValueError(f"client {index}: there are clients 0 to {len(self._fleet.ids) - 1}")
        if index in rnd.submitted:
            raise ValueError(f"client {index} submitted already in this round")
        codec.decode(self._spec, payload)
        rnd.submitted.add(index)
        if index in rnd.rejected:  # its HELLO was refused
            return
        told = rnd.round.announced
        header, key = self._fleet.update(index, told, n_samples, len(payload))
        if key is not None:
            self._line.send(rnd, index, "seal_in_session", header, payload, key.expose())
        else:
            self._line.send(rnd, index, "seal", index, header, payload, told.announce.round_key)

    def finish_round(self) -> RoundResult:
        """Waits until every submitted update was opened or refused, then closes the round.

        Raises:
            pool.WorkerError: a worker died or a task crashed.
        """
        rnd = self._round()
        start = time.perf_counter()
        try:
            self._line.settle(rnd)
        finally:
            self._open = None
        wait = time.perf_counter() - start
        return rnd.result(self._fleet.index, self._line.state.slots, wait)

    def round(
        self, number: int, model: bytes, payloads: dict[int, bytes], n_samples: dict[int, int]
    ) -> RoundResult:
        """``begin_round``, ``submit`` for every payload, ``finish_round``."""
        self.begin_round(number, model)
        for index, payload in payloads.items():
            self.submit(index, payload, n_samples[index])
        return self.finish_round()

    def close_sessions(self) -> tuple[dict[int, server.Slot], dict[int, EnvelopeError]]:
        """Ends the sessions at the end of a run: each client signs for what no HELLO has.

        Returns:
            CLOSE of each client whose session had updates, and what was refused, by client.

        Raises:
            ValueError: a round is open.
            pool.WorkerError: a worker died.
        """
        if self._open is not None:
            raise ValueError("sessions are closed between rounds; finish_round first")
        me, suite = self._server.id, self._suite.id
        return self._line.close_sessions(self.run_id, suite, me, self._registry, self._verifier)

    def _round(self) -> Tally:
        if self._open is None:
            raise ValueError("no round is open; begin_round first")
        return self._open


def _check_parties(who: members.Members, clients: int, chosen: suites.Suite) -> None:
    if len(who.clients) != clients:
        raise ValueError(f"{len(who.clients)} identities for {clients} clients")
    schemes = {one.scheme for one in (who.server, *who.clients)}
    if schemes != {chosen.scheme}:
        raise ValueError(f"keys of {sorted(schemes)}, expected {chosen.scheme}")


def _check(clients: int, max_norm: float, run_id: bytes | None, session: int) -> None:
    if clients < 1:
        raise ValueError(f"clients must be at least 1, got {clients}")
    if not max_norm > 0:
        raise ValueError(f"max_norm must be positive, got {max_norm}")
    if run_id is not None and len(run_id) != 16:
        raise ValueError(f"run_id has 16 bytes, got {len(run_id)}")
    if session < 0:
        raise ValueError(f"session must be 0 or more rounds, got {session}")


def _self_test(chosen: suites.Suite, signer: str, kem_provider: str) -> None:
    if chosen.sealed:
        kem.self_test(chosen.kem, kem_provider)
    sign.self_test(signer, chosen.scheme)


def _array(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)
