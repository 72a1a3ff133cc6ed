"""What an identity signs with: one signature scheme, or two that must both hold.

Every scheme is pure and hedged where the standard allows it (FIPS 204, FIPS 205). Public keys and
signatures move between providers, secret keys do not: see ``primitives``.
"""

import functools
from collections.abc import Callable

from qoejax.wire import providers
from qoejax.wire.primitives import MAX_CONTEXT, SelfTestError, Signature, Signer
from qoejax.wire.providers import PROVIDERS
from qoejax.wire.secret import Secret

__all__ = [
    "DEFAULT",
    "MAX_CONTEXT",
    "PROVIDERS",
    "SCHEMES",
    "SIZES",
    "SelfTestError",
    "Signature",
    "Signer",
    "consistent",
    "provider",
    "self_test",
    "verifier",
]

DEFAULT = "ml-dsa-65"
SCHEMES: dict[str, tuple[str, ...]] = {
    "ml-dsa-44": ("ml-dsa-44",),
    "ml-dsa-65": ("ml-dsa-65",),
    "ml-dsa-87": ("ml-dsa-87",),
    "ml-dsa-65+ed25519": ("ml-dsa-65", "ed25519"),
    "slh-dsa-sha2-128f": ("slh-dsa-sha2-128f",),
    "slh-dsa-sha2-128s": ("slh-dsa-sha2-128s",),
    "ed25519": ("ed25519",),
}
"""Parts of each scheme. Keys and signatures of two parts are concatenated in this order; both sign
the same message under the same context, and the message names the suite."""


def _sizes(scheme: str) -> tuple[int, int]:
    tables = [one.signatures for one in PROVIDERS.values()]
    parts = [next(t[part] for t in tables if part in t) for part in SCHEMES[scheme]]
    return sum(p.public_size for p in parts), sum(p.signature_size for p in parts)


SIZES = {scheme: _sizes(scheme) for scheme in SCHEMES}
"""Bytes of a public key and of a signature, the same for every provider."""
PUBLIC_SIZE, SIGNATURE_SIZE = SIZES[DEFAULT]


@functools.cache
def provider(name: str, scheme: str = DEFAULT) -> Signature:
    """A scheme of a provider, tested at its first use.

    Raises:
        ValueError: no such provider or scheme, or the provider lacks it; lists what there is.
        SelfTestError: a primitive gives wrong answers on this machine.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"scheme {scheme!r} is none of {sorted(SCHEMES)}")
    return _joined([providers.signature(name, part) for part in SCHEMES[scheme]])


@functools.cache
def verifier(name: str, scheme: str = DEFAULT) -> Callable[[bytes, bytes, bytes, bytes], bool]:
    """``verify`` of a scheme by a provider, or by one that has it where that one lacks it.

    Which library verifies cannot be seen, and an auditor need not know who signs with what.
    """
    names = [name, *sorted(PROVIDERS)]
    parts = SCHEMES.get(scheme, ())
    able = [n for n in names if all(providers.offers(n, part) for part in parts)]
    return provider(able[0], scheme).verify


def _cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """``data`` in pieces; ValueError unless it has exactly their length."""
    if len(data) != sum(sizes):
        raise ValueError(f"{len(data)} bytes, expected {sum(sizes)}")
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [data[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def _joined(parts: list[Signature]) -> Signature:
    """Several schemes as one: everything is concatenated, and all must hold."""
    if len(parts) == 1:
        return parts[0]
    public_sizes = [part.public_size for part in parts]
    secret_sizes = [part.secret_size for part in parts]
    sizes = [part.signature_size for part in parts]

    def generate() -> tuple[bytes, Secret]:
        pairs = [part.generate() for part in parts]
        return b"".join(p for p, _ in pairs), Secret(b"".join(s.expose() for _, s in pairs))

    def signer(secret: Secret) -> Signer:
        pieces = _cut(secret.expose(), secret_sizes)
        signers = [p.signer(Secret(piece)) for p, piece in zip(parts, pieces, strict=True)]
        return lambda message, context: b"".join(one(message, context) for one in signers)

    def verify(public: bytes, message: bytes, signature: bytes, context: bytes) -> bool:
        try:
            keys, halves = _cut(public, public_sizes), _cut(signature, sizes)
        except ValueError:
            return False
        verdicts = [
            part.verify(key, message, half, context)
            for part, key, half in zip(parts, keys, halves, strict=True)
        ]
        return all(verdicts)

    def matches(public: bytes, secret: Secret) -> bool:
        if len(public) != sum(public_sizes):
            return False
        keys, pieces = _cut(public, public_sizes), _cut(secret.expose(), secret_sizes)
        pairs = zip(parts, keys, pieces, strict=True)
        return all(part.matches(key, Secret(piece)) for part, key, piece in pairs)

    return Signature(
        generate,
        signer,
        verify,
        matches,
        sum(public_sizes),
        sum(secret_sizes),
        sum(sizes),
        parts[0].form,
    )


def consistent(name: str, public: bytes, secret: Secret, scheme: str = DEFAULT) -> bool:
    """Pairwise consistency: the halves belong together and a fresh signature verifies."""
    return providers.consistent(provider(name, scheme), public, secret)


def self_test(name: str, scheme: str = DEFAULT) -> None:
    """Known answers, a fresh pair, and all providers against each other; SelfTestError if not."""
    one = provider(name, scheme)
    if not providers.consistent(one, *one.generate()):
        raise SelfTestError(f"{name} does not verify its own {scheme} signature")
    for part in SCHEMES[scheme]:
        providers.agree(part)
