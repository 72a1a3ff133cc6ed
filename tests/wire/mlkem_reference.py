"""ML-KEM decapsulation keys from seeds (FIPS 203), which pqcrypto cannot make.

Plain Python, for vectors that give seeds. The public half is taken as given: only the secret
vector has to be sampled and transformed.
"""

import hashlib

_Q = 3329


def _zetas() -> list[int]:
    """17 to the power of the bit-reversed index (FIPS 203, appendix A)."""
    return [pow(17, int(f"{i:07b}"[::-1], 2), _Q) for i in range(128)]


def _ntt(f: list[int]) -> list[int]:
    """Algorithm 9."""
    f, zetas, i = list(f), _zetas(), 1
    length = 128
    while length >= 2:
        for start in range(0, 256, 2 * length):
            for j in range(start, start + length):
                t = zetas[i] * f[j + length] % _Q
                f[j + length], f[j] = (f[j] - t) % _Q, (f[j] + t) % _Q
            i += 1
        length //= 2
    return f


def _cbd2(data: bytes) -> list[int]:
    """Algorithm 8 with eta = 2."""
    bits = [byte >> k & 1 for byte in data for k in range(8)]
    return [
        (bits[4 * i] + bits[4 * i + 1] - bits[4 * i + 2] - bits[4 * i + 3]) % _Q for i in range(256)
    ]


def _encode12(f: list[int]) -> bytes:
    """Algorithm 5 with d = 12."""
    return sum(value << 12 * i for i, value in enumerate(f)).to_bytes(384, "little")


def decapsulation_key(d: bytes, z: bytes, ek: bytes, rank: int = 3) -> bytes:
    """dk of seed ``d || z``, whose encapsulation key is ``ek``; rank 3 is 768, rank 4 is 1024."""
    sigma = hashlib.sha3_512(d + bytes([rank])).digest()[32:]
    secret = b""
    for n in range(rank):
        sample = hashlib.shake_256(sigma + bytes([n])).digest(128)
        secret += _encode12(_ntt(_cbd2(sample)))
    return secret + ek + hashlib.sha3_256(ek).digest() + z
