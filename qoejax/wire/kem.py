"""Hybrid KEMs, the RFC 9180 key schedule and the AEADs: single-shot HPKE with post-quantum KEMs.

X-Wing (0x647a) and MLKEM1024-P384 (0x0051) are those of draft-ietf-hpke-pq: the stock
``cryptography.hpke`` opens what is sealed here, and the published vectors are reproduced in the
tests. X25519 alone (0x0020) is DHKEM of RFC 9180.
"""

import functools
import hashlib
import hmac
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from qoejax.wire import providers
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.primitives import SelfTestError, random_bytes
from qoejax.wire.secret import Secret

__all__ = [
    "AEADS",
    "HYBRIDS",
    "XWING",
    "Context",
    "Hybrid",
    "SelfTestError",
    "aead_open",
    "aead_seal",
    "decaps",
    "encaps",
    "export",
    "key_schedule",
    "keygen",
    "opener",
    "public_size",
    "random_bytes",
    "self_test",
]


class Hybrid(NamedTuple):
    """How two KEMs become one.

    Attributes:
        id: HPKE number. 0xf101 and 0xf102 are ours: nobody has registered these.
        parts: post-quantum and traditional KEM, or the traditional one alone.
        label: of the combiner.
        binds: what the combiner hashes beside the shared secrets: ciphertext and public key of
            the traditional half ("c2pri", enough for ML-KEM), or of both halves ("all").
    """

    id: int
    parts: tuple[str, ...]
    label: bytes
    binds: Literal["c2pri", "all", "dhkem"]


XWING = "x-wing"
HYBRIDS = {
    XWING: Hybrid(0x647A, ("ml-kem-768", "x25519"), bytes.fromhex("5c2e2f2f5e5c"), "c2pri"),
    "ml-kem-1024+p384": Hybrid(0x0051, ("ml-kem-1024", "p384"), b"MLKEM1024-P384", "c2pri"),
    "hqc-128+x25519": Hybrid(0xF101, ("hqc-128", "x25519"), b"qoejax/v1/hqc-128+x25519", "all"),
    "sntrup-761+x25519": Hybrid(
        0xF102, ("sntrup-761", "x25519"), b"qoejax/v1/sntrup-761+x25519", "all"
    ),
    "x25519": Hybrid(0x0020, ("x25519",), b"", "dhkem"),
}
KEM_XWING = 0x647A
KDF_HKDF_SHA256, KDF_HKDF_SHA384 = 0x0001, 0x0002
_HASHES = {KDF_HKDF_SHA256: ("sha256", 32), KDF_HKDF_SHA384: ("sha384", 48)}
AEADS: dict[int, Any] = {0x0002: AESGCM, 0x0003: ChaCha20Poly1305}
"""RFC 9180 numbers of AEADs with 32-byte keys and 12-byte nonces."""

PUBLIC_SIZE, SECRET_SIZE, ENC_SIZE = 1216, 2464, 1120
"""X-Wing with pqcrypto: ML-KEM-768 and X25519, the secret followed by the X25519 public key."""


def _parts(hybrid: str, provider: str) -> list[Any]:
    return [providers.kem(provider, part) for part in HYBRIDS[hybrid].parts]


def _cut(data: bytes, sizes: list[int]) -> list[bytes]:
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [data[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def public_size(hybrid: str = XWING) -> int:
    """Bytes of a public key."""
    return sum(part.public_size for part in _parts(hybrid, "pqcrypto"))


def enc_size(hybrid: str = XWING) -> int:
    """Bytes of an encapsulation."""
    return sum(part.ciphertext_size for part in _parts(hybrid, "pqcrypto"))


def keygen(hybrid: str = XWING, provider: str = "pqcrypto") -> tuple[bytes, Secret]:
    """A fresh key pair.

    The secret, in the provider's form, ends with what the combiner hashes of the public key.
    """
    pairs = [part.keygen() for part in _parts(hybrid, provider)]
    keys = [public for public, _ in pairs]
    hashed = keys if HYBRIDS[hybrid].binds == "all" else keys[-1:]
    return b"".join(keys), Secret(b"".join([*(s.expose() for _, s in pairs), *hashed]))


def encaps(public: bytes, hybrid: str = XWING, provider: str = "pqcrypto") -> tuple[bytes, Secret]:
    """``enc`` and shared secret [32] for a public key; FORMAT for an invalid one."""
    parts = _parts(hybrid, provider)
    sizes = [part.public_size for part in parts]
    if len(public) != sum(sizes):
        raise EnvelopeError(Code.FORMAT, f"KEM key of {len(public)} bytes, not {sum(sizes)}")
    keys = _cut(public, sizes)
    out = [part.encaps(key) for part, key in zip(parts, keys, strict=True)]
    enc, shared = [ct for ct, _ in out], [ss for _, ss in out]
    return b"".join(enc), _combine(HYBRIDS[hybrid], shared, enc, keys)


def decaps(secret: Secret, enc: bytes, hybrid: str = XWING, provider: str = "pqcrypto") -> Secret:
    """Shared secret [32] of one ``enc``, as ``opener`` finds it."""
    return opener(secret, hybrid, provider)(enc)


def opener(
    secret: Secret, hybrid: str = XWING, provider: str = "pqcrypto"
) -> Callable[[bytes], Secret]:
    """A secret key made ready for many: ``enc -> shared secret [32]``.

    A tampered ML-KEM ciphertext gives a wrong secret rather than an error (implicit rejection),
    so it shows as a failing AEAD tag, also DECRYPT.

    Raises:
        EnvelopeError: DECRYPT for a key of another size; by what is returned, for an unusable
            ``enc``.
    """
    parts, how = _parts(hybrid, provider), HYBRIDS[hybrid]
    hashed = [p.public_size for p in (parts if how.binds == "all" else parts[-1:])]
    sizes = [part.secret_size for part in parts] + hashed
    ct_sizes = [part.ciphertext_size for part in parts]
    if len(secret) != sum(sizes):
        raise _shut()
    pieces = _cut(secret.expose(), sizes)
    secrets, keys = pieces[: len(parts)], pieces[len(parts) :]
    try:
        openers = [part.opener(sk) for part, sk in zip(parts, secrets, strict=True)]
    except ValueError:
        raise _shut() from None

    def opened(enc: bytes) -> Secret:
        if len(enc) != sum(ct_sizes):
            raise _shut()
        cts = _cut(enc, ct_sizes)
        try:
            shared = [one(ct) for one, ct in zip(openers, cts, strict=True)]
        except ValueError:
            raise _shut() from None
        return _combine(how, shared, cts, keys)

    return opened


def _shut() -> EnvelopeError:
    return EnvelopeError(Code.DECRYPT, "the envelope does not open")


def _combine(how: Hybrid, shared: list[bytes], cts: list[bytes], keys: list[bytes]) -> Secret:
    """Shared secret [32] of the halves'; every part has a fixed length, so joining is injective."""
    if how.binds == "dhkem":
        return _dhkem(how.id, shared[0], cts[0] + keys[0])
    if how.binds == "c2pri":
        cts, keys = cts[-1:], keys[-1:]
    return Secret(hashlib.sha3_256(b"".join([*shared, *cts, *keys, how.label])).digest())


def _dhkem(number: int, dh: bytes, kem_context: bytes) -> Secret:
    """RFC 9180 section 4.1, ExtractAndExpand with HKDF-SHA256."""
    suite_id = b"KEM" + number.to_bytes(2, "big")
    prk = _extract(suite_id, b"", b"eae_prk", dh)
    return Secret(_expand(suite_id, prk, b"shared_secret", kem_context, 32))


class Context(NamedTuple):
    """Outcome of the key schedule, good for one message and any number of exports."""

    key: Secret
    base_nonce: bytes
    exporter: Secret
    suite_id: bytes
    kdf_id: int = KDF_HKDF_SHA256


def _extract(suite_id: bytes, salt: bytes, label: bytes, ikm: bytes, kdf_id: int = 1) -> bytes:
    name, size = _HASHES[kdf_id]
    return hmac.digest(salt or bytes(size), b"HPKE-v1" + suite_id + label + ikm, name)


def _expand(
    suite_id: bytes, prk: bytes, label: bytes, info: bytes, length: int, kdf_id: int = 1
) -> bytes:
    """RFC 9180 section 4, LabeledExpand, with HKDF-Expand of RFC 5869."""
    name, size = _HASHES[kdf_id]
    data = length.to_bytes(2, "big") + b"HPKE-v1" + suite_id + label + info
    out, block = b"", b""
    for counter in range(1, -(-length // size) + 1):
        block = hmac.digest(prk, block + data + bytes([counter]), name)
        out += block
    return out[:length]


@functools.lru_cache(maxsize=32)
def _psk_id_hash(suite_id: bytes, kdf_id: int) -> bytes:
    return _extract(suite_id, b"", b"psk_id_hash", b"", kdf_id)


def key_schedule(
    shared: Secret,
    info: bytes,
    kem_id: int = KEM_XWING,
    aead_id: int = 2,
    key_size: int = 32,
    kdf_id: int = KDF_HKDF_SHA256,
) -> Context:
    """RFC 9180 section 5.1, mode base, with HKDF-SHA256 or HKDF-SHA384."""
    suite_id = b"HPKE" + b"".join(n.to_bytes(2, "big") for n in (kem_id, kdf_id, aead_id))
    info_hash = _extract(suite_id, b"", b"info_hash", info, kdf_id)
    context = b"\0" + _psk_id_hash(suite_id, kdf_id) + info_hash
    secret = _extract(suite_id, shared.expose(), b"secret", b"", kdf_id)
    size = _HASHES[kdf_id][1]
    return Context(
        Secret(_expand(suite_id, secret, b"key", context, key_size, kdf_id)),
        _expand(suite_id, secret, b"base_nonce", context, 12, kdf_id),
        Secret(_expand(suite_id, secret, b"exp", context, size, kdf_id)),
        suite_id,
        kdf_id,
    )


def export(context: Context, label: bytes, length: int = 32) -> Secret:
    """RFC 9180 section 5.3: a further secret that both ends share, e.g. for replies."""
    prk = context.exporter.expose()
    return Secret(_expand(context.suite_id, prk, b"sec", label, length, context.kdf_id))


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


def self_test(hybrid: str = XWING, provider: str = "pqcrypto") -> None:
    """Known answers, a round trip, and all providers against each other; SelfTestError if not."""
    public, secret = keygen(hybrid, provider)
    enc, shared = encaps(public, hybrid, provider)
    if decaps(secret, enc, hybrid, provider) != shared:
        raise SelfTestError(f"{hybrid} of {provider} does not agree with itself")
    for part in HYBRIDS[hybrid].parts:
        providers.agree(part)
