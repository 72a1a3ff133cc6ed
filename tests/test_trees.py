import jax
import numpy as np
import pytest

from qoejax import trees

TREE = {"net": {"heads": [np.ones(2), np.zeros((3, 1), np.int8)], "stem": np.arange(4.0)}, "s": 1.5}


@pytest.mark.parametrize("word", ["heads", "net", "stem", "nothing"])
def test_split_and_merge_are_inverse(word):
    chosen, others = trees.split(TREE, lambda name: word in name)
    assert all(word in name for name, _ in trees.named_leaves(chosen))
    assert not any(word in name for name, _ in trees.named_leaves(others))
    for whole in (trees.merge(chosen, others), trees.merge(others, chosen)):
        assert jax.tree.structure(whole) == jax.tree.structure(TREE)
        jax.tree.map(np.testing.assert_array_equal, whole, TREE)


def test_bytes_need_shapes_only():
    tree = {"a": np.ones((3, 2), np.float32), "b": np.ones(5, np.int8)}
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), tree)
    assert trees.nbytes(tree) == trees.nbytes(shapes) == 29
