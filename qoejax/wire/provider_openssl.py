"""The primitives of ``cryptography`` (OpenSSL): ML-KEM, ML-DSA, and the classical halves.

It signs about nine times faster than pqcrypto and releases the interpreter lock. Secret keys are
seeds (FIPS 203 and 204) or scalars. It has neither SLH-DSA nor HQC nor SNTRUP.
"""

import functools
from collections.abc import Callable
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import mldsa, mlkem
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDH,
    SECP384R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    derive_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.primitives import (
    Kem,
    Signature,
    Signer,
    check_context,
    check_secret,
    random_bytes,
)
from qoejax.wire.secret import Secret

_P384_ORDER = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    16,
)


def _bad_key(error: ValueError) -> EnvelopeError:
    return EnvelopeError(Code.FORMAT, f"cannot encapsulate to this KEM key: {error}")


def _ml_kem(private: Any, public: Any, sizes: tuple[int, int]) -> Kem:
    def keygen() -> tuple[bytes, Secret]:
        key = private.from_seed_bytes(seed := random_bytes(64))
        return key.public_key().public_bytes_raw(), Secret(seed)

    def encaps(key: bytes) -> tuple[bytes, bytes]:
        try:
            shared, ciphertext = public.from_public_bytes(key).encapsulate()
        except ValueError as error:
            raise _bad_key(error) from None
        return ciphertext, shared

    def opener(seed: bytes) -> Callable[[bytes], bytes]:
        return private.from_seed_bytes(seed).decapsulate

    return Kem(keygen, encaps, opener, sizes[0], 64, sizes[1], "seed")


def _x25519() -> Kem:
    def exchange(key: X25519PrivateKey, public: bytes) -> bytes:
        return key.exchange(X25519PublicKey.from_public_bytes(public))

    return _group(
        lambda: random_bytes(32), X25519PrivateKey.from_private_bytes,
        lambda key: key.public_key().public_bytes_raw(), exchange, (32, 32),
    )  # fmt: skip


def _p384() -> Kem:
    curve = SECP384R1()

    def fresh() -> bytes:
        # FIPS 186-5 A.2.1: 64 bits more than the order has leave no bias to speak of.
        scalar = int.from_bytes(random_bytes(56), "big") % (_P384_ORDER - 1) + 1
        return scalar.to_bytes(48, "big")

    def load(private: bytes) -> EllipticCurvePrivateKey:
        return derive_private_key(int.from_bytes(private, "big"), curve)

    def point(key: EllipticCurvePrivateKey) -> bytes:
        return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def exchange(key: EllipticCurvePrivateKey, public: bytes) -> bytes:
        if len(public) != 97:  # a compressed point would be a second encoding
            raise ValueError("a P-384 public key has 97 bytes")
        return key.exchange(ECDH(), EllipticCurvePublicKey.from_encoded_point(curve, public))

    return _group(fresh, load, point, exchange, (97, 48))


def _group(
    fresh: Callable[[], bytes],
    load: Callable[[bytes], Any],
    point: Callable[[Any], bytes],
    exchange: Callable[[Any, bytes], bytes],
    sizes: tuple[int, int],
) -> Kem:
    """A Diffie-Hellman group as a KEM: the ciphertext is an ephemeral public key."""

    def keygen() -> tuple[bytes, Secret]:
        private = fresh()
        return point(load(private)), Secret(private)

    def encaps(public: bytes) -> tuple[bytes, bytes]:
        key = load(fresh())
        try:
            return point(key), exchange(key, public)
        except ValueError as error:
            raise _bad_key(error) from None

    def opener(private: bytes) -> Callable[[bytes], bytes]:
        return functools.partial(exchange, load(private))

    return Kem(keygen, encaps, opener, *sizes, sizes[0], "sk")


def _ml_dsa(private: Any, public: Any, sizes: tuple[int, int]) -> Signature:
    def generate() -> tuple[bytes, Secret]:
        key = private.from_seed_bytes(seed := random_bytes(32))
        return key.public_key().public_bytes_raw(), Secret(seed)

    def signer(secret: Secret) -> Signer:
        key = private.from_seed_bytes(check_secret(secret, 32, "OpenSSL ML-DSA"))

        def sign(message: bytes, context: bytes) -> bytes:
            check_context(context)
            return key.sign(message, context)

        return sign

    def verify(key: bytes, message: bytes, signature: bytes, context: bytes) -> bool:
        check_context(context)
        try:
            public.from_public_bytes(key).verify(signature, message, context)
        except (InvalidSignature, ValueError):
            return False
        return True

    def matches(key: bytes, secret: Secret) -> bool:
        return private.from_seed_bytes(secret.expose()).public_key().public_bytes_raw() == key

    return Signature(generate, signer, verify, matches, sizes[0], 32, sizes[1], "seed")


def _bound(message: bytes, context: bytes) -> bytes:
    """Ed25519 has no context of its own: label, length, context, message."""
    check_context(context)
    return b"qoejax/v1/ed25519\0" + bytes([len(context)]) + context + message


def _ed25519() -> Signature:
    def generate() -> tuple[bytes, Secret]:
        key = Ed25519PrivateKey.from_private_bytes(seed := random_bytes(32))
        return key.public_key().public_bytes_raw(), Secret(seed)

    def signer(secret: Secret) -> Signer:
        key = Ed25519PrivateKey.from_private_bytes(check_secret(secret, 32, "Ed25519"))
        return lambda message, context: key.sign(_bound(message, context))

    def verify(key: bytes, message: bytes, signature: bytes, context: bytes) -> bool:
        bound = _bound(message, context)
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(signature, bound)
        except (InvalidSignature, ValueError):
            return False
        return True

    def matches(key: bytes, secret: Secret) -> bool:
        private = Ed25519PrivateKey.from_private_bytes(secret.expose())
        return private.public_key().public_bytes_raw() == key

    return Signature(generate, signer, verify, matches, 32, 32, 64, "seed")


KEMS = {
    "ml-kem-768": _ml_kem(mlkem.MLKEM768PrivateKey, mlkem.MLKEM768PublicKey, (1184, 1088)),
    "ml-kem-1024": _ml_kem(mlkem.MLKEM1024PrivateKey, mlkem.MLKEM1024PublicKey, (1568, 1568)),
    "x25519": _x25519(),
    "p384": _p384(),
}
SIGNATURES = {
    "ml-dsa-44": _ml_dsa(mldsa.MLDSA44PrivateKey, mldsa.MLDSA44PublicKey, (1312, 2420)),
    "ml-dsa-65": _ml_dsa(mldsa.MLDSA65PrivateKey, mldsa.MLDSA65PublicKey, (1952, 3309)),
    "ml-dsa-87": _ml_dsa(mldsa.MLDSA87PrivateKey, mldsa.MLDSA87PublicKey, (2592, 4627)),
    "ed25519": _ed25519(),
}
