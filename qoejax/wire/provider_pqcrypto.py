"""The primitives of pqcrypto 1.0.0: ML-KEM, HQC, SNTRUP, ML-DSA, SLH-DSA.

What its behaviour asks for (docs/wire.md): signing is tried again when it gives up after 64
rejections; contexts end at 253 bytes; inputs are ``bytes``; it holds the interpreter lock.
"""

import functools
import hashlib
from typing import Any

from pqcrypto import kem as kems
from pqcrypto import sign as signatures

from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.primitives import Kem, Signature, Signer, check_context, check_secret
from qoejax.wire.secret import Secret

ATTEMPTS = 8
"""It gives up about once in a million signatures; signing is hedged, so a new attempt draws new
randomness and eight failures in a row do not happen."""

_EXHAUSTED = "rejection sampling exhausted"
_RNG = "random number"


def _generated(module: Any) -> tuple[bytes, Secret]:
    try:
        public, secret = module.keygen()
    except ValueError as error:
        name = module.ALGORITHM
        raise EnvelopeError(Code.RNG, f"{name} key generation failed: {error}") from None
    return public, Secret(secret)


def _kem(module: Any) -> Kem:
    def encaps(public: bytes) -> tuple[bytes, bytes]:
        try:
            ciphertext, shared = module.encaps(public)
        except ValueError as error:
            code = Code.RNG if _RNG in str(error) else Code.FORMAT
            raise EnvelopeError(code, f"cannot encapsulate to this KEM key: {error}") from None
        return ciphertext, shared

    return Kem(
        lambda: _generated(module),
        encaps,
        lambda secret: functools.partial(module.decaps, secret),
        module.PUBLIC_KEY_SIZE,
        module.SECRET_KEY_SIZE,
        module.CIPHERTEXT_SIZE,
        "sk",
    )


def signer(module: Any, secret: Secret) -> Signer:
    """A signer that tries again; SIGN_EXHAUSTED after ``ATTEMPTS``."""
    key = check_secret(secret, module.SECRET_KEY_SIZE, f"pqcrypto {module.ALGORITHM}")

    def sign(message: bytes, context: bytes) -> bytes:
        check_context(context)
        for _ in range(ATTEMPTS):
            try:
                return module.sign(key, message, context)
            except ValueError as error:
                if _RNG in str(error):
                    raise EnvelopeError(Code.RNG, f"signing failed: {error}") from None
                if _EXHAUSTED not in str(error):
                    raise
        raise EnvelopeError(Code.SIGN_EXHAUSTED, f"the signer gave up {ATTEMPTS} times")

    return sign


def _signature(module: Any, matches: Any) -> Signature:
    def verify(public: bytes, message: bytes, signature: bytes, context: bytes) -> bool:
        check_context(context)
        try:
            module.verify(public, message, signature, context)
        except ValueError:  # includes InvalidSignatureError and every wrong length
            return False
        return True

    return Signature(
        lambda: _generated(module),
        lambda secret: signer(module, secret),
        verify,
        matches,
        module.PUBLIC_KEY_SIZE,
        module.SECRET_KEY_SIZE,
        module.SIGNATURE_SIZE,
        "sk",
    )


def _ml_dsa_matches(public: bytes, secret: Secret) -> bool:
    # FIPS 204 algorithm 24: the secret key holds rho, K and tr = H(public key).
    key = secret.expose()
    return key[:32] == public[:32] and key[64:128] == hashlib.shake_256(public).digest(64)


def _slh_dsa_matches(public: bytes, secret: Secret) -> bool:
    # FIPS 205 section 9.1: the secret key ends with the public key.
    return len(public) == 32 and secret.expose()[32:] == public


_KEM: Any = kems
KEMS = {
    "ml-kem-768": _kem(_KEM.ml_kem_768),
    "ml-kem-1024": _kem(_KEM.ml_kem_1024),
    "hqc-128": _kem(_KEM.hqc_128),
    "sntrup-761": _kem(_KEM.sntrup_761),
}
_SIGN: Any = signatures
SIGNATURES = {
    "ml-dsa-44": _signature(_SIGN.ml_dsa_44, _ml_dsa_matches),
    "ml-dsa-65": _signature(_SIGN.ml_dsa_65, _ml_dsa_matches),
    "ml-dsa-87": _signature(_SIGN.ml_dsa_87, _ml_dsa_matches),
    "slh-dsa-sha2-128f": _signature(_SIGN.slh_dsa_sha2_128f, _slh_dsa_matches),
    "slh-dsa-sha2-128s": _signature(_SIGN.slh_dsa_sha2_128s, _slh_dsa_matches),
}
