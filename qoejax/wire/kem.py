"""X-Wing, the RFC 9180 key schedule and the AEADs: single-shot HPKE with a post-quantum KEM.

KEM 0x647a is ML-KEM-768 (pqcrypto) with X25519 (cryptography), combined as in
draft-connolly-cfrg-xwing-kem and draft-ietf-hpke-pq. The stock ``cryptography.hpke`` opens what
is sealed here, and the published vectors of both are reproduced in the tests.
"""

import functools
import hashlib
import hmac
import json
import os
from importlib import resources
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import mlkem
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from pqcrypto.kem import ml_kem_768  # pyrefly: ignore[missing-module-attribute]

from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.secret import Secret

KEM_XWING = 0x647A
KDF_HKDF_SHA256 = 0x0001
AEADS: dict[int, Any] = {0x0002: AESGCM, 0x0003: ChaCha20Poly1305}
"""RFC 9180 numbers of AEADs with 32-byte keys and 12-byte nonces."""

PUBLIC_SIZE = 1216
"""ML-KEM-768 encapsulation key (1184) and X25519 public key (32)."""
SECRET_SIZE = 2464
"""ML-KEM-768 decapsulation key (2400), X25519 private (32) and public key (32)."""
ENC_SIZE = 1120
"""ML-KEM-768 ciphertext (1088) and ephemeral X25519 public key (32)."""

_EK, _DK, _CT = 1184, 2400, 1088
_LABEL = bytes.fromhex("5c2e2f2f5e5c")
_RNG = "random number generation failed"


class SelfTestError(RuntimeError):
    """A primitive gave a wrong answer on this machine; nothing may be sealed with it."""


def random_bytes(n: int) -> bytes:
    """``n`` bytes of the operating system's generator; RNG when it has none."""
    try:
        return os.urandom(n)
    except (OSError, NotImplementedError) as error:
        raise EnvelopeError(Code.RNG, f"no randomness: {error}") from None


def keygen() -> tuple[bytes, Secret]:
    """A fresh key pair: public [PUBLIC_SIZE] and secret [SECRET_SIZE] bytes."""
    try:
        ek, dk = ml_kem_768.keygen()
    except ValueError as error:
        raise EnvelopeError(Code.RNG, f"ML-KEM key generation failed: {error}") from None
    private = X25519PrivateKey.from_private_bytes(random_bytes(32))
    public = private.public_key().public_bytes_raw()
    return ek + public, Secret(dk + private.private_bytes_raw() + public)


def encaps(public: bytes) -> tuple[bytes, Secret]:
    """``enc`` [ENC_SIZE] and shared secret [32] for ``public``; FORMAT for an invalid key."""
    if len(public) != PUBLIC_SIZE:
        raise EnvelopeError(Code.FORMAT, f"KEM key of {len(public)} bytes, not {PUBLIC_SIZE}")
    ephemeral = X25519PrivateKey.from_private_bytes(random_bytes(32))
    try:
        ct_m, ss_m = ml_kem_768.encaps(public[:_EK])
        ss_x = ephemeral.exchange(X25519PublicKey.from_public_bytes(public[_EK:]))
    except ValueError as error:
        code = Code.RNG if _RNG in str(error) else Code.FORMAT
        raise EnvelopeError(code, f"cannot encapsulate to this KEM key: {error}") from None
    ct_x = ephemeral.public_key().public_bytes_raw()
    return ct_m + ct_x, _combine(ss_m, ss_x, ct_x, public[_EK:])


def decaps(secret: Secret, enc: bytes) -> Secret:
    """Shared secret [32]; DECRYPT for an unusable ``enc``.

    A tampered ML-KEM ciphertext gives a wrong secret rather than an error (implicit rejection),
    so it shows as a failing AEAD tag, also DECRYPT.
    """
    key = secret.expose()
    if len(key) != SECRET_SIZE or len(enc) != ENC_SIZE:
        raise EnvelopeError(Code.DECRYPT, "the envelope does not open")
    ct_m, ct_x = enc[:_CT], enc[_CT:]
    try:
        ss_m = ml_kem_768.decaps(key[:_DK], ct_m)
        private = X25519PrivateKey.from_private_bytes(key[_DK : _DK + 32])
        ss_x = private.exchange(X25519PublicKey.from_public_bytes(ct_x))
    except ValueError:
        raise EnvelopeError(Code.DECRYPT, "the envelope does not open") from None
    return _combine(ss_m, ss_x, ct_x, key[_DK + 32 :])


def _combine(ss_m: bytes, ss_x: bytes, ct_x: bytes, pk_x: bytes) -> Secret:
    return Secret(hashlib.sha3_256(ss_m + ss_x + ct_x + pk_x + _LABEL).digest())


class Context(NamedTuple):
    """Outcome of the key schedule, good for one message and any number of exports."""

    key: Secret
    base_nonce: bytes
    exporter: Secret
    suite_id: bytes


def _extract(suite_id: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite_id + label + ikm, "sha256")


def _expand(suite_id: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    """RFC 9180 section 4, LabeledExpand, with HKDF-Expand of RFC 5869."""
    data = length.to_bytes(2, "big") + b"HPKE-v1" + suite_id + label + info
    out, block = b"", b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac.digest(prk, block + data + bytes([counter]), "sha256")
        out += block
    return out[:length]


@functools.lru_cache(maxsize=32)
def _psk_id_hash(suite_id: bytes) -> bytes:
    return _extract(suite_id, b"", b"psk_id_hash", b"")


def key_schedule(
    shared: Secret, info: bytes, kem_id: int = KEM_XWING, aead_id: int = 2, key_size: int = 32
) -> Context:
    """RFC 9180 section 5.1, mode base, HKDF-SHA256."""
    numbers = (kem_id, KDF_HKDF_SHA256, aead_id)
    suite_id = b"HPKE" + b"".join(n.to_bytes(2, "big") for n in numbers)
    info_hash = _extract(suite_id, b"", b"info_hash", info)
    context = b"\0" + _psk_id_hash(suite_id) + info_hash
    secret = _extract(suite_id, shared.expose(), b"secret", b"")
    return Context(
        Secret(_expand(suite_id, secret, b"key", context, key_size)),
        _expand(suite_id, secret, b"base_nonce", context, 12),
        Secret(_expand(suite_id, secret, b"exp", context, 32)),
        suite_id,
    )


def export(context: Context, label: bytes, length: int = 32) -> Secret:
    """RFC 9180 section 5.3: a further secret that both ends share, e.g. for replies."""
    return Secret(_expand(context.suite_id, context.exporter.expose(), b"sec", label, length))


def aead_seal(context: Context, aead_id: int, plaintext: bytes) -> bytes:
    """Ciphertext and 16-byte tag under the base nonce, empty associated data.

    Call it once for a context: a second message would repeat the nonce.
    """
    return AEADS[aead_id](context.key.expose()).encrypt(context.base_nonce, plaintext, None)


def aead_open(context: Context, aead_id: int, ciphertext: bytes) -> bytes:
    """Plaintext; DECRYPT when the tag does not match."""
    try:
        return AEADS[aead_id](context.key.expose()).decrypt(context.base_nonce, ciphertext, None)
    except InvalidTag:
        raise EnvelopeError(Code.DECRYPT, "the envelope does not open") from None


def known_answers() -> dict[str, dict[str, bytes]]:
    """First entries of the published ML-KEM-768 and ML-DSA-65 known-answer files."""
    text = resources.files("qoejax.wire").joinpath("known_answers.json").read_text()
    table = json.loads(text)
    return {
        name: {field: bytes.fromhex(value) for field, value in fields.items()}
        for name, fields in table["vectors"].items()
    }


def self_test() -> None:
    """One published answer, one round trip, one exchange with the second implementation."""
    answer = known_answers()["ml-kem-768"]
    if ml_kem_768.decaps(answer["sk"], answer["ct"]) != answer["ss"]:
        raise SelfTestError("ML-KEM-768 misses its known answer")
    public, secret = keygen()
    enc, shared = encaps(public)
    if decaps(secret, enc) != shared:
        raise SelfTestError("X-Wing does not agree with itself")
    other = mlkem.MLKEM768PrivateKey.generate()
    ct, ss = ml_kem_768.encaps(other.public_key().public_bytes_raw())[:2]
    if other.decapsulate(ct) != ss:
        raise SelfTestError("the two ML-KEM-768 implementations disagree")
