"""Witnesses: what they cosign, what they refuse, and forks that they find."""

import random

import pytest

from qoejax.wire.log import merkle, note, policy, proof, witness
from qoejax.wire.log.errors import LogError
from qoejax.wire.log.note import Checkpoint
from tests.wire.log.helpers import key, make_witness, with_witnesses

ORIGIN = "example.org/log"


def grown(entries):
    return merkle.Tree([merkle.leaf_hash(entry) for entry in entries])


def signed(tree, size=None, log=None):
    size = tree.size if size is None else size
    head = Checkpoint((log or key()).verifier.name, size, tree.root(size))
    return note.assemble(head, (log or key()).line(head, size))


def ask(one, tree, old, size=None, now=100):
    size = tree.size if size is None else size
    body = proof.request(old, tree.consistency(old, size), signed(tree, size))
    return witness.add_checkpoint(one, body, now)


@pytest.fixture
def one(tmp_path):
    return make_witness(tmp_path / "w1", "example.org/w1", key())


A = [b"a%d" % i for i in range(30)]
B = A[:10] + [b"b%d" % i for i in range(20)]


def test_a_growing_log_is_cosigned_and_remembered(one):
    tree = grown(A)
    for old, size in ((0, 3), (3, 3), (3, 17), (17, 30)):
        answer = ask(one, tree, old, size, now=1000 + size)
        assert answer.status == 200
        found = note.assemble(Checkpoint(ORIGIN, size, tree.root(size)), answer.body)
        assert note.verify(found, one.cosigner.verifier) == 1000 + size
        again = one._replace()  # nothing but the folder remembers
        assert witness.remembered(again, ORIGIN).checkpoint.size == size


def test_refusals_follow_the_standard(one):
    tree = grown(A)
    assert ask(one, tree, 0, 10).status == 200
    conflict = ask(one, tree, 5, 12)
    assert (conflict.status, conflict.body, conflict.kind) == (409, "10\n", witness.SIZE_TYPE)
    good = proof.request(10, tree.consistency(10, 12), signed(tree, 12))
    cases = {
        400: ["", "old 1", good.replace("old 10", "old 010"), good.replace("\n\n", "\n", 1)],
        422: [proof.request(10, tree.consistency(9, 12), signed(tree, 12)),
              proof.request(10, (), signed(tree, 12))],
        404: [proof.request(0, (), signed(tree, 12, key("example.org/unknown")))],
        403: [good.replace(f"— {ORIGIN} ", "— example.org/x ")],
    }  # fmt: skip
    other = key("example.org/log2")
    head = Checkpoint(ORIGIN, 12, tree.root(12))
    cases[403].append(proof.request(10, (), note.assemble(head, other.line(head, 1))))
    broken = signed(tree, 12).text.replace("\n12\n", "\n13\n")
    cases[403].append(f"old 10\n\n{broken}")
    for status, bodies in cases.items():
        for body in bodies:
            assert witness.add_checkpoint(one, body, 1).status == status, body[:60]
    too_old = proof.request(13, (), signed(tree, 12))
    assert witness.add_checkpoint(one, too_old, 1).status == 400
    assert witness.remembered(one, ORIGIN).checkpoint.size == 10
    assert witness.add_checkpoint(one, good, 1).status == 200


def test_a_rollback_is_refused(one):
    tree = grown(A)
    ask(one, tree, 0, 20)
    assert ask(one, tree, 10, 15).status == 409
    assert ask(one, tree, 15, 15).status == 409
    assert witness.remembered(one, ORIGIN).checkpoint.size == 20


def test_a_fork_after_the_remembered_size_is_no_fork_to_this_witness(one):
    """It has seen ten entries only; both continuations agree on them, the first one wins."""
    ask(one, grown(A), 0, 10)
    assert ask(one, grown(A), 10, 20).status == 200
    assert ask(one, grown(B), 10, 20).status == 409
    assert ask(one, grown(B), 20, 20).status == 409
    assert ask(one, grown(B), 20, 30).status == 422


def test_a_log_forked_to_two_witnesses_is_convicted(tmp_path):
    """Each witness sees its own history: no quorum of both, and two notes that prove the fork."""
    w1 = make_witness(tmp_path / "w1", "example.org/w1", key())
    w2 = make_witness(tmp_path / "w2", "example.org/w2", key())
    for one in (w1, w2):
        assert ask(one, grown(A), 0, 10).status == 200
    lines = {}
    for one, tree in ((w1, grown(A)), (w2, grown(B))):
        answer = ask(one, tree, 10, 20)
        assert answer.status == 200
        lines[one.cosigner.verifier.name] = answer.body
    # Neither accepts the other's history any more, in whichever way it is put.
    assert ask(w1, grown(B), 20, 20).status == 409
    assert ask(w2, grown(A), 20, 30).status == 422
    trusted = with_witnesses(key(), w1.cosigner, w2.cosigner)
    for name, tree in (("example.org/w1", grown(A)), ("example.org/w2", grown(B))):
        text = signed(tree, 20).text + lines[name]
        assert not policy.check(trusted, note.parse(text)).quorum
        other = {"example.org/w1": "example.org/w2", "example.org/w2": "example.org/w1"}[name]
        with pytest.raises(LogError, match="does not verify"):
            policy.check(trusted, note.parse(text + lines[other]))
    # Their memories, side by side, convict the log: both notes carry its signature.
    memories = [witness.remembered(one, ORIGIN) for one in (w1, w2)]
    assert witness.contradict(*memories, key().verifier)
    assert not witness.contradict(memories[0], memories[0], key().verifier)
    with pytest.raises(LogError, match=r"is not by example.org/other"):
        witness.contradict(*memories, key("example.org/other").verifier)
    # And the one that was asked twice kept the evidence by itself.
    (evidence,) = (w1.folder / "evidence").iterdir()
    assert witness.contradict(memories[0], note.parse(evidence.read_text()), key().verifier)


def test_a_damaged_memory_stops_the_witness(one):
    tree = grown(A)
    ask(one, tree, 0, 10)
    (path,) = [p for p in one.folder.iterdir() if p.is_file()]
    text = path.read_text()
    path.write_text(text.replace("\n10\n", "\n9\n"))
    with pytest.raises(LogError, match="memory is damaged"):
        ask(one, tree, 10, 20)
    path.write_text(signed(tree, 10).text)
    with pytest.raises(LogError, match="not the memory of this witness"):
        ask(one, tree, 10, 20)


def test_requests_survive_no_flipped_byte(one):
    """Any changed byte of a request is refused; the witness's memory stays where it was."""
    tree = grown(A)
    ask(one, tree, 0, 10)
    body = proof.request(10, tree.consistency(10, 25), signed(tree, 25)).encode()
    rng = random.Random(0)
    front = body.index("— ".encode()) + 40
    for at in [*range(front), *rng.sample(range(front, len(body)), 300)]:
        changed = bytearray(body)
        changed[at] ^= 1 << rng.randrange(7)
        try:
            text = changed.decode()
        except UnicodeDecodeError:
            continue
        assert witness.add_checkpoint(one, text, 1).status in (400, 403, 404, 409, 422), at
    assert witness.remembered(one, ORIGIN).checkpoint.size == 10


def test_receipts_round_trip_and_are_bound_to_everything_in_them(one):
    tree = grown(A)
    answer = ask(one, tree, 0, 30)
    full = note.parse(signed(tree).text + answer.body)
    trusted = with_witnesses(key(), one.cosigner)
    receipt = proof.Receipt(7, tree.inclusion(7), full, A[7])
    text = proof.render(receipt)
    assert text.startswith("c2sp.org/tlog-proof@v1\nextra ")
    assert proof.parse(text) == receipt
    assert proof.verify(receipt, trusted).quorum
    for bad in (
        receipt._replace(entry=A[8]),
        receipt._replace(index=8),
        receipt._replace(path=receipt.path[1:]),
        receipt._replace(note=signed(tree)),
        receipt._replace(note=note.parse(signed(grown(B)).text)),
    ):
        with pytest.raises(LogError):
            proof.verify(bad, trusted)
    with pytest.raises(LogError, match="the policy does not know"):
        proof.verify(receipt, with_witnesses(key("example.org/other")))
    for change in (
        lambda t: t.replace("@v1", "@v2"),
        lambda t: t.replace("index 7", "index 07"),
        lambda t: t.replace("extra ", "extr "),
        lambda t: t.replace("index 7\n", "index 7\nAAAA\n"),
        lambda t: t.replace("index 7\n", "index 7\n" + 64 * (t.split("\n")[3] + "\n")),
    ):
        with pytest.raises(LogError):
            proof.parse(change(text))
