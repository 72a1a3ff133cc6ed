"""AES-256-CTR keystreams as vectors of the ring Z_2^32, added in place. NumPy.

A key masks one vector in one round, so the counter always starts at the same block: 2, where GCM
with a nonce of zeros starts to encrypt (SP 800-38D, section 7.1). It is GCM that is asked for the
keystream and its tag dropped, because OpenSSL has vector AES for GCM and not for CTR: on such
processors it takes half the time, tag and all.
"""

from collections.abc import Iterable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from qoejax.wire.secret import Secret

WORD = np.dtype("<u4")
_NONCE = bytes(12)
_ZEROS = memoryview(bytes(2**17))
"""As much of a keystream as is made at a time: with its part of the vector it stays in a cache."""


def add(vector: np.ndarray, terms: Iterable[tuple[Secret, int]]) -> None:
    """Adds sign times keystream for every ``(key [32], sign)`` to ``vector`` [N] uint32, in place.

    Memory beside the vector: 128 KiB, and a cipher's state for each term.
    """
    streams = [(_stream(key), np.add if sign > 0 else np.subtract) for key, sign in terms]
    buffer = bytearray(len(_ZEROS))
    words = np.frombuffer(buffer, WORD)
    for at in range(0, len(vector), len(words)):
        part = vector[at : at + len(words)]
        zeros, mask = _ZEROS[: WORD.itemsize * len(part)], words[: len(part)]
        for stream, combine in streams:
            stream.update_into(zeros, buffer)
            combine(part, mask, out=part)


def _stream(key: Secret):
    return Cipher(algorithms.AES256(key.expose()), modes.GCM(_NONCE)).encryptor()
