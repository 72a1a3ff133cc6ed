"""ChaCha20 against the vectors of RFC 8439."""

import jax
import jax.numpy as jnp
import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from qoejax.fed import chacha

KEY = np.frombuffer(bytes(range(32)), "<u4")


def words(text):
    return np.array([int(word, 16) for word in text.split()], np.uint32)


def test_quarter_round_of_section_2_1_1():
    mixed = chacha.quarter_round(*map(jnp.asarray, words("11111111 01020304 9b8d6f43 01234567")))
    np.testing.assert_array_equal(mixed, words("ea2a92f4 cb1cf8ce 4581472e 5881c4bb"))


def test_block_of_section_2_3_2():
    nonce = np.frombuffer(bytes.fromhex("000000090000004a00000000"), "<u4")
    block = jax.jit(chacha.blocks)(
        jnp.asarray(KEY), jnp.asarray(nonce), jnp.array([1], jnp.uint32)
    )[0]
    expected = words(
        "e4e7f110 15593bd1 1fdd0f50 c47120a3 c7f4d1c7 0368c033 9aaa2204 4e6cd4c3 "
        "466482d2 09aa9f07 05d7c214 a2028bd9 d19c12b5 b94e16de e883d0cb 4e3c50a2"
    )
    np.testing.assert_array_equal(block, expected)


def test_encryption_of_section_2_4_2():
    nonce = np.frombuffer(bytes.fromhex("000000000000004a00000000"), "<u4")
    text = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the "
        b"future, sunscreen would be it."
    )
    stream = chacha.blocks(jnp.asarray(KEY), jnp.asarray(nonce), jnp.array([1, 2], jnp.uint32))
    cipher = bytes(a ^ b for a, b in zip(text, np.asarray(stream).tobytes(), strict=False))
    assert cipher[:16].hex() == "6e2e359a2568f98041ba0728dd0d6981"
    assert cipher[-10:].hex() == "b40b8eedf2785e42874d"


def test_long_keystreams_are_those_of_openssl():
    key = np.random.default_rng(0).integers(0, 2**32, 8, np.uint32)
    stream = np.asarray(chacha.keystream(jnp.asarray(key), 1000))
    cipher = Cipher(algorithms.ChaCha20(key.tobytes(), bytes(16)), mode=None).encryptor()
    assert stream.tobytes() == cipher.update(bytes(4000))
