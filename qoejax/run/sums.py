"""The state of secure aggregation in a run: who is in which group, agreements, one round's sums."""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from qoejax import trees
from qoejax.fed import ring as rings
from qoejax.fed.discrete import Grid
from qoejax.fed.masked import Coding
from qoejax.wire import (
    announce,
    codec,
    envelope,
    kem,
    keys,
    manifest,
    pool,
    sign,
    suites,
    worker,
)
from qoejax.wire.errors import EnvelopeError
from qoejax.wire.log import records
from qoejax.wire.members import Members
from qoejax.wire.secagg import agreement, bound, local, plan


class Rules(NamedTuple):
    """What a run lays down for its sums; see ``configs/base.py``."""

    seed: int
    groups: int
    epoch: int
    active: bool
    colluding: float
    leaving: float
    signer: str
    suite: int = envelope.DEFAULT
    kem_provider: str = "pqcrypto"
    unsafe: bool = False


class _Group(NamedTuple):
    """Clients whose sum is one, and their agreement if it has been made."""

    clients: tuple[int, ...]
    choice: bound.Choice
    first: int = -1
    epoch: local.Epoch | None = None


class Record(NamedTuple):
    """What a log keeps of one sum; anybody can check it without an update.

    Attributes:
      plan: The encoded plan.
      members: Ids of all who joined, in the order of the bits in ``told``.
      told: The server's signed SURVIVORS frame.
      confirmed: Signed CONFIRM frames of survivors.
      total: SHA-256 of the sum's little-endian words.
    """

    plan: bytes
    members: tuple[bytes, ...]
    told: bytes
    confirmed: dict[bytes, bytes]
    total: bytes


class Sums(NamedTuple):
    """What the server learnt of a round.

    Attributes:
      words: uint32 [G, N], the sum of each group; zeros where there is none.
      counted: Clients that are in one of the sums.
      rejected: Clients that were refused, stopped, or in a group whose sum was not opened, by code.
      refused: The same by id, without those that stopped of themselves.
      up: Bytes from all clients, and ``down`` to them.
      seconds: CPU seconds of each client, and ``server``'s.
      steps: CPU seconds of all clients by step of the protocol, see ``local.Outcome``.
      records: One for each sum.
    """

    words: np.ndarray
    counted: frozenset[int]
    rejected: Counter[str]
    refused: dict[bytes, str]
    up: int
    down: int
    seconds: dict[int, float]
    server: float
    steps: Counter[str]
    records: tuple[Record, ...]


class _Open(NamedTuple):
    """A group's round before its inputs are there, or why there will be no sum."""

    plan: plan.Plan
    index: dict[bytes, int]
    begun: local.Begun | EnvelopeError


class Opened(NamedTuple):
    """A round before its inputs are there: its groups, and by id why others may not take part."""

    groups: tuple[_Open, ...]
    refused: dict[bytes, str]


class Session:
    """The state that secure aggregation keeps from round to round: agreements, and the last round.

    Epochs end where the round is a multiple of ``Rules.epoch``. A resumed run agrees anew: sums,
    and so models, do not depend on masks. While the device waits, ``workers`` sign for the clients:
    processes where the signer holds the interpreter lock, else threads.
    """

    def __init__(self, who: Members, rules: Rules, ring: Coding, length: int, workers: int = 1):
        chosen = envelope.suite(rules.suite, rules.unsafe)
        self._kem = (chosen.kem, suites.kem_provider(chosen, rules.kem_provider))
        kem.self_test(*self._kem)
        sign.self_test(rules.signer, chosen.scheme)
        self.who, self.rules, self.ring, self.length = who, rules, ring, length
        self.run = kem.random_bytes(16)
        self.spec = codec.tree_spec([(_layout(ring), (length,), "u4")])
        facts = manifest.Manifest(
            run=self.run, server=who.server.id, suite=rules.suite,
            tree_spec=codec.spec_digest(self.spec),
        )  # fmt: skip
        self._manifest = manifest.publish(who.server, facts)
        self._reading = {"verifier": rules.signer, "unsafe": rules.unsafe}
        self._agreed = manifest.read(self._manifest, who.server.public, **self._reading)
        self._groups: list[_Group] = []
        self._epoch = self._last = -1
        self._previous = announce.ZERO
        self._index = {one.id: i for i, one in enumerate(who.clients)}
        setup = worker.Setup(who.clients, self.spec, rules.signer, rules.unsafe, self._kem[1])
        self._pool = pool.start(setup, workers, pool.mode_of(rules.signer))

    def close(self) -> None:
        """Ends the workers."""
        self._pool.close()

    def _sign(
        self, identity: keys.Identity, message: bytes, context: bytes
    ) -> Callable[[], tuple[bytes, float]]:
        """``plan.Signing`` by the workers."""
        future = self._pool.submit("sign", self._index[identity.id], message, context)

        def wait() -> tuple[bytes, float]:
            found = future.result()
            if isinstance(found, worker.Refused):
                raise found.error()
            return found

        return wait

    def facts(self) -> records.Facts:
        """What a log needs to check everything that is said."""
        who = self.who
        ids = tuple(one.id for one in who.clients)
        return records.Facts(
            self.run, self._manifest, who.server.public, who.registry, (), ids, who.signed
        )  # fmt: skip

    def tell(
        self, number: int, model: bytes, asked: list[int], log: bytes = b""
    ) -> tuple[bytes, announce.Announced]:
        """Signs, and one simulated client for all reads, the round's announcement.

        ``log`` is the checkpoint of the transparency log that it names.
        """
        who = self.who
        facts = announce.Announce(
            run=self.run, round=number, suite=self.rules.suite, previous=self._previous,
            base_model=codec.model_digest(model), tree_spec=codec.spec_digest(self.spec),
            round_key=kem.keygen(*self._kem)[0], registry=keys.registry_digest(who.registry),
            clients=keys.clients_digest(who.clients[i].id for i in asked), deadline=0,
            caps=announce.Caps(), log=log,
        )  # fmt: skip
        data, _ = announce.publish(who.server, facts, model)
        told = announce.read(
            data, who.server.public, self.run, (self._last, self._previous),
            agreed=self._agreed, **self._reading,
        )  # fmt: skip
        self._last, self._previous = number, told.digest
        return data, told

    def begin(
        self, told: announce.Announced, asked: Iterable[int], leaves: dict[int, str]
    ) -> Opened:
        """All of the protocol that needs no input, in every group; the device may work meanwhile.

        Args:
          told: The announcement.
          asked: Clients of the round.
          leaves: Step at which a client leaves.
        """
        members, refused = self._admitted(asked)
        epoch = told.announce.round // self.rules.epoch
        if epoch != self._epoch:
            self._groups, self._epoch = self._divide(epoch, sorted(members)), epoch
        opened = []
        for group in self._groups:
            index = {self.who.clients[i].id: i for i in group.clients if i in members}
            agreed = self._plan(told, group)
            try:
                begun = self._begin(agreed, group, index, leaves)
            except EnvelopeError as error:
                begun = error
            opened.append(_Open(agreed, index, begun))
        return Opened(tuple(opened), refused)

    def sums(self, opened: Opened, words: dict[int, np.ndarray], leaves: dict[int, str]) -> Sums:
        """Masks, adds and opens in every group.

        Args:
          opened: What ``begin`` made of this round.
          words: uint32 [N] of everybody asked.
          leaves: Step at which a client leaves, of those too of whom ``begin`` did not know.
        """
        out = np.zeros((self.rules.groups, self.length), np.uint32)
        early = Counter(opened.refused.values())
        found = Sums(out, frozenset(), early, opened.refused, 0, 0, {}, 0.0, Counter(), ())
        for at, one in enumerate(opened.groups):
            found = self._add(found, at, one, words, leaves)
        return found

    def _add(
        self, found: Sums, at: int, one: _Open, words: dict[int, np.ndarray], leaves: dict[int, str]
    ) -> Sums:
        """One group's sum and costs, added to those before; ``found.words`` is written to."""
        index = one.index
        try:
            if isinstance(one.begun, EnvelopeError):
                raise one.begun
            inputs = {name: words[i] for name, i in index.items()}
            left = {name: leaves[i] for name, i in index.items() if i in leaves}
            done = local.finish(one.begun, inputs, left, self._sign)
        except EnvelopeError as error:
            code, staying = str(error.code), set(index.values()) - set(leaves)
            return found._replace(
                rejected=found.rejected + Counter({code: len(staying)}),
                refused=found.refused | {n: code for n, i in index.items() if i in staying},
            )
        self._groups[at] = self._groups[at]._replace(first=one.plan.first, epoch=done.epoch)
        found.words[at] = done.total
        refused = {name: str(e.code) for name, e in done.refused.items()}
        return Sums(
            words=found.words,
            counted=found.counted | {index[name] for name in done.survivors},
            rejected=found.rejected + Counter(refused.values()),
            refused=found.refused | refused,
            up=found.up + sum(done.up.values()),
            down=found.down + sum(done.down.values()),
            seconds=found.seconds | {index[n]: s for n, s in done.seconds.items() if n},
            server=found.server + done.seconds[b""],
            steps=found.steps + Counter(done.steps),
            records=(*found.records, _record(one.plan, done)),
        )

    def _admitted(self, asked: Iterable[int]) -> tuple[set[int], dict[bytes, str]]:
        """Those who may take part now, and by id why the others may not."""
        registry, now, members, refused = self.who.registry, int(time.time()), set(), {}
        for index in asked:
            name = self.who.clients[index].id
            epoch = registry.entries[name].epoch
            try:
                keys.lookup(registry, name, epoch, self.rules.suite, now)
            except EnvelopeError as error:
                refused[name] = str(error.code)
            else:
                members.add(index)
        return members, refused

    def _divide(self, epoch: int, asked: list[int]) -> list[_Group]:
        """Groups of nearly equal size, in an order that the run's seed and the epoch fix.

        Public and known beforehand, so nobody is put into a group for what it sent.
        """

        def place(client: int) -> bytes:
            text = f"qoejax/v1/secagg/group {self.rules.seed} {epoch} {client}"
            return hashlib.sha256(text.encode()).digest()

        order = sorted(asked, key=place)
        parts = [order[at :: self.rules.groups] for at in range(self.rules.groups)]
        return [_Group(tuple(part), self.choose(len(part))) for part in parts if part]

    def choose(self, members: int) -> bound.Choice:
        """Degree and threshold for a group; one that is too small has none that anybody accepts."""
        rules = self.rules
        if members < 2:
            return bound.Choice(1, 2, 2, 1.0, 1.0)
        gone = (int(rules.colluding * members), int(rules.leaving * members))
        try:
            return bound.choose(members, *gone, active=rules.active)
        except ValueError:
            return bound.Choice(members - 1, members, members, 1.0, 1.0)

    def _plan(self, told: announce.Announced, group: _Group) -> plan.Plan:
        facts, choice = told.announce, group.choice
        return plan.Plan(
            announce=told.digest, run=facts.run, round=facts.round,
            first=facts.round if group.epoch is None else group.first,
            server=told.server, suite=facts.suite, base_model=facts.base_model,
            tree_spec=facts.tree_spec, degree=choice.degree, threshold=choice.threshold,
            least=choice.least, length=self.length,
        )  # fmt: skip

    def _begin(
        self,
        agreed: plan.Plan,
        group: _Group,
        index: dict[bytes, int],
        leaves: dict[int, str],
    ) -> local.Begun:
        return local.begin(
            self.who.server,
            agreed,
            {name: self.who.clients[i] for name, i in index.items()},
            epoch=group.epoch,
            verifier=self.rules.signer,
            leaves={name: leaves[i] for name, i in index.items() if i in leaves},
            trust=agreement.Trust(self.rules.colluding, self.rules.active),
            provider=self.rules.kem_provider,
        )


def _record(agreed: plan.Plan, done: local.Outcome) -> Record:
    """A sum: its plan, the signed survivor set, and who confirmed it."""
    names = done.epoch.group.directory.names
    frames = done.confirmed if agreed.evidence else {}
    confirmed = {name: frame for name, frame in frames.items() if name not in done.refused}
    total = hashlib.sha256(done.total.astype("<u4").tobytes()).digest()
    return Record(plan.encode(agreed), names, done.told, confirmed, total)


def _layout(ring: Coding) -> str:
    """What the words of a sum mean, as every message names it by digest."""
    if isinstance(ring, Grid):
        return f"sum/skellam/clip={ring.clip}/step={ring.step}/noise={ring.noise}"
    return f"sum/clip={ring.clip}/bits={ring.bits}/heaviest={ring.heaviest}"


def input_bytes(message: Any) -> int:
    """Bytes of one client's masked vector: a word for each number, and its weight."""
    return 4 * (trees.count(message) + 1)


def session(
    who: Members,
    rules: Rules,
    message: Any,
    clip: float,
    heaviest: float,
    clients: int,
    uniform: bool = False,
    workers: int = 1,
) -> Session:
    """The session of a run whose messages look like ``message``; it is to be closed.

    Raises:
      ValueError: sums do not fit in 32 bits.
    """
    most = -(-clients // rules.groups)
    ring = rings.fit(clip, heaviest, most, uniform)
    return Session(who, rules, ring, trees.count(message) + 1, workers)
