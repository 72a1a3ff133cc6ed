"""A round whose updates reach the server only as sums: quantised, masked, added, unmasked.

Clients that the participation model stops half-way leave in the middle of the protocol, at a step
that depends on the round and the client. Only what comes out of the masks enters the server's step.
"""

import hashlib
import pathlib
import time
from collections import Counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qoejax import trees
from qoejax.fed import ring as rings
from qoejax.fed.engine import Engine
from qoejax.fed.state import ServerState
from qoejax.run import transparency, wired
from qoejax.types import Cohort, Examples
from qoejax.wire import announce, codec, envelope, kem, keyfile, keys, manifest, sign
from qoejax.wire.errors import EnvelopeError
from qoejax.wire.log import records
from qoejax.wire.secagg import agreement, bound, local, plan

LEAVES = ("keys", "ciphertexts", "shares", "input")
"""Steps at which a client that does not finish its work may leave: before its input is sent."""


class Rules(NamedTuple):
    """What a run lays down for its sums; see ``configs/base.py``."""

    seed: int
    groups: int
    epoch: int
    active: bool
    colluding: float
    leaving: float


class Parties(NamedTuple):
    """The identities of the server and of all clients of the population."""

    server: keys.Identity
    clients: tuple[keys.Identity, ...]
    registry: keys.Registry
    signer: str
    run: bytes


def parties(
    clients: int,
    signer: str,
    key_dir: pathlib.Path | None = None,
    passphrase: bytes | None = None,
    plain_keys: bool = False,
) -> Parties:
    """Identities from the key files of ``wire.exchange``, or fresh ones.

    Raises:
      kem.SelfTestError: a primitive gives wrong answers on this machine.
      keyfile.KeyFileError: a key file cannot be used; names it.
    """
    kem.self_test()
    sign.self_test(signer)
    files = {n: None if key_dir is None else key_dir / f"{n}.key" for n in ("server", "clients")}
    (server,) = keyfile.obtain(files["server"], signer, 1, passphrase=passphrase, plain=plain_keys)
    members = keyfile.obtain(
        files["clients"], signer, clients, passphrase=passphrase, plain=plain_keys
    )
    registry = keys.register([keys.enrol(one, (envelope.DEFAULT,)) for one in members], signer)
    return Parties(server, members, registry, signer, kem.random_bytes(16))


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
    records: tuple[Record, ...]


class Session:
    """The state that secure aggregation keeps from round to round: agreements, and the last round.

    Epochs end where the round is a multiple of ``Rules.epoch``. A resumed run agrees anew: sums,
    and so models, do not depend on masks.
    """

    def __init__(self, who: Parties, rules: Rules, ring: rings.Ring, length: int):
        self.who, self.rules, self.ring, self.length = who, rules, ring, length
        self.spec = codec.tree_spec(
            [(f"sum/clip={ring.clip}/bits={ring.bits}/heaviest={ring.heaviest}", (length,), "u4")]
        )
        facts = manifest.Manifest(
            run=who.run, server=who.server.id, suite=envelope.DEFAULT,
            tree_spec=codec.spec_digest(self.spec),
        )  # fmt: skip
        self._manifest = manifest.publish(who.server, facts)
        self._groups: list[_Group] = []
        self._epoch = self._last = -1
        self._previous = announce.ZERO

    def facts(self) -> records.Facts:
        """What a log needs to check everything that is said."""
        who = self.who
        ids = tuple(one.id for one in who.clients)
        return records.Facts(who.run, self._manifest, who.server.public, who.registry, (), ids)

    def tell(
        self, number: int, model: bytes, asked: list[int], log: bytes = b""
    ) -> tuple[bytes, announce.Announced]:
        """Signs, and one simulated client for all reads, the round's announcement.

        ``log`` is the checkpoint of the transparency log that it names.
        """
        who = self.who
        facts = announce.Announce(
            run=who.run, round=number, suite=envelope.DEFAULT, previous=self._previous,
            base_model=codec.model_digest(model), tree_spec=codec.spec_digest(self.spec),
            round_key=kem.keygen()[0], registry=keys.registry_digest(who.registry),
            clients=keys.clients_digest(who.clients[i].id for i in asked), deadline=0,
            caps=announce.Caps(), log=log,
        )  # fmt: skip
        data, _ = announce.publish(who.server, facts, model)
        told = announce.read(
            data, who.server.public, who.run, (self._last, self._previous), verifier=who.signer
        )
        self._last, self._previous = number, told.digest
        return data, told

    def sums(
        self, told: announce.Announced, words: dict[int, np.ndarray], leaves: dict[int, str]
    ) -> Sums:
        """Runs the protocol in every group.

        Args:
          told: The announcement.
          words: uint32 [N] of everybody asked.
          leaves: Step at which a client leaves.
        """
        number = told.announce.round
        epoch = number // self.rules.epoch
        if epoch != self._epoch:
            self._groups, self._epoch = self._divide(epoch, sorted(words)), epoch
        out = np.zeros((self.rules.groups, self.length), np.uint32)
        counted: set[int] = set()
        rejected, seconds, up, down, server = Counter(), {}, 0, 0, 0.0
        refused: dict[bytes, str] = {}
        kept = []
        for at, group in enumerate(self._groups):
            here = [i for i in group.clients if i in words]
            index = {self.who.clients[i].id: i for i in here}
            agreed = self._plan(told, group)
            try:
                done = self._run(agreed, group, index, words, leaves)
            except EnvelopeError as error:
                rejected[str(error.code)] += len(set(here) - set(leaves))
                refused |= {name: str(error.code) for name, i in index.items() if i not in leaves}
                continue
            first = group.first if group.epoch else number
            self._groups[at] = group._replace(first=first, epoch=done.epoch)
            out[at] = done.total
            kept.append(_record(agreed, done))
            counted |= {index[name] for name in done.survivors}
            rejected.update(str(e.code) for e in done.refused.values())
            refused |= {name: str(e.code) for name, e in done.refused.items()}
            seconds |= {index[name]: s for name, s in done.seconds.items() if name}
            up, down = up + sum(done.up.values()), down + sum(done.down.values())
            server += done.seconds[b""]
        return Sums(
            out, frozenset(counted), rejected, refused, up, down, seconds, server, tuple(kept)
        )

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

    def _run(
        self,
        agreed: plan.Plan,
        group: _Group,
        index: dict[bytes, int],
        words: dict[int, np.ndarray],
        leaves: dict[int, str],
    ) -> local.Outcome:
        return local.run(
            self.who.server,
            agreed,
            {name: self.who.clients[i] for name, i in index.items()},
            {name: words[i] for name, i in index.items()},
            epoch=group.epoch,
            verifier=self.who.signer,
            leaves={name: leaves[i] for name, i in index.items() if i in leaves},
            trust=agreement.Trust(self.rules.colluding, self.rules.active),
        )


def _record(agreed: plan.Plan, done: local.Outcome) -> Record:
    """A sum: its plan, the signed survivor set, and who confirmed it."""
    names = done.epoch.group.directory.names
    frames = done.confirmed if agreed.evidence else {}
    confirmed = {name: frame for name, frame in frames.items() if name not in done.refused}
    total = hashlib.sha256(done.total.astype("<u4").tobytes()).digest()
    return Record(plan.encode(agreed), names, done.told, confirmed, total)


def leaving_step(number: int, client: int, agreed: bool) -> str:
    """Where a client that does not finish leaves; with keys ``agreed`` it has left later."""
    steps = LEAVES[2:] if agreed else LEAVES
    draw = hashlib.sha256(b"leave" + number.to_bytes(8, "big") + client.to_bytes(8, "big")).digest()
    return steps[draw[0] % len(steps)]


def run_round(
    engine: Engine,
    session: Session,
    state: ServerState,
    examples: Examples,
    key: jax.Array,
    ledger: transparency.Ledger | None = None,
) -> tuple[ServerState, dict[str, Any], dict[str, Any]]:
    """One round of masked sums: the next state, the metrics and the wire's own report.

    With a ledger, all of the round is in the log before its state is returned.
    """
    start = time.perf_counter()
    halves = engine.masked(session.ring)
    _, model = wired.encoded(engine.sent(state))
    number = int(state.round)
    cohort = engine.cohort_for(state.round, key)
    parts = [engine.local(state, examples, piece, key) for piece in engine.slices(cohort)]
    encoded = halves.encode(state, cohort, parts, key)
    words = np.asarray(encoded.words)
    asked, leaves = _turnout(cohort, np.asarray(encoded.sound), number, session.rules.epoch > 1)
    begun = time.perf_counter()
    facts, checkpoint = session.facts(), b""
    if ledger is not None:
        checkpoint = ledger.begin(facts, number, model)
    data, told = session.tell(number, model, list(asked), checkpoint)
    found = session.sums(told, {i: words[slot] for i, slot in asked.items()}, leaves)
    ended = time.perf_counter()
    counted = np.zeros(len(words), bool)
    counted[[asked[i] for i in found.counted]] = True
    clipped = int(np.asarray(encoded.clipped)[counted].sum())
    state, metrics = halves.server(
        state, cohort, parts, encoded.attack_state, jnp.asarray(found.words), jnp.asarray(counted),
        key,
    )  # fmt: skip
    metrics = jax.device_get(metrics)
    total = time.perf_counter() - start
    report = _report(found, len(asked), len(model), clipped, ended - begun, total)
    if ledger is not None:
        after = wired.digests(engine.sent(state))
        report["log"] = ledger.record(_entries(facts, data, found, number, after))
    return state, metrics, report


def _entries(
    facts: records.Facts, data: bytes, found: Sums, number: int, after: tuple[bytes, bytes]
) -> list[bytes]:
    outcome = records.Outcome(
        run=facts.run, round=number, greetings={}, slots={}, rejected=found.refused, evidence=(),
        aggregate=hashlib.sha256(found.words.astype("<u4").tobytes()).digest(), model=after[0],
        spec=after[1], sums=[records.survivors(*each) for each in found.records],
        summed=len(found.counted),
    )  # fmt: skip
    return [records.announcement(data), *records.outcome(outcome)]


def _turnout(
    cohort: Cohort, sound: np.ndarray, number: int, epochs: bool
) -> tuple[dict[int, int], dict[int, str]]:
    """Slots of those asked by client, and where those leave that do not finish."""
    ids, weight = np.asarray(cohort.client_id), np.asarray(cohort.weight)
    asked = {int(client): slot for slot, client in enumerate(ids) if client >= 0}
    leaves = {
        client: leaving_step(number, client, epochs)
        for client, slot in asked.items()
        if weight[slot] <= 0
    }
    # Who has nothing finite to send has done everything before.
    leaves |= {i: "input" for i, slot in asked.items() if i not in leaves and not sound[slot]}
    return asked, leaves


def _report(
    found: Sums, asked: int, model: int, clipped: int, wire: float, total: float
) -> dict[str, Any]:
    each = list(found.seconds.values()) or [0.0]
    return {
        "bytes_up": found.up,
        "bytes_down": found.down + asked * model,
        "accepted": len(found.counted),
        "rejected": dict(sorted(found.rejected.items())),
        "clipped": clipped,
        "seconds": {"clients": sum(each), "server": found.server},
        "client_s": float(np.median(each)),
        "wait_s": wire,
        "share": wire / total,
    }


def input_bytes(message: Any) -> int:
    """Bytes of one client's masked vector: a word for each number, and its weight."""
    return 4 * (trees.count(message) + 1)


def session(
    who: Parties,
    rules: Rules,
    message: Any,
    clip: float,
    heaviest: float,
    clients: int,
    uniform: bool = False,
) -> Session:
    """The session of a run whose messages look like ``message``.

    Raises:
      ValueError: sums do not fit in 32 bits.
    """
    most = -(-clients // rules.groups)
    ring = rings.fit(clip, heaviest, most, uniform)
    return Session(who, rules, ring, trees.count(message) + 1)
