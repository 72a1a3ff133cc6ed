"""The way of a message in a simulated run: seal, network, checks, open, commit, acknowledge.

Sealing and opening run in a pool; the steps in between run in the pool's callbacks, one at a time
under a lock, so the outcome is that of one message after the other.
"""

import functools
import threading
import time
from collections.abc import Callable
from typing import Any

from qoejax.wire import client, closing, envelope, keys, pool, server
from qoejax.wire import worker as tasks
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.fleet import Fleet
from qoejax.wire.tally import Tally


class Pipeline:
    """Messages under way, and the server's state that they change.

    Attributes:
        state: what the server knows of its senders.
        changed: lock over everything that callbacks touch; notified when a message is done.
    """

    def __init__(self, workers: pool.Pool, fleet: Fleet, state: server.State):
        self.state = state
        self.changed = threading.Condition()
        self._pool = workers
        self._fleet = fleet

    def send(self, rnd: Tally, index: int, task: str, *arguments: Any) -> None:
        """Starts a message of client ``index`` on its way; ``task`` seals it."""
        with self.changed:
            rnd.pending += 1
        then = functools.partial(self._step, self._sealed, rnd, index)
        try:
            self._pool.submit(task, *arguments, then=then)
        except BaseException:
            with self.changed:
                rnd.pending -= 1
            raise

    def settle(self, rnd: Tally) -> None:
        """Waits for all that is under way; raises what went wrong with this machine."""
        with self.changed:
            while rnd.pending:
                self.changed.wait()
        if rnd.failure is not None:
            raise rnd.failure

    def close_sessions(
        self, run: bytes, suite: int, me: bytes, registry: keys.Registry, verifier: str
    ) -> tuple[dict[int, server.Slot], dict[int, EnvelopeError]]:
        """CLOSE of every client whose session has updates for which nobody signed yet.

        Between rounds only. What is refused costs its sender the signature, nothing else.
        """
        due = [i for i, held in sorted(self._fleet.sessions.items()) if held.accepted]
        common, slots, refused = (run, suite, me), {}, {}
        signed = [self._pool.submit("close", i, *self._fleet.close(i, *common)) for i in due]
        for index, future in zip(due, signed, strict=True):
            try:
                made = future.result()
                if isinstance(made, tasks.Refused):
                    raise made.error()
                slots[index] = self._closed(
                    made, common, self._fleet.ids[index].id, registry, verifier
                )
            except EnvelopeError as error:
                refused[index] = error
        return slots, refused

    def _closed(
        self,
        made: envelope.Sealed,
        common: tuple[bytes, int, bytes],
        sender: bytes,
        registry: keys.Registry,
        verifier: str,
    ) -> server.Slot:
        """The server's side of one CLOSE: it ends the session that it signs for."""
        state, now = self.state, int(time.time())
        epoch = envelope.unpack(made.envelope).key_epoch
        entry = keys.lookup(registry, sender, epoch, common[1], now)
        chain, held = state.chains.get(sender, client.Chain()), state.sessions.get(sender)
        if held is None:
            raise EnvelopeError(Code.ROUND, f"client {sender.hex()}: no session to close")
        want = closing.header(*common, entry, chain)
        slot, chain = closing.read(made.envelope, want, held, entry.public, verifier=verifier)
        sessions = {name: one for name, one in state.sessions.items() if name != sender}
        self.state = state._replace(chains=state.chains | {sender: chain}, sessions=sessions)
        self._fleet.chains[self._fleet.index[sender]] = chain
        return slot

    def _step(self, step: Callable[..., bool], rnd: Tally, index: int, future: Any) -> None:
        """Runs one stage in the pool's thread; whatever it raises ends up in the round."""
        done = True
        try:
            result = future.result()
            with self.changed:
                if isinstance(result, tasks.Refused):
                    rnd.clock.add(result.seconds)
                    raise result.error()
                done = step(rnd, index, *result)
        except EnvelopeError as error:
            rnd.rejected[index] = error
        except BaseException as error:
            rnd.failure = rnd.failure or error
        finally:
            if done:
                with self.changed:
                    rnd.pending -= 1
                    self.changed.notify_all()

    def _sealed(
        self,
        rnd: Tally,
        index: int,
        sealed: envelope.Sealed,
        exposed: tasks.Exposed,
        seconds: dict[str, float],
    ) -> bool:
        """After sealing: the network, then the checks before decryption."""
        rnd.clock.add(seconds)
        rnd.sealed[index] = sealed._replace(exports=tasks.conceal(exposed))
        data = sealed.envelope if rnd.tamper is None else rnd.tamper(index, sealed.envelope)
        rnd.bytes_up += len(data)
        with rnd.clock("check"):
            sender_key = server.precheck(rnd.round, self.state, data, int(time.time()))
            if sender_key is None:
                rnd.duplicates += 1
                return True
            secret = server.opening_key(self.state, data, rnd.secret).expose()
        facts = rnd.round.announced.announce
        then = functools.partial(self._step, self._opened, rnd, index)
        self._pool.submit("open", data, facts, secret, sender_key, then=then)
        return False

    def _opened(
        self,
        rnd: Tally,
        index: int,
        opened: envelope.Opened,
        exposed: tasks.Exposed,
        seconds: dict[str, float],
    ) -> bool:
        """After opening: the slot, the payload, and the sender's chain."""
        rnd.clock.add(seconds)
        now = int(time.time())
        opened = opened._replace(exports=tasks.conceal(exposed))
        with rnd.clock("check"):
            self.state, outcome = server.commit(rnd.round, self.state, opened, now)
        if outcome == "duplicate":
            rnd.duplicates += 1
            return True
        sender = self._fleet.index[opened.header.sender]
        if not client.is_hello(opened.header):
            rnd.payloads[sender] = opened.payload
            rnd.n_samples[sender] = opened.header.n_samples
        if sender in rnd.sealed:
            own = rnd.sealed[sender]
            self._fleet.accepted(own, opened, own.exports, now)
        return True
