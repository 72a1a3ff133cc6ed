"""Secret sharing: any t shares give the secret, fewer nothing, a wrong one shows."""

import itertools
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoejax.wire.errors import EnvelopeError
from qoejax.wire.secagg import shamir
from qoejax.wire.secret import Secret


def shared(n, t, secret=None):
    secret = Secret(os.urandom(32)) if secret is None else secret
    shares = shamir.split(secret, range(1, n + 1), t)
    return secret, {x: one.expose() for x, one in enumerate(shares, 1)}


def test_the_field_is_the_mersenne_prime_of_521_bits():
    assert shamir.PRIME == 2**521 - 1
    assert pow(3, shamir.PRIME - 1, shamir.PRIME) == 1  # Fermat; a Mersenne prime since 1952
    assert shamir.SHARE_SIZE == -(-521 // 8)


@given(st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))), st.data())
def test_any_t_shares_give_the_secret(sizes, data):
    n, t = sizes
    secret, shares = shared(n, t, Secret(data.draw(st.binary(min_size=32, max_size=32))))
    chosen = data.draw(st.permutations(sorted(shares)))[: data.draw(st.integers(t, n))]
    assert shamir.combine({x: shares[x] for x in chosen}, t) == secret


def test_every_subset_of_five_gives_the_secret():
    secret, shares = shared(5, 3)
    for chosen in itertools.combinations(shares, 3):
        assert shamir.combine({x: shares[x] for x in chosen}, 3) == secret


def test_fewer_shares_fit_every_secret():
    """With t - 1 shares, one more can be found for any secret: they say nothing about it."""
    _, shares = shared(4, 3)
    for wanted in (bytes(32), b"\xff" * 32):
        target = int.from_bytes(wanted, "big")
        w1, w2, w3 = shamir._weights((1, 2, 3))
        known = w1 * int.from_bytes(shares[1], "big") + w2 * int.from_bytes(shares[2], "big")
        third = (target - known) * pow(w3, -1, shamir.PRIME) % shamir.PRIME
        made = {1: shares[1], 2: shares[2], 3: third.to_bytes(66, "big")}
        assert shamir.combine(made, 3).expose() == wanted


def test_lagrange_weights_are_those_of_the_definition():
    xs = (2, 3, 5, 11)
    for x, weight in zip(xs, shamir._weights(xs), strict=True):
        expected = 1
        for other in xs:
            if other != x:
                expected = expected * other * pow(other - x, -1, shamir.PRIME) % shamir.PRIME
        assert weight == expected


def test_a_wrong_share_gives_no_secret():
    _, shares = shared(5, 3)
    for x in (1, 2, 3):
        changed = shares | {x: bytes([shares[x][0]]) + os.urandom(65)}
        with pytest.raises(EnvelopeError, match="FORMAT"):
            shamir.combine(changed, 3)


def test_too_few_shares_and_odd_ones_are_refused():
    _, shares = shared(5, 3)
    with pytest.raises(EnvelopeError, match="POLICY: 2 shares, 3 needed"):
        shamir.combine({1: shares[1], 2: shares[2]}, 3)
    for bad in (shares[1][:-1], b"\xff" * 66):
        with pytest.raises(EnvelopeError, match="FORMAT: the share at 1"):
            shamir.combine(shares | {1: bad}, 3)


@pytest.mark.parametrize("xs", [[0, 1], [1, 1], [shamir.PRIME]])
def test_holders_need_places(xs):
    with pytest.raises(ValueError, match="different x"):
        shamir.split(Secret(bytes(32)), xs, 1)


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="32 bytes, got 31"):
        shamir.split(Secret(bytes(31)), [1], 1)
    with pytest.raises(ValueError, match="threshold 3 for 2"):
        shamir.split(Secret(bytes(32)), [1, 2], 3)


def test_shares_are_fresh_and_secret():
    secret = Secret(bytes(32))
    first, second = (shamir.split(secret, [1, 2], 2) for _ in range(2))
    assert first[0] != second[0]
    assert repr(first[0]) == "<Secret of 66 bytes>"
