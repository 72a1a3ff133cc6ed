import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from qoejax.wire import codec
from qoejax.wire.errors import Code, EnvelopeError
from tests.wire.helpers import LEAVES, MODEL, SPEC

SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
LEAF = st.tuples(st.text(max_size=8), SHAPES, st.sampled_from(codec.DTYPES))
# Specs are built in the tests: beartype draws from the random module, which strategies may not.
LEAVES_OF = st.lists(LEAF, max_size=6, unique_by=lambda leaf: leaf[0])


@given(LEAVES_OF, st.randoms(use_true_random=False))
def test_any_bytes_of_the_right_length_round_trip(leaves, random):
    spec = codec.tree_spec(leaves)
    payload = random.randbytes(codec.nbytes(spec))
    leaves = codec.decode(spec, payload)
    assert [leaf.shape for leaf in leaves] == [leaf.shape for leaf in spec]
    assert codec.encode(spec, leaves) == payload


@given(LEAVES_OF, st.integers(-3, 3).filter(bool))
def test_any_other_length_is_refused(leaves, extra):
    spec = codec.tree_spec(leaves)
    size = abs(codec.nbytes(spec) + extra)
    assume(size != codec.nbytes(spec))
    with pytest.raises(EnvelopeError) as caught:
        codec.decode(spec, bytes(size))
    assert caught.value.code is Code.SIZE


@given(LEAVES_OF, LEAVES_OF)
def test_digests_agree_exactly_when_specs_do(one, two):
    one, two = codec.tree_spec(one), codec.tree_spec(two)
    assert (codec.spec_digest(one) == codec.spec_digest(two)) == (one == two)


def test_layout_is_little_endian_in_spec_order():
    expected = np.array([1, -2, 0, 1, 2, 3, 4, 5], "<f4").tobytes()
    assert expected == MODEL
    swapped = [leaf.astype(">f4") for leaf in LEAVES]
    assert codec.encode(SPEC, swapped) == MODEL
    fortran = [LEAVES[0], np.asfortranarray(LEAVES[1])]
    assert codec.encode(SPEC, fortran) == MODEL


def test_spec_digest_is_pinned():
    expected = "c97cad1c3146dec0d3d1f216a78d089ded935ef16648389e7c9c9fe3bda6e7a8"
    assert codec.spec_digest(SPEC).hex() == expected


def test_decoding_copies_nothing_and_is_read_only():
    leaves = codec.decode(SPEC, MODEL)
    assert all(np.shares_memory(leaf, np.frombuffer(MODEL, np.uint8)) for leaf in leaves)
    with pytest.raises(ValueError, match="read-only"):
        leaves[0][0] = 1


@pytest.mark.parametrize(
    ("leaves", "why"),
    [
        (LEAVES[:1], "1 leaves for a spec of 2"),
        ([LEAVES[0], LEAVES[1].T], r"'dense/kernel': expected <f4\[2, 3\], got <f4\[3, 2\]"),
        ([LEAVES[0].astype("f8"), LEAVES[1]], r"'dense/bias': expected <f4\[2\], got <f8\[2\]"),
    ],
)
def test_leaves_that_do_not_fit_are_named(leaves, why):
    with pytest.raises(EnvelopeError, match=why) as caught:
        codec.encode(SPEC, leaves)
    assert caught.value.code is Code.SPEC


@pytest.mark.parametrize(
    ("leaves", "why"),
    [
        ([("a", (), "f4"), ("a", (), "f4")], "share one path"),
        ([("a", (), "O")], "'a': dtype O cannot be sent"),
        ([("a", (), "c8")], "cannot be sent"),
        ([("a", (-1,), "f4")], "negative"),
        ([("a", (2**29,), "f4")], "2 GiB"),
    ],
)
def test_specs_that_cannot_be_sent_are_refused(leaves, why):
    with pytest.raises(EnvelopeError, match=why) as caught:
        codec.tree_spec(leaves)
    assert caught.value.code is Code.SPEC


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8"])
def test_nonfinite_leaves_are_named(bad, dtype):
    spec = codec.tree_spec([("a", (3,), dtype), ("b", (3,), dtype)])
    payload = codec.encode(spec, [np.ones(3, dtype), np.array([1, bad, 1], dtype)])
    with pytest.raises(EnvelopeError, match="'b'") as caught:
        codec.norm(spec, payload)
    assert caught.value.code is Code.NONFINITE


def test_norm_survives_large_and_mixed_values():
    spec = codec.tree_spec([("a", (2,), "<f4"), ("b", (1,), "|i1"), ("c", (0,), "<f4")])
    leaves = [np.array([3, 4], "<f4"), np.array([12], "|i1"), np.empty(0, "<f4")]
    assert codec.norm(spec, codec.encode(spec, leaves)) == 13
    spec = codec.tree_spec([("a", (2,), "<f4")])
    leaves = [np.array([3e38, 0], "<f4")]  # its square overflows float32
    assert codec.norm(spec, codec.encode(spec, leaves)) == pytest.approx(3e38, rel=1e-6)
    spec = codec.tree_spec([("a", (1,), "<f8")])
    assert codec.norm(spec, codec.encode(spec, [np.array([1e200])])) == math.inf
