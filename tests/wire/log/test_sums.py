"""Secure sums in the log: one survivor set, signed by the server and confirmed by members."""

import contextlib
import functools
import hashlib

import pytest

from qoejax.wire import cbor, codec, envelope
from qoejax.wire.envelope import Header
from qoejax.wire.exchange import Exchange
from qoejax.wire.log import chain, merkle, records, sums
from qoejax.wire.log.errors import LogError
from qoejax.wire.log.records import Session
from tests.wire.log.helpers import CONFIG, SPEC, encoded

TOTAL = hashlib.sha256(b"the sum").digest()


class Scene:
    """A server, four clients, and an open round; frames by hand, as docs and code say."""

    def __init__(self):
        with Exchange(clients=4, spec=SPEC, signer="openssl") as wire:
            self.facts = wire.facts()
            self.server = wire._server
            self.clients = {one.id: one for one in wire._fleet.ids}
            self.data = wire.begin_round(0, encoded(0))
            told = wire._open.round.announced
        self.members = sorted(self.clients)
        announce = told.announce
        self.plan = {
            "announce": told.digest, "run": announce.run, "round": 0, "server": told.server,
            "base_model": announce.base_model, "tree_spec": announce.tree_spec,
            "suite": announce.suite, "degree": 3, "length": 9,
        }  # fmt: skip

    def before(self):
        facts = self.facts
        opened = Session(
            run=facts.run, manifest=facts.manifest, server=facts.server, first=0,
            model=codec.model_digest(encoded(0)), config=CONFIG, policy=bytes(32),
        )  # fmt: skip
        empty = chain.State().registry
        return [
            records.session(opened),
            *records.registry_changes(empty, facts.registry, ()),
            records.announcement(self.data),
        ]

    @functools.cache  # noqa: B019 - one scene a module
    def opened(self):
        return fold(self.before())

    def frame(self, who, step, body, plan=None):
        plan = self.plan if plan is None else plan
        name = hashlib.sha256(b"qoejax/v1/secagg/plan\0" + cbor.encode(plan)).digest()
        header = envelope.pack(
            Header(
                type=7, suite=1, key_epoch=0, run=plan["run"], round=0, seq=step, sender=who.id,
                recipient=plan["server"], base_model=plan["base_model"],
                tree_spec=plan["tree_spec"], announce=name, prev=bytes(32), n_samples=0,
                payload_len=len(body),
            )
        )  # fmt: skip
        message = envelope.transcript(header, b"", hashlib.sha512(body).digest())
        return header + body + who.sign(message, sums.CONTEXT)

    def entry(self, alive=(0, 1, 3), said=None, **changes):
        bits = int("".join("1" if i in alive else "0" for i in range(4)).ljust(8, "0"), 2)
        body = bytes([0b11110000, bits])
        confirm = hashlib.sha256(body if said is None else said).digest() + b"tags"
        confirmed = {
            self.members[i]: self.frame(self.clients[self.members[i]], 6, confirm) for i in alive
        }
        fields = {
            "plan": cbor.encode(self.plan), "members": self.members,
            "told": self.frame(self.server, 5, body), "confirmed": confirmed, "total": TOTAL,
        }  # fmt: skip
        return records.survivors(**(fields | changes))

    def result(self, accepted):
        done = records.Outcome(
            run=self.facts.run, round=0, greetings={}, slots={}, rejected={}, evidence=(),
            aggregate=TOTAL, model=bytes(32), spec=bytes(32),
        )  # fmt: skip
        fields = cbor.decode(records.outcome(done)[-1])
        return cbor.encode(fields | {"accepted": accepted})


@pytest.fixture(scope="module")
def scene():
    return Scene()


def fold(entries):
    state = chain.State()
    for index, entry in enumerate(entries):
        state = chain.step(state, entry, chain.At(index, merkle.Tree(), "openssl"))
    return state


def test_a_signed_and_confirmed_sum_holds(scene):
    state = fold([*scene.before(), scene.entry(), scene.result(3)])
    (one,) = state.rounds[0].sums
    assert one.survivors == tuple(scene.members[i] for i in (0, 1, 3))
    assert one.confirmed == 3
    assert state.signatures == 1 + 4 + 1 + 4


def test_two_groups_make_two_sums_and_nobody_counts_twice(scene):
    before = scene.before()
    state = fold([*before, scene.entry((0, 1)), scene.entry((2, 3)), scene.result(4)])
    assert [len(one.survivors) for one in state.rounds[0].sums] == [2, 2]
    with pytest.raises(LogError, match=r"entry 7 \(survivors\): counts somebody twice"):
        fold([*before, scene.entry((0, 1)), scene.entry((1, 2))])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {"said": b"another set"}, "was told of another survivor set"),
        (lambda s: {"members": s.members[:3]}, "confirmed by others|not of 3 members"),
        (lambda s: {"members": [*s.members, bytes(16)]}, "not a set of enrolled clients"),
        (lambda s: {"members": []}, "has no members"),
        (lambda s: {"plan": cbor.encode(s.plan | {"round": 1})}, "its plan is for another round"),
        (lambda s: {"plan": cbor.encode(s.plan | {"announce": bytes(32)})}, "for another announce"),
        (lambda s: {"plan": cbor.encode(s.plan | {"degree": 1})}, "not step 5 of its plan"),
        (lambda s: {"plan": cbor.encode({})}, "lacks what ties it"),
        (lambda s: {"told": s.frame(s.server, 4, b"\xf0\xd0")}, "not step 5"),
        (lambda s: {"told": s.frame(s.clients[s.members[0]], 5, b"\xf0\xd0")}, "not step 5"),
        (lambda s: {"told": s.frame(s.server, 5, b"\xf0\xd0")[:-1] + b"\0"}, "is not signed by it"),
        (lambda s: {"told": s.frame(s.server, 5, b"\xf0\xd8")}, "not of 4 members"),
        (lambda s: {"told": b""}, "SIZE"),
        (
            lambda s: {"confirmed": {s.members[2]: s.frame(s.clients[s.members[2]], 6, bytes(40))}},
            "by others than its survivors",
        ),
        (
            lambda s: {"confirmed": {s.members[0]: s.frame(s.clients[s.members[1]], 6, bytes(40))}},
            "not step 6",
        ),
    ],
)
def test_whatever_does_not_hold_together_is_named(scene, change, message):
    with pytest.raises(LogError, match=message) as caught:
        chain.step(
            scene.opened(), scene.entry(**change(scene)), chain.At(6, merkle.Tree(), "openssl")
        )
    assert caught.value.entry == 6


@pytest.mark.parametrize("name", ["plan", "members", "told", "confirmed", "sum"])
@pytest.mark.parametrize("value", [0, b"", "x", [], {}, [0], [[b""]], [[b"", 1]], [{}], 1.5])
def test_whatever_it_holds_only_log_errors_escape(scene, name, value):
    entry = cbor.encode(cbor.decode(scene.entry()) | {name: value})
    with contextlib.suppress(LogError):
        chain.step(scene.opened(), entry, chain.At(6, merkle.Tree(), "openssl"))
        assert name in ("sum", "confirmed")  # nobody confirmed; an empty digest is no claim


def test_a_result_counts_those_in_the_sums(scene):
    with pytest.raises(LogError, match="counts 4 accepted, the log has 3"):
        fold([*scene.before(), scene.entry(), scene.result(4)])
