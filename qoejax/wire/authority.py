"""The enrolment authority: it signs the registry, rarely and off-line.

SLH-DSA-SHA2-128s (FIPS 205): hash-based, so the root of trust does not rest on lattices. One
signature covers the whole registry, so that enrolling many costs one; a serial number that only
grows keeps an old registry from being shown again.
"""

from qoejax.wire import cbor, sign
from qoejax.wire.secret import Secret

SCHEME = "slh-dsa-sha2-128s"
PROVIDER = "pqcrypto"
CONTEXT = b"qoejax/v1/registry"


def _statement(digest: bytes, serial: int) -> bytes:
    return cbor.encode({"digest": digest, "serial": serial})


def seal(secret: Secret, digest: bytes, serial: int) -> bytes:
    """Signature [7856] over a registry's digest [32] and serial number; about 0.25 s."""
    return sign.provider(PROVIDER, SCHEME).signer(secret)(_statement(digest, serial), CONTEXT)


def verify(public: bytes, digest: bytes, serial: int, signature: bytes) -> bool:
    """Whether the authority signed this registry."""
    check = sign.provider(PROVIDER, SCHEME).verify
    return check(public, _statement(digest, serial), signature, CONTEXT)
