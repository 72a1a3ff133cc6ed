"""Which provider offers what, and the test that each primitive passes before its first use.

A provider is a name in a configuration: "pqcrypto" or "openssl". The classical halves of the
hybrids (X25519, P-384, Ed25519) come from OpenSSL whatever the provider.
"""

import functools
import json
from collections.abc import Mapping
from importlib import resources
from typing import NamedTuple

from qoejax.wire import provider_openssl, provider_pqcrypto
from qoejax.wire.errors import EnvelopeError
from qoejax.wire.primitives import Kem, SelfTestError, Signature, random_bytes
from qoejax.wire.secret import Secret


class Provider(NamedTuple):
    """Primitives by algorithm."""

    kems: Mapping[str, Kem]
    signatures: Mapping[str, Signature]


_CLASSICAL = {name: provider_openssl.KEMS[name] for name in ("x25519", "p384")}
_ED25519 = {"ed25519": provider_openssl.SIGNATURES["ed25519"]}
PROVIDERS: dict[str, Provider] = {
    "pqcrypto": Provider(
        provider_pqcrypto.KEMS | _CLASSICAL, provider_pqcrypto.SIGNATURES | _ED25519
    ),
    "openssl": Provider(provider_openssl.KEMS, provider_openssl.SIGNATURES),
}


def provider(name: str) -> Provider:
    """The named provider; ValueError lists the names there are."""
    if name not in PROVIDERS:
        raise ValueError(f"signer {name!r} is none of {sorted(PROVIDERS)}")
    return PROVIDERS[name]


def offers(name: str, algorithm: str) -> bool:
    """Whether a provider has an algorithm."""
    one = provider(name)
    return algorithm in one.kems or algorithm in one.signatures


def _absent(name: str, algorithm: str) -> ValueError:
    others = [other for other in sorted(PROVIDERS) if offers(other, algorithm)]
    return ValueError(f"{name} has no {algorithm}: expected one of {others}")


@functools.cache
def kem(name: str, algorithm: str) -> Kem:
    """A KEM of a provider, tested at its first use.

    Raises:
        ValueError: no such provider, or it lacks the algorithm; lists who has it.
        SelfTestError: it gives wrong answers on this machine.
    """
    one = provider(name).kems.get(algorithm)
    if one is None:
        raise _absent(name, algorithm)
    check_kem(f"{name} {algorithm}", one, known_answers()[algorithm])
    return one


@functools.cache
def signature(name: str, algorithm: str) -> Signature:
    """A signature scheme of a provider, tested at its first use; raises as ``kem`` does."""
    one = provider(name).signatures.get(algorithm)
    if one is None:
        raise _absent(name, algorithm)
    check_signature(f"{name} {algorithm}", one, known_answers()[algorithm])
    return one


def check_kem(what: str, one: Kem, answer: Mapping[str, bytes]) -> None:
    """A known answer, and a fresh pair that agrees with itself; SelfTestError if not."""
    if one.decaps(answer[one.form], answer["ct"]) != answer["ss"]:
        raise SelfTestError(f"{what} misses its known answer")
    public, secret = one.keygen()
    if (len(public), len(secret)) != (one.public_size, one.secret_size):
        raise SelfTestError(f"{what} makes keys of sizes {len(public)} and {len(secret)}")
    ciphertext, shared = one.encaps(public)
    if len(ciphertext) != one.ciphertext_size:
        raise SelfTestError(f"{what} makes ciphertexts of size {len(ciphertext)}")
    if one.decaps(secret.expose(), ciphertext) != shared:
        raise SelfTestError(f"{what} does not agree with itself")


def check_signature(what: str, one: Signature, answer: Mapping[str, bytes]) -> None:
    """A known key, a known signature where one is published, a fresh pair; SelfTestError if not.

    Without a published signature, one of the known secret key must verify under its published
    public key: both ends of that are functions of the seed.
    """
    public, secret = answer["pk"], Secret(answer[one.form])
    if not one.matches(public, secret):
        raise SelfTestError(f"{what} does not match a published key pair")
    if "sig" in answer:
        message, context, known = answer["msg"], answer["ctx"], answer["sig"]
    else:
        message, context = b"self-test", b"qoejax/v1/self-test"
        known = one.signer(secret)(message, context)
    if not one.verify(public, message, known, context):
        raise SelfTestError(f"{what} refuses a signature of a published key")
    if one.verify(public, message + b"\0", known, context):
        raise SelfTestError(f"{what} accepts a signature of another message")
    if not consistent(one, *one.generate()):
        raise SelfTestError(f"{what} does not verify its own signature")


def consistent(one: Signature, public: bytes, secret: Secret) -> bool:
    """Pairwise consistency: the halves belong together and a fresh signature verifies."""
    if not one.matches(public, secret):
        return False
    message = random_bytes(32)
    made = one.signer(secret)(message, b"self-test")
    return len(made) == one.signature_size and one.verify(public, message, made, b"self-test")


def known_answers() -> dict[str, dict[str, bytes]]:
    """Answers by algorithm; the file names the source of each."""
    text = resources.files("qoejax.wire").joinpath("known_answers.json").read_text()
    table = json.loads(text)
    return {
        name: {field: bytes.fromhex(value) for field, value in fields.items()}
        for name, fields in table["vectors"].items()
    }


def agree(algorithm: str) -> None:
    """Every pair of providers of an algorithm, against each other; SelfTestError if they differ."""
    names = [name for name in sorted(PROVIDERS) if offers(name, algorithm)]
    for one in names:
        for other in names:
            if not _agree(one, other, algorithm):
                raise SelfTestError(f"{one} and {other} disagree on {algorithm}")


def _agree(one: str, other: str, algorithm: str) -> bool:
    try:
        if algorithm in PROVIDERS[one].kems:
            receiver, sender = kem(one, algorithm), kem(other, algorithm)
            public, secret = receiver.keygen()
            ciphertext, shared = sender.encaps(public)
            return receiver.decaps(secret.expose(), ciphertext) == shared
        signing, verifying = signature(one, algorithm), signature(other, algorithm)
        public, secret = signing.generate()
        made = signing.signer(secret)(b"self-test", b"")
        return verifying.verify(public, b"self-test", made, b"")
    except EnvelopeError:
        return False
