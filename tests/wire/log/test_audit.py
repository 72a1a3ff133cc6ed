"""A run's log, spoilt in every way: the audit names what is wrong."""

import contextlib
import random

import pytest

from qoejax.wire import cbor, client, codec, envelope, manifest
from qoejax.wire.log import audit, chain, merkle, note, policy, records, store
from qoejax.wire.log.errors import LogError
from qoejax.wire.log.state import unsigned
from tests.wire.log.helpers import SPEC, encoded, key, log_key, with_witnesses, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Four clients, three rounds: one refused by policy, one forged, one revoked, one convicted."""
    folder = tmp_path_factory.mktemp("audit") / "log"
    number = [0]

    def tamper(index, data):
        number[0] += 1
        return data[:-1] + bytes([data[-1] ^ 1]) if number[0] == 2 else data

    trusted = write_run(folder, tamper=tamper, revoke_after=1)
    return store.read(folder), trusted


def report(contents, own, **more):
    return audit.audit(contents, own, **more)


def kinds(contents):
    return [cbor.decode(entry)["kind"] for entry in contents.entries]


def test_an_honest_log_holds(run):
    contents, trusted = run
    found = report(contents, trusted)
    assert report(contents, trusted, verifier="pqcrypto").signatures == found.signatures
    rounds = found.state.rounds
    assert [len(r.members) for r in rounds] == [3, 3, 3]
    assert [[r.code for r in rnd.refusals] for rnd in rounds] == [
        ["DECRYPT"], ["POLICY"], ["REVOKED"]
    ]  # fmt: skip
    assert found.state.final["rounds"] == 3
    assert len(found.heads) == 4
    # a manifest, 4 enrolments, a revocation, 3 announcements, 9 updates, 4 checkpoints
    assert found.signatures == 22
    assert kinds(contents)[:5] == ["run", *["enrol"] * 4]
    assert kinds(contents).count("revoke") == 1


def resigned(entries, sizes=None, signer=None):
    """What somebody who holds the log's key can write: everything but cosignatures."""
    tree = merkle.Tree([merkle.leaf_hash(entry) for entry in entries])
    notes = {}
    for size in sizes or [len(entries)]:
        signer = signer or log_key()
        head = note.Checkpoint(signer.verifier.name, size, tree.root(size))
        notes[f"{size:010d}"] = note.assemble(head, signer.line(head, 5)).text
    hashes = [tree.leaf(i) for i in range(tree.size)]
    return store.Contents(list(entries), hashes, notes, 0)


def bad(contents, trusted, message=None, reader=None):
    with pytest.raises(LogError, match=message) as caught:
        report(contents, trusted, trusted=reader)
    return caught.value


def flipped(data, at, bit=0):
    changed = bytearray(data)
    changed[at] ^= 1 << bit
    return bytes(changed)


def test_any_flipped_byte_of_any_entry_is_named(run):
    """Every entry, at its first and last byte and six between: the very entry is named."""
    contents, trusted = run
    rng = random.Random(0)
    for index, entry in enumerate(contents.entries):
        for at in {0, len(entry) - 1, *rng.choices(range(len(entry)), k=6)}:
            entries = list(contents.entries)
            entries[index] = flipped(entry, at, rng.randrange(8))
            error = bad(contents._replace(entries=entries), trusted)
            assert error.entry == index
            assert f"entry {index}" in str(error)


def test_flipped_bytes_of_the_file_itself_are_named(run, tmp_path):
    """Also where a length was hit, so that everything after it reads differently."""
    contents, trusted = run
    packed = b"".join(len(e).to_bytes(4, "big") + e for e in contents.entries)
    ends, at = [], 0
    for entry in contents.entries:
        at += 4 + len(entry)
        ends.append(at)
    rng = random.Random(1)
    starts = [0, *ends[:-1]]
    for position in [*(s + rng.randrange(4) for s in starts), *rng.sample(range(at), 40)]:
        entries, torn = store.frames(flipped(packed, position, rng.randrange(8)))
        index = next(i for i, end in enumerate(ends) if position < end)
        error = bad(contents._replace(entries=entries, torn=torn), trusted)
        assert error.entry == index, position


def test_flipped_hashes_are_named_and_the_entries_are_not_blamed(run):
    contents, trusted = run
    for index in range(len(contents.hashes)):
        hashes = list(contents.hashes)
        hashes[index] = flipped(hashes[index], index % 32)
        error = bad(contents._replace(hashes=hashes), trusted, "file of hashes")
        assert error.entry == index
    bad(contents._replace(hashes=contents.hashes[:-1]), trusted, "file of hashes")
    bad(contents._replace(hashes=[*contents.hashes, bytes(32)]), trusted, "file of hashes")


def test_flipped_bytes_of_checkpoints_are_named(run):
    contents, trusted = run
    rng = random.Random(2)
    for name, text in contents.notes.items():
        data = text.encode()
        front = data.index("— ".encode()) + 40
        for at in [*range(0, front, 3), *rng.sample(range(front, len(data)), 20)]:
            changed = flipped(data, at, rng.randrange(8)).decode("utf-8", "surrogateescape")
            error = bad(contents._replace(notes={**contents.notes, name: changed}), trusted)
            assert f"checkpoint {name}" in str(error) or f"checkpoint {int(name)}" in str(error)
    renamed = dict(
        zip(["0000000001", *list(contents.notes)[1:]], contents.notes.values(), strict=True)
    )
    bad(contents._replace(notes=renamed), trusted, "checkpoint 0000000001: is of size")


def test_removed_swapped_added_and_cut_entries_are_named(run):
    contents, trusted = run
    entries = contents.entries
    for index in range(len(entries)):
        gone = entries[:index] + entries[index + 1 :]
        assert bad(contents._replace(entries=gone), trusted).entry == index
    for index in range(len(entries) - 1):
        swapped = [*entries[:index], entries[index + 1], entries[index], *entries[index + 2 :]]
        assert bad(contents._replace(entries=swapped), trusted).entry == index
    for index in range(len(entries)):
        cut = contents._replace(entries=entries[:index])
        assert bad(cut, trusted, "missing or cut").entry == index
    more = contents._replace(entries=[*entries, b"\xa0"])
    assert bad(more, trusted, "no checkpoint counts it").entry == len(entries)
    torn = contents._replace(torn=3)
    assert bad(torn, trusted, "no checkpoint counts it").entry == len(entries)
    doubled = [*entries[:9], entries[8], *entries[9:]]
    assert bad(contents._replace(entries=doubled), trusted).entry == 9


def test_a_log_cut_back_to_an_earlier_checkpoint_is_no_whole_log(run):
    """The log alone then looks sound: the manifest, and whoever saw more, say otherwise."""
    contents, trusted = run
    names = list(contents.notes)
    size = int(names[1])
    cut = store.Contents(
        contents.entries[:size], contents.hashes[:size],
        {name: contents.notes[name] for name in names[:2]}, 0,
    )  # fmt: skip
    assert report(cut, trusted).state.final is None
    witness = key("example.org/w")
    asked = with_witnesses(log_key(), witness)
    bad(cut, asked, "not the quorum 'witnesses'")


UNSIGNED = {"run": {"config", "policy"}, "result": {"aggregate", "spec"}}
"""Fields that only the server and its log vouch for: witnesses, and the manifest, pin them."""


def test_the_logs_own_key_cannot_forge_what_others_signed(run):
    """Entries changed and everything re-signed by the log: the first false claim is named."""
    contents, trusted = run
    rng = random.Random(4)
    for index, entry in enumerate(contents.entries):
        kind = cbor.decode(entry)["kind"]
        if kind in ("reject", "final"):
            continue  # the server's own word: only witnesses, and the manifest, hold it to it
        for at in rng.choices(range(len(entry)), k=5):
            entries = list(contents.entries)
            entries[index] = flipped(entry, at, rng.randrange(8))
            try:
                error = bad(resigned(entries), trusted)
            except pytest.fail.Exception:
                fields, before = cbor.decode(entries[index]), cbor.decode(entry)
                changed = {name for name in before if fields[name] != before[name]}
                assert changed <= UNSIGNED[kind], (kind, changed)
                continue
            assert error.entry >= index
            assert kind != "update" or error.entry == index
    for index in range(1, len(contents.entries)):
        gone = contents.entries[:index] + contents.entries[index + 1 :]
        if kinds(contents)[index] not in ("reject", "final"):
            assert bad(resigned(gone), trusted).entry >= index - 1


def test_another_run_of_the_same_server_does_not_fit(run, tmp_path):
    contents, trusted = run
    write_run(tmp_path / "log", rounds=2)
    other = store.read(tmp_path / "log")
    mixed = contents.entries[:5] + other.entries[5:]
    bad(resigned(mixed), trusted, "entry 5")
    joined = contents.entries + other.entries
    error = bad(resigned(joined), trusted)
    assert error.entry > len(contents.entries) - 1


def test_witnesses_must_have_signed_the_last_checkpoint(run, tmp_path):
    contents, trusted = run
    w1, w2 = key("example.org/w1"), key("example.org/w2")
    both = with_witnesses(log_key(), w1, w2)
    bad(contents, both, r"cosigned by \[\], which is not the quorum")
    name, text = list(contents.notes.items())[-1]
    head = note.parse(text).checkpoint

    def with_lines(*lines):
        return contents._replace(notes={**contents.notes, name: text + "".join(lines)})

    bad(with_lines(w1.line(head, 9)), both, r"cosigned by \['w0'\]")
    full = with_lines(w1.line(head, 9), w2.line(head, 10))
    found = report(full, both)
    assert found.heads[-1].verdict.witnesses == {"w0": 9, "w1": 10}
    # A reader with other keys: the run's own policy is not enough.
    bad(full, both, "the policy does not know", reader=with_witnesses(key("example.org/other")))
    stranger = with_witnesses(log_key(), key("example.org/w3"))
    bad(full, both, r"cosigned by \[\]", reader=stranger)
    assert report(full, both, trusted=with_witnesses(log_key(), w2)).heads
    bad(full, trusted, "a signature by a key that the policy does not know")
    other = head._replace(root=bytes(32))
    bad(with_lines(w1.line(other, 9)), both, f"checkpoint {name}: the signature of example.org/w1")


def test_a_resumed_run_goes_on_from_a_logged_model(tmp_path):
    """Killed after round 2, continued from the checkpoint after round 1, and from elsewhere."""
    told = {}
    trusted = write_run(tmp_path / "log", rounds=3, told=told)
    contents = store.read(tmp_path / "log")
    entries = contents.entries[:-1]  # not finished
    first = cbor.decode(entries[0])
    server, agreed = told["wire"]._server, told["wire"]._agreed

    def resumed(number, model, run=b"another run id 16"[:16]):
        fields = {n: first[n] for n in records.Session._fields}
        fields |= {"run": run, "first": number, "model": codec.model_digest(encoded(model))}
        fields |= {"manifest": manifest.publish(server, agreed._replace(run=run))}
        return resigned([*entries, records.session(records.Session(**fields))])

    assert len(report(resumed(2, 2), trusted).state.runs) == 2
    assert report(resumed(2, 2), trusted).state.models.keys() == {-1, 0, 1}
    bad(resumed(2, 1), trusted, "a model that the log does not lead to")
    bad(resumed(4, 4), trusted, "a model that the log does not lead to")
    bad(resumed(2, 2, first["run"]), trusted, "begins twice")
    assert report(resumed(0, 0), trusted).state.models.keys() == {-1}
    alone = resigned([resumed(2, 2).entries[-1]])
    bad(alone, trusted, "the first run of a log begins at another round than 0")


def test_who_was_revoked_stays_so_when_a_run_goes_on(tmp_path):
    keys, told = tmp_path / "keys", {}
    trusted = write_run(tmp_path / "log", rounds=2, keys=keys, revoke_after=0, told=told)
    revoked = told["wire"]._fleet.ids[0].id
    write_run(tmp_path / "log", rounds=4, keys=keys, trusted=trusted, first=2)
    state = report(store.read(tmp_path / "log"), trusted).state
    assert state.registry.revoked == {revoked}
    assert [[(r.sender, r.code) for r in rnd.refusals] for rnd in state.rounds[2:]] == [
        [(revoked, "REVOKED")]
    ] * 2
    assert kinds(store.read(tmp_path / "log")).count("enrol") == 4


def test_equivocation_is_evidence_for_anyone(tmp_path):
    told = {}

    def clone(index, data):
        if index != 1:
            return data
        rnd, owner = told["wire"]._open.round, told["wire"]._fleet.ids[0]
        leaves = codec.decode(SPEC, encoded(9))
        return client.seal(SPEC, leaves, owner, rnd.announced, n_samples=1).envelope

    trusted = write_run(tmp_path / "log", rounds=1, clients=2, tamper=clone, told=told)
    contents = store.read(tmp_path / "log")
    found = report(contents, trusted)
    (index,) = found.state.rounds[0].convictions
    entries = list(contents.entries)
    fields = cbor.decode(entries[index])
    same = {**fields, "second": fields["first"]}
    entries[index] = cbor.encode(same)
    assert "are the same" in str(bad(resigned(entries), trusted))
    forged = {**fields, "second": {**fields["second"], "digest": bytes(64)}}
    entries[index] = cbor.encode(forged)
    assert "does not verify" in str(bad(resigned(entries), trusted))
    # What anybody could write down, and a type of message whose signature means something else.
    for change, reason in (
        ({"flags": envelope.SESSION}, "prove nothing"),
        ({"type": envelope.ANNOUNCE}, "nobody signs so"),
        ({"round": 7}, "does not verify"),
    ):
        slots = {}
        for name in ("first", "second"):
            header = envelope.unpack(fields[name]["header"])._replace(**change)
            slots[name] = {**fields[name], "header": envelope.pack(header)}
        entries[index] = cbor.encode(fields | slots)
        assert reason in str(bad(resigned(entries), trusted))


@pytest.mark.parametrize(
    "options",
    [
        {"suite": 0x0004},
        {"suite": 0x0005, "signer": "pqcrypto", "mode": "threads"},
        {"suite": 0x0002, "confidential": True},
        {"session": 2},
        {"session": 2, "confidential": True},
        {"suite": envelope.PLAINTEXT, "unsafe": True},
    ],
    ids=[
        "two signatures",
        "hash-based",
        "confidential",
        "session",
        "confidential session",
        "plaintext",
    ],
)
def test_every_way_of_exchanging_leaves_a_log_that_holds(tmp_path, options):
    trusted = write_run(tmp_path / "log", rounds=5, clients=2, **options)
    contents = store.read(tmp_path / "log")
    found = report(contents, trusted)
    assert [len(r.members) for r in found.state.rounds] == [2] * 5
    signed = "session" not in options and options.get("suite") != envelope.PLAINTEXT
    assert all(m.signed == signed for r in found.state.rounds for m in r.members)
    greeted = kinds(contents).count("hello")
    assert greeted == (6 if "session" in options else 2 if "confidential" in options else 0)
    # Sessions begin in rounds 0, 2 and 4: no HELLO signs for the last round's two updates.
    loose = 10 if "suite" in options and not signed else 2 if "session" in options else 0
    assert unsigned(found.state) == loose


def test_closing_a_session_signs_for_its_last_updates(tmp_path):
    trusted = write_run(tmp_path / "log", rounds=3, clients=2, session=2, close=True)
    contents = store.read(tmp_path / "log")
    found, which = report(contents, trusted), kinds(contents)
    assert unsigned(found.state) == 0
    assert which[-3:] == ["close", "close", "final"]
    last = max(i for i, kind in enumerate(which) if kind == "update")
    entries = list(contents.entries)
    entries[last] = cbor.encode({**cbor.decode(entries[last]), "digest": bytes(64)})
    assert bad(resigned(entries), trusted, "other updates").entry > last
    for change, reason in (
        ({"statement": bytes(36)}, "does not verify"),
        ({"signature": bytes(3309)}, "does not verify"),
    ):
        entries = list(contents.entries)
        entries[-2] = cbor.encode({**cbor.decode(entries[-2]), **change})
        assert bad(resigned(entries), trusted, reason).entry == len(entries) - 2
    twice = [*contents.entries[:-1], contents.entries[-2]]
    bad(resigned(twice), trusted, "that no HELLO began")
    inside = contents.entries[: last + 1] + contents.entries[-2:-1]
    bad(resigned(inside), trusted, "inside an open round")


def test_a_run_that_was_killed_leaves_its_sessions_unsigned(tmp_path):
    keys = tmp_path / "keys"
    trusted = write_run(tmp_path / "log", rounds=3, clients=2, session=8, keys=keys)
    more = {"session": 8, "close": True, "first": 3, "keys": keys}
    write_run(tmp_path / "log", rounds=4, clients=2, trusted=trusted, **more)
    state = report(store.read(tmp_path / "log"), trusted).state
    assert len(state.runs) == 2
    assert unsigned(state) == 6  # those of the first run; the second's one round is signed for


def test_what_a_session_did_not_sign_its_next_hello_does(tmp_path):
    """An update in a session, changed or taken out and all re-signed by the log's key."""
    trusted = write_run(tmp_path / "log", rounds=5, clients=2, session=2)
    contents = store.read(tmp_path / "log")
    which = kinds(contents)
    second = [i for i, kind in enumerate(which) if kind == "hello"][2]
    for index in (i for i, kind in enumerate(which[:second]) if kind == "update"):
        entries = list(contents.entries)
        fields = cbor.decode(entries[index])
        entries[index] = cbor.encode({**fields, "digest": bytes(64)})
        error = bad(resigned(entries), trusted)
        assert index < error.entry <= second + 1  # its sender's chain, or its sender's HELLO
    changed = dict(enumerate(contents.entries))
    fields = cbor.decode(changed[second])
    changed[second] = cbor.encode({**fields, "statement": bytes(36)})
    error = bad(resigned(list(changed.values())), trusted, "signs another statement")
    assert error.entry == second


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (b"", "entry 0 (?)"),
        (b"\xff", "entry 0 (?)"),
        (cbor.encode({"kind": "party", "version": 1}), "of no known kind"),
        (cbor.encode([1]), "of no known kind"),
        (cbor.encode({"kind": "revoke", "version": 2, "id": b""}), "of another version"),
        (cbor.encode({"kind": "revoke", "version": 1}), "fields are not those of 'revoke'"),
        (records.entry("revoke", id="text", notice=b""), "field 'id' is of another type"),
        (records.entry("revoke", id=bytes(16), notice=b""), "before any run"),
        (records.entry("final", run=b"", rounds=0, model=b"", params=b""), "before any run"),
        (records.entry("reject", run=b"", round=0, sender=b"", code=""), "outside of a round"),
    ],
)
def test_misplaced_entries_are_one_sentence(entry, message):
    with pytest.raises(LogError) as caught:
        chain.step(chain.State(), entry, chain.At(0, merkle.Tree(), "openssl"))
    assert message in str(caught.value)
    assert str(caught.value).startswith("entry 0 (")


ODD = (
    0,
    7,
    2**63,
    b"",
    bytes(16),
    bytes(218),
    "x",
    [],
    {},
    [0],
    [[b""]],
    [[b"", 1]],
    {"a": 1},
    1.5,
)


def test_whatever_an_entry_holds_only_log_errors_escape(run, tmp_path):
    """Every field of every entry replaced by something odd, also inside of what it holds."""
    contents, _ = run
    write_run(tmp_path / "log", rounds=3, clients=2, session=2)
    tried = 0
    for entries in (contents.entries, store.read(tmp_path / "log").entries):
        state, tree = chain.State(), merkle.Tree([merkle.leaf_hash(entry) for entry in entries])
        seen = set()
        for index, entry in enumerate(entries):
            at = chain.At(index, tree, "openssl")
            fields = cbor.decode(entry)
            for name in fields if fields["kind"] not in seen else ():
                for value in ODD:
                    tried += value != fields[name]
                    with contextlib.suppress(LogError):
                        chain.step(state, cbor.encode(fields | {name: value}), at)
            seen.add(fields["kind"])
            state = chain.step(state, entry, at)
    assert tried > 900


def test_an_empty_log_is_no_log():
    trusted = policy.parse(policy.render(with_witnesses(log_key())))
    bad(store.Contents([], [], {}, 0), trusted, "no checkpoint")
