import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoejax.wire import cbor
from qoejax.wire.errors import Code, EnvelopeError

VALUES = st.recursive(
    st.integers(0, 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.binary(max_size=30)
    | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [  # RFC 8949, appendix A
        (0, "00"),
        (23, "17"),
        (24, "1818"),
        (1000, "1903e8"),
        (1000000, "1a000f4240"),
        (1000000000000, "1b000000e8d4a51000"),
        (2**64 - 1, "1bffffffffffffffff"),
        (1.1, "fb3ff199999999999a"),
        (b"\1\2\3\4", "4401020304"),
        ("IETF", "6449455446"),
        ("ü", "62c3bc"),
        ([1, [2, 3]], "82018202" + "03"),
        ({"a": 1, "b": [2, 3]}, "a26161016162820203"),
    ],
)
def test_published_encodings(value, encoded):
    assert cbor.encode(value).hex() == encoded
    assert cbor.decode(bytes.fromhex(encoded)) == value


def test_keys_are_sorted_by_their_encoding():
    assert cbor.encode({"aa": 0, "b": 0}) == cbor.encode({"b": 0, "aa": 0})
    assert list(cbor.decode(cbor.encode({"aa": 0, "b": 0}))) == ["b", "aa"]


@given(VALUES)
def test_round_trip(value):
    assert cbor.decode(cbor.encode(value)) == value


@given(st.binary(max_size=60))
def test_what_decodes_is_the_only_encoding(data):
    try:
        value = cbor.decode(data)
    except EnvelopeError:
        return
    assert cbor.encode(value) == data


@pytest.mark.parametrize(
    ("encoded", "why"),
    [
        ("", "announced"),
        ("1817", "longer than it needs"),
        ("190018", "longer than it needs"),
        ("1b00000000ffffffff", "longer than it needs"),
        ("5f42010243030405ff", "indefinite"),
        ("1c", "indefinite or reserved"),
        ("20", "outside the subset"),
        ("f6", "outside the subset"),
        ("f5", "outside the subset"),
        ("f93c00", "outside the subset"),
        ("fb7ff8000000000000", "NaN"),
        ("c11a514b67b0", "outside the subset"),
        ("0000", "1 bytes follow"),
        ("4401", "4 bytes announced, 1 left"),
        ("9bffffffffffffffff", "announced"),
        ("61ff", "not UTF-8"),
        ("a10101", "keys of a map are text"),
        ("a2616101616102", "repeated or out of order"),
        ("a2616201616102", "repeated or out of order"),
        ("81" * 10 + "00", "nested too deeply"),
    ],
)
def test_every_other_form_is_refused(encoded, why):
    with pytest.raises(EnvelopeError, match=why) as caught:
        cbor.decode(bytes.fromhex(encoded))
    assert caught.value.code is Code.FORMAT


@pytest.mark.parametrize("value", [True, None, -1, 2**64, math.nan, {1: 2}, object(), [None]])
def test_values_outside_the_subset_are_not_encoded(value):
    with pytest.raises(TypeError):
        cbor.encode(value)
