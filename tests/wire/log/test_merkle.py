import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoejax.wire.log import merkle
from qoejax.wire.log.errors import LogError
from tests.reference import merkle_rfc6962 as reference

# Inputs, roots and proofs of the reference tests of Certificate Transparency (RFC 6962).
LEAVES = [
    b"", b"\0", b"\x10", b"\x20\x21", b"\x30\x31", b"\x40\x41\x42\x43",
    bytes(range(0x50, 0x58)), bytes(range(0x60, 0x70)),
]  # fmt: skip
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
CONSISTENCY = {
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}


def grown(entries):
    return merkle.Tree([merkle.leaf_hash(entry) for entry in entries])


def test_published_roots_and_proofs():
    tree = grown(LEAVES)
    assert [tree.root(n).hex() for n in range(9)] == ROOTS
    for (old, size), want in CONSISTENCY.items():
        assert [part.hex() for part in tree.consistency(old, size)] == want
    assert [part.hex() for part in tree.inclusion(0, 8)] == [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ]


def test_every_proof_to_size_40_is_that_of_the_independent_implementation():
    entries = [str(i).encode() for i in range(40)]
    tree = grown(entries)
    for size in range(1, 41):
        d = entries[:size]
        root = reference.mth(d)
        assert tree.root(size) == root
        for i in range(size):
            path = tree.inclusion(i, size)
            leaf = tree.leaf(i)
            assert list(path) == reference.path(i, d)
            assert reference.root_from_path(leaf, i, size, list(path)) == root
            assert merkle.verify_inclusion(leaf, i, size, path, root)
        for old in range(1, size + 1):
            path = tree.consistency(old, size)
            assert list(path) == reference.proof(old, d)
            assert merkle.verify_consistency(old, size, path, tree.root(old), root)
        assert merkle.verify_consistency(0, size, (), merkle.EMPTY, root)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 200), st.data())
def test_nothing_but_the_right_proof_is_accepted(size, data):
    """Both verifiers agree with a recursion written apart, also on proofs that were spoilt."""
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    entries = [bytes([i % 256, i // 256]) for i in range(size)]
    tree = grown(entries)
    index, old = rng.randrange(size), rng.randrange(1, size + 1)
    path, root, leaf = list(tree.inclusion(index)), tree.root(), tree.leaf(index)
    link, before = list(tree.consistency(old)), tree.root(old)
    for spoilt in _spoil(rng, path):
        good = reference.root_from_path(leaf, index, size, spoilt) == root
        assert not good
        assert not merkle.verify_inclusion(leaf, index, size, spoilt, root)
    for spoilt in _spoil(rng, link):
        assert not merkle.verify_consistency(old, size, spoilt, before, root)
    other = hashlib.sha256(root).digest()
    assert not merkle.verify_inclusion(other, index, size, path, root)
    assert not merkle.verify_inclusion(leaf, index, size, path, other)
    assert not merkle.verify_consistency(old, size, link, other, root)
    assert not merkle.verify_consistency(old, size, link, before, other)
    for wrong in (index - 1, index + 1, size, -1):
        assert not merkle.verify_inclusion(leaf, wrong, size, path, root)
    if old < size:
        assert not merkle.verify_consistency(size, old, link, before, root)


def _spoil(rng, path):
    extra = rng.randbytes(32)
    yield [*path, extra]
    yield [extra, *path]
    if path:
        at = rng.randrange(len(path))
        yield path[:at] + path[at + 1 :]
        flipped = bytearray(path[at])
        flipped[rng.randrange(32)] ^= 1 << rng.randrange(8)
        yield [*path[:at], bytes(flipped), *path[at + 1 :]]
        yield [*path[:at], path[at][:31], *path[at + 1 :]]
    if len(set(path)) > 1:
        yield path[1:] + path[:1]


def test_a_leaf_is_no_node():
    """Second preimages: the two hashes of a node, taken for an entry, give another root."""
    tree = grown([b"a", b"b"])
    assert merkle.leaf_hash(tree.leaf(0) + tree.leaf(1)) != tree.root()


def test_what_is_not_there_cannot_be_asked_for():
    tree = grown([b"a", b"b", b"c"])
    with pytest.raises(LogError, match="entry 3: the tree has entries 0 to 2"):
        tree.inclusion(3)
    with pytest.raises(LogError, match="size 4: the tree has 3 entries"):
        tree.root(4)
    with pytest.raises(LogError, match="old size 3: expected 0 to 2"):
        tree.consistency(3, 2)
    with pytest.raises(LogError, match="32 bytes, got 1"):
        tree.append(b"x")
