"""SLH-DSA verification (FIPS 205) with SHA-256 and n = 16, in plain Python.

Written from the standard and sharing nothing with pqcrypto: the second implementation that its
signatures are held against. Algorithm numbers are the standard's.
"""

import hashlib
from typing import NamedTuple

N, W, LEN1, LEN2 = 16, 16, 32, 3
WOTS_HASH, WOTS_PK, TREE, FORS_TREE, FORS_ROOTS = range(5)


class Parameters(NamedTuple):
    """Table 2."""

    h: int
    d: int
    a: int
    k: int
    m: int


SHA2_128F, SHA2_128S = Parameters(66, 22, 6, 33, 34), Parameters(63, 7, 12, 14, 30)


def _address(layer: int, tree: int, kind: int, *words: int) -> bytes:
    """Compressed address, 22 bytes (section 11.2)."""
    parts = [bytes([layer]), tree.to_bytes(8, "big"), bytes([kind])]
    return b"".join(parts + [word.to_bytes(4, "big") for word in words])


def _hash(seed: bytes, address: bytes, data: bytes) -> bytes:
    """F, H and T of section 11.2.1, which are one function here."""
    return hashlib.sha256(seed + bytes(64 - N) + address + data).digest()[:N]


def _digits(data: bytes, bits: int, count: int) -> list[int]:
    """Algorithm 4, base_2b."""
    whole, size = int.from_bytes(data, "big"), 8 * len(data)
    return [whole >> (size - bits * (i + 1)) & (1 << bits) - 1 for i in range(count)]


def _climb(seed: bytes, node: bytes, path: bytes, index: int, offset: int, at) -> bytes:
    """The root above leaf ``index``; ``at(height, index)`` gives addresses."""
    for height in range(len(path) // N):
        sibling = path[height * N : (height + 1) * N]
        pair = sibling + node if index >> height & 1 else node + sibling
        place = (offset >> height + 1) + (index >> height + 1)
        node = _hash(seed, at(height + 1, place), pair)
    return node


def _wots(seed: bytes, layer: int, tree: int, leaf: int, signature: bytes, message: bytes) -> bytes:
    """Algorithm 8: the WOTS+ public key that a signature implies."""
    digits = _digits(message, 4, LEN1)
    checksum = sum(W - 1 - digit for digit in digits) << 4
    digits += _digits(checksum.to_bytes(2, "big"), 4, LEN2)
    ends = b""
    for i, digit in enumerate(digits):
        value = signature[i * N : (i + 1) * N]
        for step in range(digit, W - 1):
            value = _hash(seed, _address(layer, tree, WOTS_HASH, leaf, i, step), value)
        ends += value
    return _hash(seed, _address(layer, tree, WOTS_PK, leaf, 0, 0), ends)


def _fors(p: Parameters, seed: bytes, tree: int, leaf: int, signature: bytes, md: bytes) -> bytes:
    """Algorithm 17: the FORS public key that a signature implies."""
    roots, step = b"", (p.a + 1) * N
    for i, index in enumerate(_digits(md, p.a, p.k)):
        part, offset = signature[i * step : (i + 1) * step], i << p.a
        place = _address(0, tree, FORS_TREE, leaf, 0, offset + index)
        node = _hash(seed, place, part[:N])

        def at(height: int, place: int) -> bytes:
            return _address(0, tree, FORS_TREE, leaf, height, place)

        roots += _climb(seed, node, part[N:], index, offset, at)
    return _hash(seed, _address(0, tree, FORS_ROOTS, leaf, 0, 0), roots)


def _digest(p: Parameters, public: bytes, randomizer: bytes, message: bytes) -> bytes:
    """H_msg of section 11.2.1: MGF1 with SHA-256."""
    seed = public[:N]
    inner = hashlib.sha256(randomizer + public + message).digest()
    blocks = [
        hashlib.sha256(randomizer + seed + inner + i.to_bytes(4, "big")).digest() for i in range(2)
    ]
    return b"".join(blocks)[: p.m]


def verify(
    p: Parameters, public: bytes, message: bytes, signature: bytes, context: bytes = b""
) -> bool:
    """Algorithms 24 and 20, pure mode."""
    step = (LEN1 + LEN2) * N + p.h // p.d * N
    fors_size = p.k * (p.a + 1) * N
    if len(signature) != N + fors_size + p.d * step or len(public) != 2 * N:
        return False
    seed, root = public[:N], public[N:]
    wrapped = b"\0" + bytes([len(context)]) + context + message
    digest = _digest(p, public, signature[:N], wrapped)
    cut = -(-p.k * p.a // 8)
    height = p.h // p.d
    size = -(-(p.h - height) // 8)
    tree = int.from_bytes(digest[cut : cut + size], "big") % (1 << p.h - height)
    leaf = int.from_bytes(digest[cut + size :], "big") % (1 << height)
    node = _fors(p, seed, tree, leaf, signature[N : N + fors_size], digest[:cut])
    for layer in range(p.d):
        start = N + fors_size + layer * step
        part = signature[start : start + step]
        node = _wots(seed, layer, tree, leaf, part[: (LEN1 + LEN2) * N], node)

        def at(height: int, place: int, layer: int = layer, tree: int = tree) -> bytes:
            return _address(layer, tree, TREE, 0, height, place)

        node = _climb(seed, node, part[(LEN1 + LEN2) * N :], leaf, 0, at)
        leaf, tree = tree % (1 << height), tree >> height
    return node == root
