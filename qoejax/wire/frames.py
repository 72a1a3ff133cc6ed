r"""What the two ends of a real network say to each other, beside the envelopes themselves.

The server asks, a client answers; both are bytes, and how they travel is not this module's. One
question is ``Who``, the first on every connection; its answer is a ``Join``. The other is ``Turn``,
one announcement and where the server stands with this client; its answer is one envelope (HELLO or
UPDATE), or nothing. Asking twice is harmless, and whoever reads, changes, drops, delays or repeats
frames gains nothing that the envelopes do not already rule out: all that a client acts on in a Turn
is signed, for this client and this announcement.

    Who  = {kind: "who", nonce [32], server (key), config [32]}
    Join = {client, entry, signature}; signed is "qoejax/v1/join\0" || nonce || server id || config
           || u64 client || id
    Turn = {kind: "turn", manifest, announcement, seq, prev [32], grant, signature}; signed is
           "qoejax/v1/turn\0" || announcement's digest || client's id || u64 seq || prev

All are deterministic CBOR maps. No JAX.
"""

from typing import Any, NamedTuple

from qoejax.wire import cbor, enrolment, keys, sign, suites
from qoejax.wire.client import Chain
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.keys import Entry, Identity

JOIN, TURN = b"qoejax/v1/join", b"qoejax/v1/turn"
"""Contexts of the two signatures."""


class Who(NamedTuple):
    """The server asks who is at the other end.

    Attributes:
        nonce: fresh [32], so that an answer cannot be shown again.
        server: public key of the server.
        config: digest [32] of what both ends must have configured alike.
    """

    nonce: bytes
    server: bytes
    config: bytes


class Join(NamedTuple):
    """A client says who it is, as which of the run's clients, and proves its key."""

    client: int
    entry: Entry
    signature: bytes


class Turn(NamedTuple):
    """An announcement for one client.

    Attributes:
        manifest: of the run, signed.
        announcement: of the round, signed.
        head: where the client's chain stands at the server.
        grant: the model's key, where models are confidential and this client may have it.
        signature: of the server, over the announcement's digest, the client and ``head``.
    """

    manifest: bytes
    announcement: bytes
    head: Chain
    grant: bytes = b""
    signature: bytes = b""


def pack(question: Who | Turn) -> bytes:
    """A question as bytes."""
    if isinstance(question, Who):
        return cbor.encode({"kind": "who", **question._asdict()})
    fields = question._asdict()
    return cbor.encode({"kind": "turn", **fields.pop("head")._asdict(), **fields})


def parse(data: bytes) -> Who | Turn:
    """Inverse of ``pack``, nothing verified; FORMAT for anything else."""
    fields = cbor.decode(data)
    kind = fields.pop("kind", None) if isinstance(fields, dict) else None
    if kind == "who":
        _check(fields, {"nonce": 32, "server": 0, "config": 32})
        return Who(**fields)
    if kind == "turn":
        seq = fields.pop("seq", None)
        _check(fields, {"manifest": 0, "announcement": 0, "prev": 32, "grant": 0, "signature": 0})
        _number(seq, "seq")
        return Turn(head=Chain(seq, fields.pop("prev")), **fields)
    raise EnvelopeError(Code.FORMAT, "neither who nor turn")


def _stands(announced: bytes, name: bytes, head: Chain) -> bytes:
    return b"".join((TURN, b"\0", announced, name, head.seq.to_bytes(8, "big"), head.prev))


def sign_turn(identity: Identity, announced: bytes, name: bytes, turn: Turn) -> Turn:
    """The turn signed for the client of id ``name``; ``announced`` is the announcement's digest."""
    said = _stands(announced, name, turn.head)
    return turn._replace(signature=identity.sign(said, TURN))


def check_turn(
    turn: Turn, announced: bytes, name: bytes, server_key: bytes, scheme: str, verifier: str
) -> None:
    """SIGNATURE unless the server signed this turn for this client and announcement."""
    said, verify = _stands(announced, name, turn.head), sign.provider(verifier, scheme).verify
    if not verify(server_key, said, turn.signature, TURN):
        raise EnvelopeError(Code.SIGNATURE, "the turn is not the server's, or is someone else's")


def _check(fields: Any, sizes: dict[str, int]) -> None:
    """Byte strings under exactly these names, of these sizes; 0 is any."""
    if not isinstance(fields, dict) or set(fields) != set(sizes):
        raise EnvelopeError(Code.FORMAT, "the frame's fields are not those of version 1")
    for name, size in sizes.items():
        if not isinstance(fields[name], bytes) or (size and len(fields[name]) != size):
            raise EnvelopeError(Code.FORMAT, f"frame: {name} needs {size or 'some'} bytes")


def _number(value: Any, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**64:
        raise EnvelopeError(Code.FORMAT, f"frame: {name} needs an unsigned integer")


def _said(asked: Who, client: int, name: bytes) -> bytes:
    parts = (JOIN, b"\0", asked.nonce, keys.key_id(asked.server), asked.config)
    return b"".join((*parts, client.to_bytes(8, "big"), name))


def join(asked: Who, identity: Identity, client: int, suite: int) -> bytes:
    """The answer to ``asked``: client number ``client``, with this key."""
    entry = keys.enrol(identity, (suite,))
    signature = identity.sign(_said(asked, client, identity.id), JOIN)
    fields = {"client": client, "entry": enrolment.pack_entry(entry), "signature": signature}
    return cbor.encode(fields)


def joined(asked: Who, data: bytes, verifier: str = "pqcrypto") -> Join:
    """Who answered: the entry's proof of possession and the answer's signature hold.

    Whether this key may take part is not decided here.

    Raises:
        EnvelopeError: FORMAT, SUITE or SIGNATURE.
    """
    fields = cbor.decode(data)
    if not isinstance(fields, dict) or set(fields) != set(Join._fields):
        raise EnvelopeError(Code.FORMAT, "not an answer to who")
    _number(fields["client"], "client")
    if not isinstance(fields["signature"], bytes):
        raise EnvelopeError(Code.FORMAT, "frame: signature needs some bytes")
    found = Join(fields["client"], enrolment.unpack_entry(fields["entry"]), fields["signature"])
    keys.register([found.entry], verifier)
    verify = sign.provider(verifier, suites.scheme_of(found.entry.suites)).verify
    said = _said(asked, found.client, found.entry.id)
    if not verify(found.entry.public, said, found.signature, JOIN):
        raise EnvelopeError(Code.SIGNATURE, f"client {found.client} does not prove its key")
    return found
