"""ML-DSA-44 (FIPS 204, pure, hedged, empty context): the signature of C2SP cosignatures.

A secret key is a provider's own form: pqcrypto keeps the expanded key (2560 bytes), openssl the
seed (32 bytes). Public keys and signatures are the same for both.
"""

import os
from collections.abc import Callable
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import mldsa
from pqcrypto.sign import ml_dsa_44  # pyrefly: ignore[missing-module-attribute]

from qoejax.wire.log.errors import LogError
from qoejax.wire.secret import Secret

ALGORITHM = "ml-dsa-44"
PUBLIC_SIZE = 1312
SIGNATURE_SIZE = 2420
_ATTEMPTS = 8  # as in wire.sign: pqcrypto gives up after 64 rejections


class Provider(NamedTuple):
    """One implementation: key pairs, signatures, verification of (public, message, signature)."""

    generate: Callable[[], tuple[bytes, Secret]]
    sign: Callable[[Secret, bytes], bytes]
    verify: Callable[[bytes, bytes, bytes], bool]


def _pqcrypto_generate() -> tuple[bytes, Secret]:
    public, secret = ml_dsa_44.keygen()
    return public, Secret(secret)


def _pqcrypto_sign(secret: Secret, message: bytes) -> bytes:
    for _ in range(_ATTEMPTS):
        try:
            return ml_dsa_44.sign(secret.expose(), message)
        except ValueError as error:
            if "rejection sampling exhausted" not in str(error):
                raise
    raise LogError(f"the ML-DSA-44 signer gave up {_ATTEMPTS} times")


def _pqcrypto_verify(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        ml_dsa_44.verify(public, message, signature)
    except ValueError:  # includes InvalidSignatureError and every wrong length
        return False
    return True


def _openssl_generate() -> tuple[bytes, Secret]:
    key = mldsa.MLDSA44PrivateKey.from_seed_bytes(seed := os.urandom(32))
    return key.public_key().public_bytes_raw(), Secret(seed)


def _openssl_sign(secret: Secret, message: bytes) -> bytes:
    return mldsa.MLDSA44PrivateKey.from_seed_bytes(secret.expose()).sign(message)


def _openssl_verify(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        mldsa.MLDSA44PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


PROVIDERS = {
    "pqcrypto": Provider(_pqcrypto_generate, _pqcrypto_sign, _pqcrypto_verify),
    "openssl": Provider(_openssl_generate, _openssl_sign, _openssl_verify),
}


def provider(name: str) -> Provider:
    """The named implementation; ValueError lists the names there are."""
    if name not in PROVIDERS:
        raise ValueError(f"signer {name!r} is none of {sorted(PROVIDERS)}")
    return PROVIDERS[name]


def consistent(name: str, public: bytes, secret: Secret) -> bool:
    """Whether a fresh signature by ``secret`` verifies under ``public``."""
    one, message = provider(name), os.urandom(32)
    return one.verify(public, message, one.sign(secret, message))
