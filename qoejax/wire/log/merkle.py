"""The Merkle tree of RFC 6962 (and RFC 9162, section 2): roots and proofs, SHA-256.

``Tree`` keeps the hashes of all perfect subtrees, 64 bytes a leaf, so that appending is amortised
constant and every root and proof costs O(log n) hashes. The verifiers need no tree.
"""

import hashlib
from collections.abc import Iterable, Sequence

from qoejax.wire.log.errors import LogError

HASH_SIZE = 32
EMPTY = hashlib.sha256(b"").digest()
"""Root [32] of the tree without leaves."""


def leaf_hash(entry: bytes) -> bytes:
    """Hash [32] of a leaf: SHA-256(0x00 || entry)."""
    return hashlib.sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash [32] of an inner node: SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\1" + left + right).digest()


class Tree:
    """A tree that grows by leaf hashes; sizes up to the present one can be asked for."""

    __slots__ = ("_levels",)

    def __init__(self, leaves: Iterable[bytes] = ()):
        self._levels: list[bytearray] = [bytearray()]  # level h: perfect subtrees of 2**h leaves
        for leaf in leaves:
            self.append(leaf)

    @property
    def size(self) -> int:
        """Number of leaves."""
        return len(self._levels[0]) // HASH_SIZE

    def append(self, leaf: bytes) -> None:
        """Adds a leaf by its hash [32]."""
        if len(leaf) != HASH_SIZE:
            raise LogError(f"a leaf hash has {HASH_SIZE} bytes, got {len(leaf)}")
        done, level = leaf, 0
        self._levels[0] += done
        while len(self._levels[level]) // HASH_SIZE % 2 == 0:
            done = node_hash(bytes(self._levels[level][-2 * HASH_SIZE : -HASH_SIZE]), done)
            level += 1
            if level == len(self._levels):
                self._levels.append(bytearray())
            self._levels[level] += done

    def leaf(self, index: int) -> bytes:
        """Hash [32] of leaf ``index``."""
        return bytes(self._levels[0][index * HASH_SIZE : (index + 1) * HASH_SIZE])

    def root(self, size: int | None = None) -> bytes:
        """Root [32] of the first ``size`` leaves, by default of all."""
        size = self._checked(size)
        return self._hash(0, size) if size else EMPTY

    def inclusion(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """Audit path of leaf ``index``, from its sibling upwards (RFC 6962, section 2.1.1)."""
        size = self._checked(size)
        if not 0 <= index < size:
            raise LogError(f"entry {index}: the tree has entries 0 to {size - 1}")
        path = []
        start, end = 0, size
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                path.append(self._hash(middle, end))
                end = middle
            else:
                path.append(self._hash(start, middle))
                start = middle
        return tuple(reversed(path))

    def consistency(self, old: int, size: int | None = None) -> tuple[bytes, ...]:
        """Proof that the tree of ``old`` leaves is a prefix (RFC 6962, section 2.1.2)."""
        size = self._checked(size)
        if not 0 <= old <= size:
            raise LogError(f"old size {old}: expected 0 to {size}")
        path = []
        start, end = 0, size
        whole = True  # whether the old tree's share of [start, end) begins at leaf 0
        while 0 < old < end:
            middle = start + _split(end - start)
            if old <= middle:
                path.append(self._hash(middle, end))
                end = middle
            else:
                path.append(self._hash(start, middle))
                start, whole = middle, False
        if old > 0 and not whole:
            path.append(self._hash(start, end))
        return tuple(reversed(path))

    def _checked(self, size: int | None) -> int:
        size = self.size if size is None else size
        if not 0 <= size <= self.size:
            raise LogError(f"size {size}: the tree has {self.size} entries")
        return size

    def _hash(self, start: int, end: int) -> bytes:
        n = end - start
        level = n.bit_length() - 1
        if n == 1 << level and start % n == 0:
            at = (start >> level) * HASH_SIZE
            return bytes(self._levels[level][at : at + HASH_SIZE])
        middle = start + _split(n)
        return node_hash(self._hash(start, middle), self._hash(middle, end))


def _split(n: int) -> int:
    """The largest power of two below ``n``."""
    return 1 << (n - 1).bit_length() - 1


def verify_inclusion(
    leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes
) -> bool:
    """Whether ``leaf`` [32] is number ``index`` of the tree (RFC 9162, section 2.1.3.2)."""
    if not 0 <= index < size or any(len(part) != HASH_SIZE for part in path):
        return False
    node, last, found = index, size - 1, leaf
    for part in path:
        if last == 0:
            return False
        if node & 1 or node == last:
            found = node_hash(part, found)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            found = node_hash(found, part)
        node, last = node >> 1, last >> 1
    return last == 0 and found == root


def verify_consistency(
    old: int, size: int, path: Sequence[bytes], old_root: bytes, root: bytes
) -> bool:
    """Whether the tree only grew (RFC 9162, section 2.1.4.2).

    From the empty tree everything follows: the proof is then empty, as C2SP's tlog-witness asks.
    """
    if not 0 <= old <= size or any(len(part) != HASH_SIZE for part in path):
        return False
    if old == 0:
        return not path and old_root == EMPTY and (size > 0 or root == EMPTY)
    if old == size:
        return not path and old_root == root
    parts = list(path)
    if old & (old - 1) == 0:  # a perfect tree is its own first node
        parts.insert(0, old_root)
    if not parts:
        return False
    node, last = old - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    before = after = parts[0]
    for part in parts[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            before, after = node_hash(part, before), node_hash(part, after)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            after = node_hash(after, part)
        node, last = node >> 1, last >> 1
    return last == 0 and before == old_root and after == root
