"""A TLS 1.3 connection with certificates at both ends, and one payload through it, in memory.

Classical: X25519 (P-256 where the default of OpenSSL would be a hybrid) and certificates of a small
authority, whose key and signature are of the same kind. No tickets, no resumption, no network.
"""

import datetime
import pathlib
import ssl
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

_HYBRID_BY_DEFAULT = (3, 5)
GROUP = "P-256" if ssl.OPENSSL_VERSION_INFO >= _HYBRID_BY_DEFAULT else "X25519"

KEYS: dict[str, Callable[[], Any]] = {
    "ecdsa_p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "rsa_2048": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
}
"""Kinds of certificates."""


class Parties(NamedTuple):
    """Both ends' contexts, reused from connection to connection as real programs do."""

    client: ssl.SSLContext
    server: ssl.SSLContext


class Cost(NamedTuple):
    """CPU seconds of both ends in one thread, and bytes each way."""

    handshake: float
    payload: float
    up: int
    down: int


def parties(kind: str) -> Parties:
    """Fresh certificates of one of ``KEYS``, trusted by both."""
    make = KEYS[kind]
    signs = None if kind == "ed25519" else hashes.SHA256()
    root = make()
    authority = _certificate("authority", root, "authority", root, signs)
    with tempfile.TemporaryDirectory(prefix="qoejax-tls-") as name:
        folder = pathlib.Path(name)
        contexts = []
        for role, purpose in (
            ("client", ssl.PROTOCOL_TLS_CLIENT),
            ("server", ssl.PROTOCOL_TLS_SERVER),
        ):
            key = make()
            own = _certificate(role, key, "authority", root, signs)
            contexts.append(_context(purpose, folder / f"{role}.pem", key, own, authority))
    client, server = contexts
    server.num_tickets = 0
    return Parties(client, server)


def _certificate(name: str, key: Any, issuer: str, root: Any, signs: Any) -> x509.Certificate:
    start = datetime.datetime(2020, 1, 1)
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, n)]) for n in (name, issuer)]
    builder = (
        x509.CertificateBuilder()
        .subject_name(names[0])
        .issuer_name(names[1])
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=36500))
        .add_extension(x509.BasicConstraints(name == issuer, None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    return builder.sign(root, signs)


def _context(
    purpose: Any, path: pathlib.Path, key: Any, own: x509.Certificate, authority: x509.Certificate
) -> ssl.SSLContext:
    pem = serialization.Encoding.PEM
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + own.public_bytes(pem)
    )
    made = ssl.SSLContext(purpose)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_cert_chain(path)
    made.load_verify_locations(cadata=authority.public_bytes(pem).decode())
    if GROUP == "P-256":
        made.set_ecdh_curve("prime256v1")
    return made


def exchange(who: Parties, payload: bytes) -> Cost:
    """Connects, sends ``payload`` from the client to the server, and checks that it arrived."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    moved = {"up": 0, "down": 0}
    start = time.thread_time()
    client_in, server_in = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = who.client.wrap_bio(client_in, up, server_hostname="server")
    server = who.server.wrap_bio(server_in, down, server_side=True)

    def carry() -> None:
        for way, source, target in (("up", up, server_in), ("down", down, client_in)):
            data = source.read()
            moved[way] += len(data)
            target.write(data)

    waiting = [client, server]
    while waiting:
        waiting = [end for end in waiting if not _shake(end)]
        carry()
    shaken = time.thread_time()
    client.write(payload)
    carry()
    parts, left = [], len(payload)
    while left:
        parts.append(server.read(left))
        left -= len(parts[-1])
    done = time.thread_time()
    if b"".join(parts) != payload or client.version() != "TLSv1.3":
        raise RuntimeError("the payload did not arrive over TLS 1.3")
    return Cost(shaken - start, done - shaken, moved["up"], moved["down"])


def _shake(end: ssl.SSLObject) -> bool:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True
