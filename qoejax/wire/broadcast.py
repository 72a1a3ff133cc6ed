"""A model for those in a round only: encrypted once, its key given to each client in 48 bytes.

A client's reply key is an export of the last signed message of its that the server accepted (as
in Oblivious HTTP), so no second encapsulation is needed. One who has none says HELLO first.

    grant = AES-256-GCM(HKDF-Expand(reply, label || announcement digest), nonce 0, model key)
"""

import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.primitives import random_bytes
from qoejax.wire.secret import Secret

KEY_SIZE, TAG_SIZE = 32, 16
GRANT_SIZE = KEY_SIZE + TAG_SIZE
_NONCE = bytes(12)
_LABEL = b"qoejax/v1/broadcast\0"


def new_key() -> Secret:
    """A key [32] for the model of one announcement; RNG without randomness."""
    return Secret(random_bytes(KEY_SIZE))


def seal_model(key: Secret, digest: bytes, model: bytes) -> bytes:
    """Ciphertext and tag; ``key`` seals this one model, so nonce 0 is used once."""
    return AESGCM(key.expose()).encrypt(_NONCE, model, digest)


def open_model(key: Secret, digest: bytes, sealed: bytes) -> bytes:
    """The model of the announcement ``digest``; DECRYPT with another key."""
    try:
        return AESGCM(key.expose()).decrypt(_NONCE, sealed, digest)
    except InvalidTag:
        raise EnvelopeError(Code.DECRYPT, "the model does not open") from None


def _cipher(reply: Secret, digest: bytes) -> AESGCM:
    # RFC 5869, Expand of one block: the reply key is uniform already. The digest covers run,
    # round and round key, so this key wraps one model key only, however often it is sent.
    return AESGCM(hmac.digest(reply.expose(), _LABEL + digest + b"\1", "sha256"))


def grant(reply: Secret, digest: bytes, key: Secret) -> bytes:
    """The model's key for the client that shares ``reply`` [GRANT_SIZE]."""
    return _cipher(reply, digest).encrypt(_NONCE, key.expose(), None)


def accept(reply: Secret, digest: bytes, granted: bytes) -> Secret:
    """The model's key out of a grant; SIZE, or DECRYPT if it is for someone else."""
    if len(granted) != GRANT_SIZE:
        raise EnvelopeError(Code.SIZE, f"a grant has {GRANT_SIZE} bytes, got {len(granted)}")
    try:
        return Secret(_cipher(reply, digest).decrypt(_NONCE, granted, None))
    except InvalidTag:
        raise EnvelopeError(Code.DECRYPT, "the grant does not open") from None
