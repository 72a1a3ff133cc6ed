"""Everything that reads bytes from a peer, given altered ones: a code, and never acceptance.

``python -m tests.fuzz.envelope_target`` first alters genuine messages blindly, 100 000 times, and
prints what came of them, then runs under atheris (the extra ``fuzz``; see ``make fuzz``); the
default tests call ``mutations`` with fewer.
"""

import functools
import json
import pathlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from qoejax.wire import (
    announce,
    cbor,
    client,
    envelope,
    manifest,
    revocation,
    server,
    session,
)
from qoejax.wire.codec import spec_digest
from qoejax.wire.errors import EnvelopeError
from tests.fuzz import harness
from tests.wire import helpers
from tests.wire.helpers import MODEL, NOW, RUN, SPEC

ROUNDS = 4


class Target(NamedTuple):
    """A genuine message, and what its receiver does with bytes in its place."""

    genuine: bytes
    receive: Callable[[bytes], object]


def _update() -> Target:
    at = helpers.scene()
    return Target(helpers.seal(at).envelope, lambda data: helpers.deliver(at, data))


def _hello() -> Target:
    at, one = helpers.scene(session=ROUNDS), helpers.scene().clients[0]
    told = at.round.announced
    header = client.hello_header(told, one.id, 0, client.Chain())
    key = told.announce.round_key
    sealed = envelope.seal_update(header, session.statement(None), key, one.sign)
    return Target(sealed.envelope, lambda data: helpers.deliver(at, data))


def _in_session() -> Target:
    at, one = helpers.scene(session=ROUNDS), helpers.scene().clients[0]
    told = at.round.announced
    header = client.hello_header(told, one.id, 0, client.Chain())
    key = told.announce.round_key
    hello = envelope.seal_update(header, session.statement(None), key, one.sign)
    state, _ = helpers.deliver(at, hello.envelope)
    assert hello.exports is not None
    message_key, _ = session.take(session.begin(hello.exports.session, header, NOW))
    chain = client.Chain(1, hello.transcript[:32])
    header = client.in_session(client.update_header(told, one.id, 0, chain, 5, len(MODEL)))
    sealed = session.seal(header, MODEL, message_key)
    return Target(sealed.envelope, lambda data: helpers.deliver(at, data, state))


def _announce() -> Target:
    at = helpers.scene(confidential=True)
    key = at.server.public
    return Target(at.data, lambda data: announce.read(data, key, RUN, verifier="openssl"))


def _manifest() -> Target:
    at = helpers.scene()
    key = at.server.public
    facts = manifest.Manifest(RUN, at.server.id, 1, spec_digest(SPEC))
    data = manifest.publish(at.server, facts)
    return Target(data, lambda data: manifest.read(data, key, verifier="openssl"))


def _notice() -> Target:
    at, none = helpers.scene(), client.Chain()
    key = at.server.public
    data, _ = revocation.seal(at.server, RUN, 1, none, at.clients[0].id, 1)
    return Target(data, lambda data: revocation.read(data, key, RUN, 1, none, verifier="openssl"))


def _body() -> Target:
    """CBOR alone: whatever decodes encodes to the same bytes."""
    data = helpers.scene().data
    size = int.from_bytes(data[218:222], "big")

    def receive(data: bytes) -> None:
        assert cbor.encode(cbor.decode(data)) == data
        raise EnvelopeError(announce.Code.FORMAT, "read and written back")

    return Target(data[222 : 222 + size], receive)


MAKERS = (_update, _in_session, _hello, _announce, _manifest, _notice, _body)


@functools.cache
def target(which: int) -> Target:
    """The target of a number, with its genuine message."""
    return MAKERS[which]()


def receive(which: int, data: bytes) -> str:
    """Gives a target bytes; the code by which it refused, or "accepted" for the genuine ones.

    Any other exception escapes, and so does the acceptance of anything else.
    """
    one = target(which)
    try:
        one.receive(data)
    except EnvelopeError as error:
        return str(error.code)
    assert data == one.genuine, f"{MAKERS[which].__name__} accepted {data.hex()}"
    return "accepted"


def mutants(
    genuine: bytes, rng: np.random.Generator, count: int, other: bytes | None = None
) -> Iterator[bytes]:
    """Altered copies: bits, bytes, lengths, blocks moved, doubled and dropped, fields of others.

    Fields come from ``other``, or from a genuine message of any target here.
    """
    size = len(genuine)
    for i in range(count):
        data = bytearray(genuine)
        a, b = sorted(int(n) for n in rng.integers(0, size + 1, 2))
        kind = i % 8
        if kind < 2:  # mostly in the header: the rest is one authenticated block
            data[int(rng.integers(min(size, 218 if kind else size)))] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            data[a:b] = rng.bytes(b - a)
        elif kind == 3:
            data[a:b] = b""
        elif kind == 4:
            data[a:a] = data[a:b] or b"\0"
        elif kind == 5:
            data = data[b:] + data[a:b] + data[:a]
        elif kind == 6:
            data[a : a + 8] = int(rng.integers(2**63)).to_bytes(8, "big")
        else:
            source = target(int(rng.integers(len(MAKERS)))).genuine if other is None else other
            at = a if other is None else int(rng.integers(len(source)))
            data[a:b] = source[at : at + b - a]
        if bytes(data) != genuine:
            yield bytes(data)


def mutations(count: int, seed: int = 0) -> Counter:
    """Delivers ``count`` altered messages or a few less; how many were refused with each code."""
    rng, codes = np.random.default_rng(seed), Counter()
    signed = len(MAKERS) - 1  # an altered body alone may well be proper CBOR
    share = -(-count // signed)
    for which in range(signed):
        assert receive(which, target(which).genuine) == "accepted"
        for data in mutants(target(which).genuine, rng, share):
            codes[receive(which, data)] += 1
    return codes


def main() -> None:
    """Counts, then fuzzes: the first byte chooses the target."""
    codes = mutations(105_000)  # a few come out unaltered
    line = {"mutated": sum(codes.values()), "accepted": codes["accepted"], "codes": dict(codes)}
    print(json.dumps(line), flush=True)

    def one(folder: pathlib.Path, data: bytes) -> None:
        del folder
        if data:
            receive(data[0] % len(MAKERS), data[1:])

    seeds = [bytes([which]) + target(which).genuine for which in range(len(MAKERS))]
    modules = (announce, cbor, envelope, manifest, revocation, server, session)
    harness.run(seeds, modules, one)


if __name__ == "__main__":
    main()
