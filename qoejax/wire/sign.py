"""ML-DSA-65 (FIPS 204, pure, hedged) from two implementations that verify each other.

``pqcrypto`` is the default; ``openssl`` (through cryptography) signs about nine times faster and
lets other threads run meanwhile. Public keys and signatures move between them, secret keys do
not: pqcrypto keeps the expanded key (4032 bytes), cryptography the seed (32 bytes).
"""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import mldsa
from pqcrypto.sign import ml_dsa_65  # pyrefly: ignore[missing-module-attribute]

from qoejax.wire import kem
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.kem import SelfTestError
from qoejax.wire.secret import Secret

PUBLIC_SIZE = 1952
SIGNATURE_SIZE = 3309
MAX_CONTEXT = 253
"""FIPS 204 allows 255; pqcrypto refuses 254 and 255, and both ends must agree."""
ATTEMPTS = 8
"""pqcrypto gives up after 64 rejections, about once in a million; signing is hedged, so a new
attempt draws new randomness and eight failures in a row do not happen."""

_EXHAUSTED = "rejection sampling exhausted"

Signer = Callable[[bytes, bytes], bytes]
"""``(message, context) -> signature`` [SIGNATURE_SIZE]."""


class Provider(NamedTuple):
    """One implementation of ML-DSA-65.

    Attributes:
        generate: a fresh public key [PUBLIC_SIZE] and secret key.
        signer: prepares a secret key for signing; ValueError for one of wrong form.
        verify: whether the signature is right for (public, message, signature, context).
        matches: whether a secret key belongs to (public, secret).
    """

    generate: Callable[[], tuple[bytes, Secret]]
    signer: Callable[[Secret], Signer]
    verify: Callable[[bytes, bytes, bytes, bytes], bool]
    matches: Callable[[bytes, Secret], bool]


def _check(context: bytes) -> None:
    if len(context) > MAX_CONTEXT:
        raise ValueError(f"a context has at most {MAX_CONTEXT} bytes, got {len(context)}")


def _pqcrypto_generate() -> tuple[bytes, Secret]:
    try:
        public, secret = ml_dsa_65.keygen()
    except ValueError as error:
        raise EnvelopeError(Code.RNG, f"ML-DSA key generation failed: {error}") from None
    return public, Secret(secret)


def _pqcrypto_signer(secret: Secret) -> Signer:
    key = secret.expose()
    if len(key) != ml_dsa_65.SECRET_KEY_SIZE:
        raise ValueError(f"a pqcrypto secret key has {ml_dsa_65.SECRET_KEY_SIZE} bytes")

    def sign(message: bytes, context: bytes) -> bytes:
        _check(context)
        for _ in range(ATTEMPTS):
            try:
                return ml_dsa_65.sign(key, message, context)
            except ValueError as error:
                if "random number" in str(error):
                    raise EnvelopeError(Code.RNG, f"signing failed: {error}") from None
                if _EXHAUSTED not in str(error):
                    raise
        raise EnvelopeError(Code.SIGN_EXHAUSTED, f"the signer gave up {ATTEMPTS} times")

    return sign


def _pqcrypto_verify(public: bytes, message: bytes, signature: bytes, context: bytes) -> bool:
    _check(context)
    try:
        ml_dsa_65.verify(public, message, signature, context)
    except ValueError:  # includes InvalidSignatureError and every wrong length
        return False
    return True


def _pqcrypto_matches(public: bytes, secret: Secret) -> bool:
    # FIPS 204 algorithm 22: the secret key holds rho, K and tr = H(public key).
    key = secret.expose()
    return key[:32] == public[:32] and key[64:128] == hashlib.shake_256(public).digest(64)


def _openssl_generate() -> tuple[bytes, Secret]:
    key = mldsa.MLDSA65PrivateKey.from_seed_bytes(seed := kem.random_bytes(32))
    return key.public_key().public_bytes_raw(), Secret(seed)


def _openssl_signer(secret: Secret) -> Signer:
    key = mldsa.MLDSA65PrivateKey.from_seed_bytes(secret.expose())

    def sign(message: bytes, context: bytes) -> bytes:
        _check(context)
        return key.sign(message, context)

    return sign


def _openssl_verify(public: bytes, message: bytes, signature: bytes, context: bytes) -> bool:
    _check(context)
    try:
        key = mldsa.MLDSA65PublicKey.from_public_bytes(public)
        key.verify(signature, message, context)
    except (InvalidSignature, ValueError):
        return False
    return True


def _openssl_matches(public: bytes, secret: Secret) -> bool:
    key = mldsa.MLDSA65PrivateKey.from_seed_bytes(secret.expose())
    return key.public_key().public_bytes_raw() == public


PROVIDERS = {
    "pqcrypto": Provider(_pqcrypto_generate, _pqcrypto_signer, _pqcrypto_verify, _pqcrypto_matches),
    "openssl": Provider(_openssl_generate, _openssl_signer, _openssl_verify, _openssl_matches),
}


def provider(name: str) -> Provider:
    """The named implementation; ValueError lists the names there are."""
    if name not in PROVIDERS:
        raise ValueError(f"signer {name!r} is none of {sorted(PROVIDERS)}")
    return PROVIDERS[name]


def consistent(name: str, public: bytes, secret: Secret) -> bool:
    """Pairwise consistency: the halves belong together and a fresh signature verifies."""
    one = provider(name)
    if not one.matches(public, secret):
        return False
    message = kem.random_bytes(32)
    return one.verify(public, message, one.signer(secret)(message, b"self-test"), b"self-test")


def self_test(name: str) -> None:
    """One published signature, one altered, one key pair, one cross-check; SelfTestError if not."""
    one = provider(name)
    answer = kem.known_answers()["ml-dsa-65"]
    public, message, signature = answer["pk"], answer["msg"], answer["sig"]
    if not one.verify(public, message, signature, answer["ctx"]):
        raise SelfTestError(f"{name} refuses a published ML-DSA-65 signature")
    if one.verify(public, message + b"\0", signature, answer["ctx"]):
        raise SelfTestError(f"{name} accepts an ML-DSA-65 signature of another message")
    public, secret = one.generate()
    if not consistent(name, public, secret):
        raise SelfTestError(f"{name} does not verify its own ML-DSA-65 signature")
    signature = one.signer(secret)(b"self-test", b"")
    for other in PROVIDERS:
        if not PROVIDERS[other].verify(public, b"self-test", signature, b""):
            raise SelfTestError(f"{other} refuses an ML-DSA-65 signature of {name}")
