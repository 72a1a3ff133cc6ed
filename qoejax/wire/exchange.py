"""All clients and the server of a simulated run, exchanging sealed updates.

Every update is really signed, encrypted, sent as bytes, checked, decrypted and verified; only the
network is missing. One of the simulated clients reads each announcement for all, because they
hold the same pinned facts and would find the same. Acknowledgements are not sealed: a client's
chain moves on when the server accepts.
"""

import functools
import math
import os
import pathlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from qoejax.wire import announce, client, codec, envelope, kem, keyfile, keys, pool, server, sign
from qoejax.wire import worker as tasks
from qoejax.wire.clock import Clock
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.log.records import Facts
from qoejax.wire.secret import Secret

Tamper = Callable[[int, bytes], bytes]
"""``(client, envelope) -> bytes``: what a network does between the two ends."""


class RoundResult(NamedTuple):
    """What came out of a round.

    Attributes:
        payloads: accepted payloads by client.
        n_samples: what the accepted clients signed as their number of examples.
        rejected: code by client in whose place something was refused.
        messages: the refusals in words, by client.
        duplicates: envelopes that arrived again unchanged, or sealed again with the same content.
        evidence: pairs of signed messages that claim one slot.
        bytes_up: bytes of envelopes that reached the server.
        bytes_down: bytes of announcements sent to those invited.
        seconds: CPU seconds of kem, sign, verify, aead, hash, codec (primitives); seal, open,
            check, announce (whole steps); and wall-clock seconds: wall (begin to finish), wait
            (blocked in ``finish_round``).
        announcement: digest [32] that every accepted update names.
        slots: signed proof of each accepted update, by client.
    """

    payloads: dict[int, bytes]
    n_samples: dict[int, int]
    rejected: dict[int, Code]
    messages: dict[int, str]
    duplicates: int
    evidence: tuple[tuple[server.Slot, server.Slot], ...]
    bytes_up: int
    bytes_down: int
    seconds: dict[str, float]
    announcement: bytes
    slots: dict[int, server.Slot]


class _Open:
    """An open round: what is fixed, what was collected, and how much is still under way."""

    def __init__(self, rnd: server.Round, secret: Secret, bytes_down: int, tamper: Tamper | None):
        self.round = rnd
        self.secret = secret
        self.tamper = tamper
        self.bytes_down = bytes_down
        self.bytes_up = 0
        self.start = time.perf_counter()
        self.submitted: set[int] = set()
        self.sealed: dict[int, envelope.Sealed] = {}
        self.payloads: dict[int, bytes] = {}
        self.n_samples: dict[int, int] = {}
        self.rejected: dict[int, EnvelopeError] = {}
        self.duplicates = 0
        self.clock = Clock()
        self.pending = 0
        self.failure: BaseException | None = None


class Exchange:
    """N enrolled clients and one server; see the module's text.

    Use it as a context manager, or call ``close``: it owns threads or processes.

    Args:
        clients: number of clients, named 0 to N-1.
        spec: layout of an update.
        signer: ML-DSA implementation for all: "pqcrypto" or "openssl".
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
        unsafe: allow the plaintext suite.
        tamper: stands for the network; None delivers as sent.
        state: what ``state`` returned earlier; identities must be the same.

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
        unsafe: bool = False,
        tamper: Tamper | None = None,
        state: dict[str, np.ndarray] | None = None,
    ):
        if clients < 1:
            raise ValueError(f"clients must be at least 1, got {clients}")
        if not max_norm > 0:
            raise ValueError(f"max_norm must be positive, got {max_norm}")
        if run_id is not None and len(run_id) != 16:
            raise ValueError(f"run_id has 16 bytes, got {len(run_id)}")
        envelope.suite(suite, unsafe)
        kem.self_test()
        sign.self_test(signer)
        self.tamper = tamper
        self.run_id = os.urandom(16) if run_id is None else run_id
        self._spec, self._suite, self._unsafe, self._verifier = spec, suite, unsafe, signer
        self._caps = announce.Caps(float(max_norm), max_samples)
        files = {
            n: None if key_dir is None else key_dir / f"{n}.key" for n in ("server", "clients")
        }
        get = functools.partial(keyfile.obtain, passphrase=passphrase, plain=plain_keys)
        (self._server,) = get(files["server"], signer, 1)
        self._ids = get(files["clients"], signer, clients)
        self._index = {identity.id: i for i, identity in enumerate(self._ids)}
        entries = [keys.enrol(identity, (suite,)) for identity in self._ids]
        self._registry = keys.register(entries, verifier=signer)
        self._chains = [client.Chain() for _ in self._ids]
        self._state = server.State({}, {})
        self._last = (-1, announce.ZERO)
        if state is not None:
            self._restore(state)
        self._open: _Open | None = None
        self._changed = threading.Condition()
        setup = tasks.Setup(self._ids, spec, signer, unsafe)
        mode = mode or ("processes" if signer == "pqcrypto" else "threads")
        self._pool = pool.start(setup, workers, mode)

    def __enter__(self) -> "Exchange":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends workers, also in the middle of a round; may be called twice."""
        self._open = None
        self._pool.close()

    def facts(self) -> Facts:
        """What a log needs to check everything that the exchange says."""
        ids = tuple(self._index)
        return Facts(self.run_id, self._suite, self._server.public, self._registry, ids)

    def revoke(self, index: int) -> None:
        """Refuses a client from now on, in the open round too."""
        with self._changed:
            self._registry = keys.revoke(self._registry, self._ids[index].id)
            if self._open is not None:
                self._open.round = self._open.round._replace(registry=self._registry)

    def state(self) -> dict[str, np.ndarray]:
        """What a checkpoint needs to continue every chain; only between rounds."""
        if self._open is not None:
            raise ValueError("the state is taken between rounds; finish_round first")
        return {
            "round": np.array(self._last[0], np.int64),
            "announce": _array(self._last[1]),
            "registry": _array(keys.registry_digest(self._registry)),
            "seq": np.array([chain.seq for chain in self._chains], np.uint32),
            "prev": np.stack([_array(chain.prev) for chain in self._chains]),
        }

    def _restore(self, state: dict[str, np.ndarray]) -> None:
        if bytes(state["registry"].tobytes()) != keys.registry_digest(self._registry):
            raise ValueError("the saved exchange belongs to other client identities")
        self._last = (int(state["round"]), state["announce"].tobytes())
        self._chains = [
            client.Chain(int(seq), prev.tobytes())
            for seq, prev in zip(state["seq"], state["prev"], strict=True)
        ]
        chains = {i.id: chain for i, chain in zip(self._ids, self._chains, strict=True)}
        self._state = server.State(chains, {})

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
            ids = [i.id for i in self._ids]
            chosen = frozenset(ids if invited is None else (ids[i] for i in invited))
            public, secret = kem.keygen()
            facts = announce.Announce(
                run=self.run_id,
                round=number,
                suite=self._suite,
                previous=self._last[1],
                base_model=codec.model_digest(model),
                tree_spec=codec.spec_digest(self._spec),
                round_key=public,
                registry=keys.registry_digest(self._registry),
                clients=keys.clients_digest(chosen),
                deadline=deadline,
                caps=self._caps,
                log=log,
            )
            data, _ = announce.publish(self._server, facts, model)
            told = announce.read(
                data,
                self._server.public,
                self.run_id,
                self._last,
                verifier=self._verifier,
                unsafe=self._unsafe,
                clock=clock,
            )
        rnd = server.Round(told, self._spec, self._registry, chosen, self._unsafe)
        self._last = (number, told.digest)
        self._state = server.open_round(self._state)
        self._open = _Open(rnd, secret, len(data) * len(chosen), self.tamper)
        self._open.clock.add(clock.seconds)
        return data

    def submit(self, index: int, payload: bytes, n_samples: int) -> None:
        """Hands one client's payload over and returns at once; it is sealed, sent and opened.

        Raises:
            ValueError: no round is open, no such client, or the client submitted already.
            EnvelopeError: SIZE, if the payload is not of the agreed spec.
            pool.WorkerError: a worker died.
        """
        rnd = self._round()
        if not 0 <= index < len(self._ids):
            raise ValueError(f"client {index}: there are clients 0 to {len(self._ids) - 1}")
        if index in rnd.submitted:
            raise ValueError(f"client {index} submitted already in this round")
        codec.decode(self._spec, payload)
        header = client.update_header(
            rnd.round.announced,
            self._ids[index].id,
            0,
            self._chains[index],
            n_samples,
            len(payload),
        )
        round_key = rnd.round.announced.announce.round_key
        future = self._pool.submit("seal", index, header, payload, round_key)
        rnd.submitted.add(index)
        with self._changed:
            rnd.pending += 1
        future.add_done_callback(functools.partial(self._step, self._sealed, rnd, index))

    def finish_round(self) -> RoundResult:
        """Waits until every submitted update was opened or refused, then closes the round.

        Raises:
            pool.WorkerError: a worker died or a task crashed.
        """
        rnd = self._round()
        start = time.perf_counter()
        with self._changed:
            while rnd.pending:
                self._changed.wait()
        self._open = None
        if rnd.failure is not None:
            raise rnd.failure
        end = time.perf_counter()
        seconds = rnd.clock.seconds | {"wall": end - rnd.start, "wait": end - start}
        return RoundResult(
            payloads=dict(sorted(rnd.payloads.items())),
            n_samples=dict(sorted(rnd.n_samples.items())),
            rejected={i: rnd.rejected[i].code for i in sorted(rnd.rejected)},
            messages={i: str(rnd.rejected[i]) for i in sorted(rnd.rejected)},
            duplicates=rnd.duplicates,
            evidence=tuple(e.evidence for e in rnd.rejected.values() if e.evidence is not None),
            bytes_up=rnd.bytes_up,
            bytes_down=rnd.bytes_down,
            seconds=seconds,
            announcement=rnd.round.announced.digest,
            slots={self._index[sender]: s for (sender, _), s in self._state.slots.items()},
        )

    def round(
        self, number: int, model: bytes, payloads: dict[int, bytes], n_samples: dict[int, int]
    ) -> RoundResult:
        """``begin_round``, ``submit`` for every payload, ``finish_round``."""
        self.begin_round(number, model)
        for index, payload in payloads.items():
            self.submit(index, payload, n_samples[index])
        return self.finish_round()

    def _round(self) -> _Open:
        if self._open is None:
            raise ValueError("no round is open; begin_round first")
        return self._open

    def _step(self, step: Callable[..., bool], rnd: _Open, index: int, future: Any) -> None:
        """Runs one stage in the pool's thread; whatever it raises ends up in the round."""
        done = True
        try:
            result = future.result()
            with self._changed:
                if isinstance(result, tasks.Refused):
                    rnd.clock.add(result.seconds)
                    raise EnvelopeError(result.code, result.message)
                done = step(rnd, index, *result)
        except EnvelopeError as error:
            rnd.rejected[index] = error
        except BaseException as error:
            rnd.failure = rnd.failure or error
        finally:
            if done:
                with self._changed:
                    rnd.pending -= 1
                    self._changed.notify_all()

    def _sealed(
        self, rnd: _Open, index: int, sealed: envelope.Sealed, seconds: dict[str, float]
    ) -> bool:
        """After sealing: the network, then the checks before decryption."""
        rnd.clock.add(seconds)
        rnd.sealed[index] = sealed
        data = sealed.envelope if rnd.tamper is None else rnd.tamper(index, sealed.envelope)
        rnd.bytes_up += len(data)
        with rnd.clock("check"):
            sender_key = server.precheck(rnd.round, self._state, data, int(time.time()))
        if sender_key is None:
            rnd.duplicates += 1
            return True
        facts = rnd.round.announced.announce
        future = self._pool.submit("open", data, facts, rnd.secret.expose(), sender_key)
        future.add_done_callback(functools.partial(self._step, self._opened, rnd, index))
        return False

    def _opened(
        self,
        rnd: _Open,
        index: int,
        opened: envelope.Opened,
        seconds: dict[str, float],
    ) -> bool:
        """After opening: the slot, the payload, and the sender's chain."""
        rnd.clock.add(seconds)
        with rnd.clock("check"):
            self._state, outcome = server.commit(rnd.round, self._state, opened)
        if outcome == "duplicate":
            rnd.duplicates += 1
            return True
        sender = self._index[opened.header.sender]
        rnd.payloads[sender] = opened.payload
        rnd.n_samples[sender] = opened.header.n_samples
        # The acknowledgement names a transcript: a client whose clone was quicker stays behind,
        # and its next message is refused.
        own = rnd.sealed.get(sender)
        if own is not None and own.transcript == opened.transcript:
            self._chains[sender] = client.advance(self._chains[sender], own.transcript)
        return True


def _array(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)
