"""What ``optax.tree`` and ``jax.tree`` lack."""

import hashlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def path_name(path: tuple[Any, ...]) -> str:
    """A key path as text: ``stem/conv0/kernel``."""
    return "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """Leaves with their paths, in ``jax.tree`` order."""
    return [(path_name(p), leaf) for p, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]


def sha256(tree: Any, read: Callable[[Any], Any] = np.asarray) -> str:
    """Hex SHA-256 over names, dtypes, shapes and little-endian bytes of every leaf.

    ``read`` brings a leaf to the host, one at a time.
    """
    digest = hashlib.sha256()
    for name, leaf in named_leaves(tree):
        array = read(leaf)
        little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
        digest.update(f"{name}\0{array.dtype.str[1:]}\0{array.shape}\0".encode())
        digest.update(little.tobytes())
    return digest.hexdigest()


def count(tree: Any) -> int:
    """Number of scalars in all leaves."""
    return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(tree))


def nbytes(tree: Any) -> int:
    """Bytes of all leaves, which need a shape and a dtype only."""
    return sum(leaf.size * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))


def split(tree: Any, chosen: Callable[[str], bool]) -> tuple[Any, Any]:
    """The leaves whose names are chosen, and the others; None stands where the other half is."""
    map_named = jax.tree_util.tree_map_with_path
    return (
        map_named(lambda path, leaf: leaf if chosen(path_name(path)) else None, tree),
        map_named(lambda path, leaf: None if chosen(path_name(path)) else leaf, tree),
    )


def merge(first: Any, second: Any) -> Any:
    """Inverse of ``split``, in either order."""
    return jax.tree.map(
        lambda a, b: b if a is None else a, first, second, is_leaf=lambda x: x is None
    )
