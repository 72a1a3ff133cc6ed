"""Everything that reads the transparency log, given altered bytes: LogError, and nothing forged.

``python -m tests.fuzz.log_target`` first alters genuine texts and entries blindly and prints what
came of them, then runs under atheris (the extra ``fuzz``; see ``make fuzz``); the default tests
call ``mutations`` with fewer.
"""

import functools
import json
import pathlib
import tempfile
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from qoejax.wire import cbor
from qoejax.wire.log import audit, chain, merkle, note, policy, proof, records, store, sums, witness
from qoejax.wire.log.errors import LogError
from tests.fuzz import harness
from tests.fuzz.envelope_target import mutants
from tests.wire.log.helpers import (
    key,
    log_key,
    make_witness,
    with_witnesses,
    write_run,
)

SIGNED = ("run", "enrol", "announce", "hello", "update", "close")
"""Kinds of entries in which somebody else than the log has signed nearly everything."""
FREE = {"run": ("first", "model", "config", "policy")}
"""Fields that only the log vouches for."""


class Target(NamedTuple):
    """A genuine text or entry, and what its reader makes of bytes in its place.

    ``read`` returns what was accepted; only what equals ``known`` may be.
    """

    genuine: bytes
    read: Callable[[bytes], object]
    known: object


class Scene(NamedTuple):
    """A short run's log with two witnesses."""

    contents: store.Contents
    trusted: policy.Policy
    tree: merkle.Tree


@functools.cache
def scene(rounds: int = 2) -> Scene:
    """In sessions of so many rounds; with 0 every update is signed."""
    one, two = key("example.org/w0"), key("example.org/w1")
    trusted = with_witnesses(log_key(), one, two)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fuzz-log-"))
    write_run(
        folder / "log", rounds=2, clients=2, session=rounds, trusted=trusted, close=rounds > 0
    )
    contents = store.read(folder / "log")
    tree = merkle.Tree([merkle.leaf_hash(entry) for entry in contents.entries])
    name, text = list(contents.notes.items())[-1]
    head = note.parse(text).checkpoint
    contents.notes[name] = text + one.line(head, 5) + two.line(head, 6)
    return Scene(contents, trusted, tree)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _last() -> note.Note:
    return note.parse(list(scene().contents.notes.values())[-1])


def _note() -> Target:
    """A checkpoint: only the one that log and witnesses signed passes their policy."""

    def read(data: bytes) -> object:
        found = note.parse(_text(data))
        assert found.text == _text(data)
        if not policy.check(scene().trusted, found).quorum:
            raise LogError("no quorum")
        return found.checkpoint

    return Target(_last().text.encode(), read, _last().checkpoint)


def _receipt() -> Target:
    at, index = scene(), 3
    path = at.tree.inclusion(index)
    receipt = proof.Receipt(index, path, _last(), at.contents.entries[index])

    def read(data: bytes) -> object:
        found = proof.parse(_text(data))
        proof.verify(found, at.trusted)
        return found.index, found.entry, found.note.checkpoint

    return Target(proof.render(receipt).encode(), read, (index, receipt.entry, _last().checkpoint))


def _request() -> Target:
    """A witness cosigns the genuine checkpoint, or refuses; it never raises."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fuzz-witness-"))
    one = make_witness(folder, "example.org/w2", log_key())
    body = proof.request(0, (), _last())

    def read(data: bytes) -> object:
        for path in folder.iterdir():
            if path.is_file():
                path.unlink()
        answer = witness.add_checkpoint(one, _text(data), 7)
        if answer.status != 200:
            raise LogError(answer.body)
        return proof.parse_request(_text(data))[2].checkpoint

    return Target(body.encode(), read, _last().checkpoint)


def _policy() -> Target:
    """A policy that is read can be written and read again; it carries no signature."""
    text = policy.render(scene().trusted)

    def read(data: bytes) -> object:
        found = policy.parse(_text(data))
        assert policy.parse(policy.render(found)) == found
        raise LogError("read and written back")

    return Target(text.encode(), read, None)


def _entry(kind: str) -> Target:
    """An entry after those before it: what others signed cannot be changed."""
    at, state = scene(2 if kind in ("hello", "close") else 0), chain.State()
    for index, entry in enumerate(at.contents.entries):
        where = chain.At(index, at.tree, "openssl")
        if cbor.decode(entry)["kind"] == kind:
            break
        state = chain.step(state, entry, where)
    free = FREE.get(kind, ())

    def bound(data: bytes) -> object:
        return {k: v for k, v in cbor.decode(data).items() if k not in free}

    def read(data: bytes) -> object:
        chain.step(state, data, where)
        if cbor.decode(data)["kind"] not in SIGNED:
            raise LogError("an entry that only the log vouches for")
        return bound(data)

    return Target(entry, read, bound(entry))


def _file() -> Target:
    """The file of entries: nothing but the genuine one passes the audit."""
    at = scene()
    whole = b"".join(len(e).to_bytes(4, "big") + e for e in at.contents.entries)

    def read(data: bytes) -> object:
        entries, torn = store.frames(data)
        audit.audit(at.contents._replace(entries=entries, torn=torn), at.trusted)
        return entries

    return Target(whole, read, at.contents.entries)


MAKERS = (
    _note,
    _receipt,
    _request,
    _file,
    *(functools.partial(_entry, kind) for kind in SIGNED),
    _policy,
)


@functools.cache
def target(which: int) -> Target:
    """The target of a number."""
    return MAKERS[which]()


def read(which: int, data: bytes) -> str:
    """Gives a reader bytes; "refused", or "accepted" if it took them for what is genuine.

    Any other exception escapes, and so does the acceptance of anything else.
    """
    one = target(which)
    try:
        found = one.read(data)
    except LogError:
        return "refused"
    assert found == one.known, f"target {which} accepted {data!r}"
    return "accepted"


def mutations(count: int, seed: int = 0) -> Counter:
    """Alters every genuine text and entry, ``count`` times in all; how many were refused.

    "accepted" are those that say the same: a stranger's signature line, a blank in a policy.
    """
    rng, found = np.random.default_rng(seed), Counter()
    for which in range(len(MAKERS)):
        genuine = target(which).genuine
        found["genuine"] += read(which, genuine) == "accepted"
        for data in mutants(genuine, rng, -(-count // len(MAKERS)), genuine):
            found[read(which, data)] += 1
    return found


def main() -> None:
    """Counts, then fuzzes: the first byte chooses the reader."""
    print(json.dumps({"log": mutations(5_500)}), flush=True)

    def one(folder: pathlib.Path, data: bytes) -> None:
        del folder
        if data:
            read(data[0] % len(MAKERS), data[1:])

    seeds = [bytes([which]) + target(which).genuine for which in range(len(MAKERS))]
    modules = (cbor, note, policy, proof, records, chain, sums, store, merkle)
    harness.run(seeds, modules, one)


if __name__ == "__main__":
    main()
