"""Shamir's secret sharing over GF(2^521 - 1) (Shamir 1979). Standard library only.

A secret of 32 bytes is the constant term of a random polynomial of degree t - 1; a share is its
value at the holder's x. Any t shares give the secret, fewer say nothing about it. The field is far
larger than the secret, so a wrong share almost surely shows as a value that is no secret.
"""

import functools
import itertools
import math
from collections.abc import Iterable

from qoejax.wire import kem
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.secret import Secret

PRIME = 2**521 - 1
SECRET_SIZE = 32
SHARE_SIZE = 66
"""Bytes of one field element."""


def split(secret: Secret, xs: Iterable[int], threshold: int) -> list[Secret]:
    """One share [66] for every x; ValueError for an x that is 0, repeated or out of the field."""
    xs = list(xs)
    if len(secret) != SECRET_SIZE:
        raise ValueError(f"a secret has {SECRET_SIZE} bytes, got {len(secret)}")
    if len(set(xs)) != len(xs) or not all(0 < x < PRIME for x in xs):
        raise ValueError("holders need different x above 0")
    if not 1 <= threshold <= len(xs):
        raise ValueError(f"threshold {threshold} for {len(xs)} holders")
    # 64 bits more than the field has, so the remainder is uniform up to 2**-64.
    size = SHARE_SIZE + 8
    drawn = kem.random_bytes(size * (threshold - 1))
    higher = [
        int.from_bytes(drawn[at : at + size], "big") % PRIME for at in range(0, len(drawn), size)
    ]
    coefficients = [*higher, int.from_bytes(secret.expose(), "big")]
    return [Secret(_value(coefficients, x).to_bytes(SHARE_SIZE, "big")) for x in xs]


def _value(coefficients: list[int], x: int) -> int:
    """Horner's rule, from the highest coefficient."""
    total = 0
    for coefficient in coefficients:
        total = (total * x + coefficient) % PRIME
    return total


def combine(shares: dict[int, bytes], threshold: int) -> Secret:
    """The secret of the first ``threshold`` shares by x.

    Raises:
        EnvelopeError: POLICY with too few shares; FORMAT for a share that is no field element, or
            shares whose polynomial has no 32-byte secret.
    """
    if len(shares) < threshold:
        raise EnvelopeError(Code.POLICY, f"{len(shares)} shares, {threshold} needed")
    chosen = tuple(sorted(shares))[:threshold]
    total = 0
    for x, weight in zip(chosen, _weights(chosen), strict=True):
        value = int.from_bytes(shares[x], "big")
        if len(shares[x]) != SHARE_SIZE or value >= PRIME:
            raise EnvelopeError(Code.FORMAT, f"the share at {x} is no field element")
        total += weight * value
    total %= PRIME
    if total >= 1 << 8 * SECRET_SIZE:
        raise EnvelopeError(Code.FORMAT, "these shares are not of one secret")
    return Secret(total.to_bytes(SECRET_SIZE, "big"))


@functools.lru_cache(maxsize=1024)
def _weights(xs: tuple[int, ...]) -> tuple[int, ...]:
    """Lagrange's coefficients at 0; holders have small x, so most clients share one tuple."""
    above = [math.prod(other for other in xs if other != x) for x in xs]
    below = [math.prod(other - x for other in xs if other != x) for x in xs]
    # One inversion for all: 1 / b_j is the product of the others over the product of all.
    before = list(itertools.accumulate(below, lambda a, b: a * b % PRIME, initial=1))
    inverse = pow(before[-1], -1, PRIME)
    weights = [0] * len(xs)
    for j in reversed(range(len(xs))):
        weights[j] = above[j] * inverse * before[j] % PRIME
        inverse = inverse * below[j] % PRIME
    return tuple(weights)
