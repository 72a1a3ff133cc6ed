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
    heads = []
    before = 0
    state = State()
    for name, text in contents.notes.items():
        head = _head(name, text, own, before)
        size = head.note.checkpoint.size
        if size > len(entries):
            raise LogError(
                f"entry {len(entries)}: missing or cut, though checkpoint {size} counts it",
                len(entries),
            )
        if tree.root(size) != head.note.checkpoint.root:
            raise _mismatch(contents, tree, state, (before, size), verifier)
        state = _fold(state, entries, (before, size), tree, verifier)
        heads.append(head)
        before = size
    if len(entries) > before or contents.torn:
        raise LogError(f"entry {before}: no checkpoint counts it (was the run killed?)", before)
    _hashes(contents, tree)
    if not heads:
        raise LogError("the log has no checkpoint")
    verdict = policy.check(own if trusted is None else trusted, heads[-1].note)
    if not verdict.quorum:
        wanted = (own if trusted is None else trusted).quorum
        raise LogError(
            f"checkpoint {before}: cosigned by {sorted(verdict.witnesses)}, which is not the "
            f"quorum {wanted!r}"
        )
    signed = sum(1 + len(head.verdict.witnesses) for head in heads)
    return Report(tree, tuple(heads), state, state.signatures + signed)


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


def _fold(
    state: State, entries: list[bytes], span: tuple[int, int], tree: Tree, verifier: str
) -> State:
    for index in range(*span):
        state = chain.step(state, entries[index], chain.At(index, tree, verifier))
    return state


def _mismatch(
    contents: Contents, tree: Tree, state: State, span: tuple[int, int], verifier: str
) -> LogError:
    """Which of the entries between two checkpoints is not the one that was signed."""
    for index in range(*span):
        if contents.hashes[index : index + 1] != [tree.leaf(index)]:
            return LogError(f"entry {index}: not the one whose hash was logged", index)
    try:
        _fold(state, contents.entries, span, tree, verifier)
    except LogError as error:
        return error
    start, end = span
    return LogError(
        f"entry {start}: entries {start} to {end - 1} are not those that checkpoint {end} signs",
        start,
    )


def _hashes(contents: Contents, tree: Tree) -> None:
    for index in range(max(tree.size, len(contents.hashes))):
        if index >= tree.size or contents.hashes[index : index + 1] != [tree.leaf(index)]:
            raise LogError(f"entry {index}: its hash in the file of hashes is wrong", index)
