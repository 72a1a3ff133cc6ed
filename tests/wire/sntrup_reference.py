"""Decapsulation of Streamlined NTRU Prime, sntrup761 (round 3 of NIST's competition), with NumPy.

Written from the specification and sharing nothing with pqcrypto: the second implementation that its
ciphertexts are held against.
"""

import hashlib

import numpy as np

P, Q, WEIGHT = 761, 4591, 286
SMALL, PUBLIC, ROUNDED = 191, 1158, 1007
_HALF, _LIMIT = (Q - 1) // 2, 16384


def _decode(data: bytes, radices: list[int]) -> list[int]:
    """Mixed-radix numbers, two merged into one at every level."""
    if len(radices) == 1:
        return [int.from_bytes(data, "little") % radices[0]]
    at, low, merged = 0, [], []
    for i in range(0, len(radices) - 1, 2):
        radix, rest, scale = radices[i] * radices[i + 1], 0, 1
        while radix >= _LIMIT:
            rest, scale, at = rest + data[at] * scale, scale * 256, at + 1
            radix = -(-radix // 256)
        low.append((rest, scale))
        merged.append(radix)
    odd = radices[-1:] if len(radices) % 2 else []
    high = _decode(data[at:], merged + odd)
    out = []
    for i, (rest, scale) in enumerate(low):
        value = rest + scale * high[i]
        out += [value % radices[2 * i], value // radices[2 * i] % radices[2 * i + 1]]
    return out + high[len(low) :]


def _small(data: bytes) -> np.ndarray:
    """Coefficients -1, 0, 1, two bits each."""
    bits = np.frombuffer(data, np.uint8)[:, None] >> np.array([0, 2, 4, 6]) & 3
    return bits.reshape(-1)[:P].astype(np.int64) - 1


def _pack(small: np.ndarray) -> bytes:
    digits = np.zeros(4 * SMALL, np.int64)
    digits[:P] = small + 1
    return bytes((digits.reshape(-1, 4) << np.array([0, 2, 4, 6])).sum(1).astype(np.uint8))


def _centre(values: np.ndarray, modulus: int) -> np.ndarray:
    half = (modulus - 1) // 2
    return (values + half) % modulus - half


def _times(a: np.ndarray, b: np.ndarray, modulus: int) -> np.ndarray:
    """Product in Z_modulus[x] / (x^p - x - 1)."""
    full = np.convolve(a, b)
    out = full[:P].copy()
    out[: P - 1] += full[P:]
    out[1:P] += full[P:]
    return _centre(out, modulus)


def _hash(prefix: int, data: bytes) -> bytes:
    return hashlib.sha512(bytes([prefix]) + data).digest()[:32]


def decaps(secret: bytes, ciphertext: bytes) -> bytes:
    """Shared secret [32] of a secret key [1763] and a ciphertext [1039]."""
    f, inverse = _small(secret[:SMALL]), _small(secret[SMALL : 2 * SMALL])
    public = secret[2 * SMALL : 2 * SMALL + PUBLIC]
    rho, cache = secret[2 * SMALL + PUBLIC : -32], secret[-32:]
    c = np.array(_decode(ciphertext[:ROUNDED], [(Q + 2) // 3] * P)) * 3 - _HALF
    e = _centre(_centre(3 * _times(c, f, Q), Q), 3)
    r = _times(e, inverse, 3)
    if np.abs(r).sum() != WEIGHT:
        r = np.array([1] * WEIGHT + [0] * (P - WEIGHT))
    h = np.array(_decode(public, [Q] * P)) - _HALF
    hr = _times(h, r, Q)
    again = hr - _centre(hr, 3)
    packed = _pack(r)
    confirm = _hash(2, _hash(3, packed) + cache)
    good = np.array_equal(again, c) and confirm == ciphertext[ROUNDED:]
    return _hash(int(good), _hash(3, packed if good else rho) + ciphertext)
