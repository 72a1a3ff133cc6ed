"""What holds for a whole run, signed once: its suite, layout, sessions and confidentiality.

A client reads it when it joins and holds every announcement against it, so neither end can be
talked into another suite later: there is nothing to negotiate.

    manifest = u32 length || body (deterministic CBOR map) || signature
"""

from typing import NamedTuple

from qoejax.wire import cbor, sign, suites
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.keys import Identity, key_id

CONTEXT = b"qoejax/v1/manifest"
_WIDTHS = {"run": 16, "server": 16, "tree_spec": 32}


class Manifest(NamedTuple):
    """The facts of a run.

    Attributes:
        run: id [16].
        server: id [16] of the one server.
        suite: number of the one suite.
        tree_spec: ``codec.spec_digest`` [32] of an update.
        session: rounds that a session lasts, 0 for none.
        confidential: whether models are encrypted.
    """

    run: bytes
    server: bytes
    suite: int
    tree_spec: bytes
    session: int = 0
    confidential: bool = False


def publish(identity: Identity, manifest: Manifest) -> bytes:
    """The signed bytes; FORMAT or SUITE for a manifest that could not be read."""
    _check(manifest)
    body = cbor.encode(manifest._asdict() | {"confidential": int(manifest.confidential)})
    return len(body).to_bytes(4, "big") + body + identity.sign(body, CONTEXT)


def read(
    data: bytes, server_key: bytes, *, verifier: str = "pqcrypto", unsafe: bool = False
) -> Manifest:
    """The manifest, if the server whose key was pinned at enrolment signed it.

    Raises:
        EnvelopeError: SIZE, FORMAT, SUITE, SENDER or SIGNATURE.
    """
    size = int.from_bytes(data[:4], "big")
    if len(data) < 4 + size:
        raise EnvelopeError(Code.SIZE, f"a manifest of {len(data)} bytes is cut short")
    fields = cbor.decode(data[4 : 4 + size])
    if not isinstance(fields, dict) or set(fields) != set(Manifest._fields):
        raise EnvelopeError(Code.FORMAT, "the manifest's fields are not those of version 1")
    if fields["confidential"] not in (0, 1) or not isinstance(fields["confidential"], int):
        raise EnvelopeError(Code.FORMAT, "manifest: confidential needs 0 or 1")
    found = Manifest(**(fields | {"confidential": bool(fields["confidential"])}))
    _check(found)
    scheme = suites.suite(found.suite, unsafe).scheme
    if len(data) != 4 + size + sign.SIZES[scheme][1]:
        raise EnvelopeError(Code.SIZE, f"a manifest of {len(data)} bytes for a {scheme} signature")
    if found.server != key_id(server_key):
        raise EnvelopeError(Code.SENDER, f"manifest of {found.server.hex()}, not of the server")
    verify = sign.verifier(verifier, scheme)
    if not verify(server_key, data[4 : 4 + size], data[4 + size :], CONTEXT):
        raise EnvelopeError(Code.SIGNATURE, "the manifest's signature does not verify")
    return found


def _check(manifest: Manifest) -> None:
    for field, width in _WIDTHS.items():
        value = getattr(manifest, field)
        if not isinstance(value, bytes) or len(value) != width:
            raise EnvelopeError(Code.FORMAT, f"manifest: {field} needs {width} bytes")
    for field in ("suite", "session"):
        value = getattr(manifest, field)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**64:
            raise EnvelopeError(Code.FORMAT, f"manifest: {field} needs an unsigned integer")
    suites.suite(manifest.suite, unsafe=True)
