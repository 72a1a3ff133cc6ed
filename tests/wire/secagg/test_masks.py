import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from qoejax.wire.secagg import masks
from qoejax.wire.secret import Secret

PART = len(masks._ZEROS) // 4


def counter_mode(key, length):
    """The keystream as docs/secagg.md states it: CTR from block 2, little-endian words."""
    start = (2).to_bytes(16, "big")
    cipher = Cipher(algorithms.AES256(key), modes.CTR(start)).encryptor()
    return np.frombuffer(cipher.update(bytes(4 * length)), "<u4")


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, PART - 1, PART, PART + 1, 2 * PART + 7])
def test_a_mask_is_the_counter_mode_keystream(length):
    key = bytes(range(32))
    vector = np.zeros(length, np.uint32)
    masks.add(vector, [(Secret(key), 1)])
    np.testing.assert_array_equal(vector, counter_mode(key, length))


def test_the_first_block_is_that_of_aes():
    """FIPS 197, appendix C.3, has this key; the block is AES of the counter 2."""
    key = bytes(range(32))
    block = Cipher(algorithms.AES256(key), modes.ECB()).encryptor().update((2).to_bytes(16, "big"))
    vector = np.zeros(4, np.uint32)
    masks.add(vector, [(Secret(key), 1)])
    assert vector.astype("<u4").tobytes() == block


@given(
    st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.sampled_from([1, -1])), max_size=4),
    st.integers(0, 40),
    st.integers(0, 2**32 - 1),
)
def test_terms_add_and_subtract_modulo_two_to_the_32(terms, length, start):
    vector = np.full(length, start, np.uint32)
    masks.add(vector, [(Secret(key), sign) for key, sign in terms])
    streams = [sign * counter_mode(key, length).astype(object) for key, sign in terms]
    expected = [(start + sum(int(s[i]) for s in streams)) % 2**32 for i in range(length)]
    assert vector.tolist() == expected


def test_opposite_terms_leave_nothing():
    vector = np.arange(PART + 3, dtype=np.uint32)
    masks.add(vector, [(Secret(bytes(32)), 1), (Secret(b"k" * 32), -1)])
    assert not np.array_equal(vector[:8], np.arange(8))
    masks.add(vector, [(Secret(b"k" * 32), 1), (Secret(bytes(32)), -1)])
    np.testing.assert_array_equal(vector, np.arange(PART + 3))
