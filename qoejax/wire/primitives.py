"""The protocol behind which cryptographic libraries stand: what one KEM and one signature offer.

Every public key, ciphertext, signature and shared secret is bytes that any provider of the same
algorithm reads. Secret keys are not: ``form`` says which of two published forms a provider keeps.
"""

import os
from collections.abc import Callable
from typing import Literal, NamedTuple

from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.secret import Secret

MAX_CONTEXT = 253
"""FIPS 204 allows 255 bytes; pqcrypto refuses 254 and 255, and both ends must agree."""

Form = Literal["seed", "sk"]
"""How a provider keeps a secret key: the seed that it was made from, or the expanded key."""

Signer = Callable[[bytes, bytes], bytes]
"""``(message, context) -> signature``; SIGN_EXHAUSTED or RNG when it cannot."""


class SelfTestError(RuntimeError):
    """A primitive gave a wrong answer on this machine; nothing may be sealed with it."""


class Kem(NamedTuple):
    """One key encapsulation of one provider; a Diffie-Hellman group is one too.

    Attributes:
        keygen: a fresh public key [public_size] and secret key [secret_size].
        encaps: ciphertext [ciphertext_size] and shared secret for a public key; FORMAT if the key
            is invalid.
        opener: prepares a secret key: from then on the shared secret of a ciphertext; ValueError
            for one of no use, from either call.
        public_size: bytes of a public key.
        secret_size: bytes of a secret key in this provider's form.
        ciphertext_size: bytes of a ciphertext.
        form: of secret keys.
    """

    keygen: Callable[[], tuple[bytes, Secret]]
    encaps: Callable[[bytes], tuple[bytes, bytes]]
    opener: Callable[[bytes], Callable[[bytes], bytes]]
    public_size: int
    secret_size: int
    ciphertext_size: int
    form: Form

    def decaps(self, secret: bytes, ciphertext: bytes) -> bytes:
        """Shared secret of one ciphertext; ValueError for one of no use."""
        return self.opener(secret)(ciphertext)


class Signature(NamedTuple):
    """One signature scheme of one provider.

    Attributes:
        generate: a fresh public key [public_size] and secret key [secret_size].
        signer: prepares a secret key for signing; ValueError for one of wrong form.
        verify: whether the signature is right for (public, message, signature, context).
        matches: whether a secret key belongs to (public, secret).
        public_size: bytes of a public key.
        secret_size: bytes of a secret key in this provider's form.
        signature_size: bytes of a signature.
        form: of secret keys.
    """

    generate: Callable[[], tuple[bytes, Secret]]
    signer: Callable[[Secret], Signer]
    verify: Callable[[bytes, bytes, bytes, bytes], bool]
    matches: Callable[[bytes, Secret], bool]
    public_size: int
    secret_size: int
    signature_size: int
    form: Form


def random_bytes(n: int) -> bytes:
    """``n`` bytes of the operating system's generator; RNG when it has none."""
    try:
        return os.urandom(n)
    except (OSError, NotImplementedError) as error:
        raise EnvelopeError(Code.RNG, f"no randomness: {error}") from None


def check_context(context: bytes) -> None:
    """ValueError for a context that not every provider takes."""
    if len(context) > MAX_CONTEXT:
        raise ValueError(f"a context has at most {MAX_CONTEXT} bytes, got {len(context)}")


def check_secret(secret: Secret, size: int, what: str) -> bytes:
    """The bytes of a secret key; ValueError unless it has ``size`` of them."""
    if len(secret) != size:
        raise ValueError(f"a {what} secret key has {size} bytes, got {len(secret)}")
    return secret.expose()
