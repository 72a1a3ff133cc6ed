"""A whole log re-checked from its files: tree, checkpoints, signatures, what entries claim."""

from typing import NamedTuple

from qoejax.wire.log import chain, merkle, note, policy
from qoejax.wire.log.chain import State
from qoejax.wire.log.errors import LogError
from qoejax.wire.log.merkle import Tree
from qoejax.wire.log.note import Note
from qoejax.wire.log.policy import Policy, Verdict
from qoejax.wire.log.store import Contents


class Head(NamedTuple):
    """A checkpoint that holds, and who signed it when."""

    note: Note
    verdict: Verdict


class Report(NamedTuple):
    """A log in which everything holds.

    Attributes:
        tree: over all entries.
        heads: its checkpoints in order of size.
        state: what the entries add up to.
        signatures: how many were verified, on entries and on checkpoints.
    """

    tree: Tree
    heads: tuple[Head, ...]
    state: State
    signatures: int


def audit(
    contents: Contents,
    own: Policy,
    trusted: Policy | None = None,
    *,
    verifier: str = "openssl",
) -> Report:
    """Re-checks every entry, hash, checkpoint and signature.

    Args:
        contents: what ``store.read`` found.
        own: the policy that lies with the log; every signature must be by a key of it.
        trusted: what the reader trusts beforehand, whose log and quorum must then have signed the
            last checkpoint; by default ``own``, which shows that the log agrees with itself.
        verifier: name of the ML-DSA-65 implementation.

    Raises:
        LogError: names the first entry, or the checkpoint, that is wrong.
    """
    entries = contents.entries
    tree = Tree([merkle.leaf_hash(entry) for entry in entries])
    heads = _heads(contents, own, tree, verifier)
    size = heads[-1].note.checkpoint.size if heads else 0
    if len(entries) > size or contents.torn:
        raise LogError(f"entry {size}: no checkpoint counts it (was the run killed?)", size)
    odd = _odd(contents, tree, max(tree.size, len(contents.hashes)))
    if odd is not None:
        raise LogError(f"entry {odd}: its hash in the file of hashes is wrong", odd)
    if not heads:
        raise LogError("the log has no checkpoint")
    state = _fold(State(), entries, tree, verifier)
    judge = own if trusted is None else trusted
    verdict = policy.check(judge, heads[-1].note)
    if not verdict.quorum:
        raise LogError(
            f"checkpoint {size}: cosigned by {sorted(verdict.witnesses)}, which is not the quorum "
            f"{judge.quorum!r}"
        )
    signed = sum(1 + len(head.verdict.witnesses) for head in heads)
    return Report(tree, heads, state, state.signatures + signed)


def _heads(contents: Contents, own: Policy, tree: Tree, verifier: str) -> tuple[Head, ...]:
    """Every checkpoint, verified and found in the tree."""
    heads = []
    before = 0
    for name, text in contents.notes.items():
        head = _head(name, text, own, before)
        size, root = head.note.checkpoint.size, head.note.checkpoint.root
        if size > tree.size:
            odd = _odd(contents, tree, tree.size)
            raise LogError(
                f"entry {tree.size if odd is None else odd}: missing or cut, though checkpoint "
                f"{size} counts it",
                tree.size if odd is None else odd,
            )
        if tree.root(size) != root:
            raise _mismatch(contents, tree, (before, size), verifier)
        heads.append(head)
        before = size
    return tuple(heads)


def _head(name: str, text: str, own: Policy, before: int) -> Head:
    try:
        found = note.parse(text)
        verdict = policy.check(own, found)
    except (LogError, UnicodeError) as error:
        raise LogError(f"checkpoint {name}: {error}") from None
    size = found.checkpoint.size
    if name != f"{size:010d}" or size <= before:
        raise LogError(f"checkpoint {name}: is of size {size}, after one of size {before}")
    if verdict.unknown:
        raise LogError(f"checkpoint {name}: a signature by a key that the policy does not know")
    if found.text != _canonical(found):
        raise LogError(f"checkpoint {name}: not in its only form")
    return Head(found, verdict)


def _canonical(found: Note) -> str:
    lines = found.text.rpartition("\n\n")[2]
    return f"{note.body(found.checkpoint)}\n{lines}"


def _fold(state: State, entries: list[bytes], tree: Tree, verifier: str) -> State:
    for index, entry in enumerate(entries):
        state = chain.step(state, entry, chain.At(index, tree, verifier))
    return state


def _odd(contents: Contents, tree: Tree, end: int) -> int | None:
    """The first of ``end`` entries whose hash is not the one that was written beside it."""
    for index in range(end):
        if index >= tree.size or contents.hashes[index : index + 1] != [tree.leaf(index)]:
            return index
    return None


def _mismatch(contents: Contents, tree: Tree, span: tuple[int, int], verifier: str) -> LogError:
    """Which of the entries between two checkpoints is not the one that was signed."""
    start, end = span
    odd = _odd(contents, tree, end)
    if odd is not None:
        return LogError(f"entry {odd}: not the one whose hash was logged", odd)
    try:
        _fold(State(), contents.entries[:end], tree, verifier)
    except LogError as error:
        return error
    return LogError(
        f"entry {start}: entries {start} to {end - 1} are not those that checkpoint {end} signs",
        start,
    )
