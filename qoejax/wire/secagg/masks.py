"""AES-256-CTR keystreams as vectors of the ring Z_2^32, added in place. NumPy.

A key masks one vector in one round, so the counter starts at 0 and is never reused.
"""

from collections.abc import Iterable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from qoejax.wire.secret import Secret

WORD = np.dtype("<u4")
_START = bytes(16)


def keystream(key: Secret, length: int) -> np.ndarray:
    """``length`` little-endian words of AES-256-CTR under ``key`` [32]."""
    out = bytearray(4 * length)
    _fill(key, memoryview(bytes(4 * length)), out)
    return np.frombuffer(out, WORD)


def add(vector: np.ndarray, terms: Iterable[tuple[Secret, int]]) -> None:
    """Adds sign times keystream for every ``(key, sign)`` to ``vector`` [N] uint32, in place."""
    zeros = memoryview(bytes(4 * len(vector)))
    buffer = bytearray(4 * len(vector))
    words = np.frombuffer(buffer, WORD)
    for key, sign in terms:
        _fill(key, zeros, buffer)
        (np.add if sign > 0 else np.subtract)(vector, words, out=vector)


def _fill(key: Secret, zeros: memoryview, out: bytearray) -> None:
    if not len(zeros):
        return
    cipher = Cipher(algorithms.AES(key.expose()), modes.CTR(_START)).encryptor()
    done = cipher.update_into(zeros, out)
    if done != len(zeros):
        raise RuntimeError(f"the keystream has {done} bytes, expected {len(zeros)}")
