"""The enrolment authority: it signs the registry, rarely and off-line.

SLH-DSA-SHA2-128s (FIPS 205): hash-based, so the root of trust does not rest on lattices. One
signature covers the whole registry, so that enrolling many costs one; a serial number that only
grows keeps an old registry from being shown again.
"""

import os

from pqcrypto.sign import slh_dsa_sha2_128s as slh  # pyrefly: ignore[missing-module-attribute]

from qoejax.wire import cbor
from qoejax.wire.secret import Secret

ALGORITHM = "slh-dsa-sha2-128s"
PROVIDER = "pqcrypto"
CONTEXT = b"qoejax/v1/registry"
PUBLIC_SIZE = slh.PUBLIC_KEY_SIZE
SIGNATURE_SIZE = slh.SIGNATURE_SIZE


def generate() -> tuple[bytes, Secret]:
    """A fresh public key [32] and secret key [64]."""
    public, secret = slh.keygen()
    return public, Secret(secret)


def _statement(digest: bytes, serial: int) -> bytes:
    return cbor.encode({"digest": digest, "serial": serial})


def sign(secret: Secret, digest: bytes, serial: int) -> bytes:
    """Signature [7856] over a registry's digest [32] and serial number; about 0.25 s."""
    return slh.sign(secret.expose(), _statement(digest, serial), CONTEXT)


def verify(public: bytes, digest: bytes, serial: int, signature: bytes) -> bool:
    """Whether the authority signed this registry."""
    try:
        slh.verify(public, _statement(digest, serial), signature, CONTEXT)
    except ValueError:  # includes InvalidSignatureError and every wrong length
        return False
    return True


def consistent(provider: str, public: bytes, secret: Secret) -> bool:
    """Whether the halves belong together: a fresh signature verifies."""
    if provider != PROVIDER:
        raise ValueError(f"provider {provider!r}, expected {PROVIDER!r}")
    digest = os.urandom(32)
    return verify(public, digest, 0, sign(secret, digest, 0))
