"""Cells: one value whatever the spelling, NaN for damage, bounded memory for text."""

import math

import numpy as np
import pyarrow as pa
import pytest

from qoejax.data import cells
from qoejax.data.vocabulary import Vocabulary


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.5", 1.5),
        (" 2 ", 2.0),
        ("0x00000010", 16.0),
        ("+3e2", 300.0),
        ("-0x1", -1.0),
        ("", math.nan),
        ("-", math.nan),
        ("1_0", math.nan),
        ("abc", math.nan),
        ("1,5", math.nan),
        ("\x00", math.nan),
        ("1e400", math.inf),
    ],
)
def test_number(text, value):
    np.testing.assert_equal(cells.number(text), value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (" 2021 22:14:30.5 ", 80070.5),
        ("00:00:00", 0.0),
        ("6.0", math.nan),
        ("192.168.0.1", math.nan),
        ("", math.nan),
    ],
)
def test_clock(text, value):
    np.testing.assert_equal(cells.clock(text), value)


@pytest.mark.parametrize("text", ["", "-", "0", "0.0", " 0.0 ", "0x00000000", "0.00"])
def test_absent_categories_become_empty(text):
    assert cells.canonical(text) == ""


@pytest.mark.parametrize("text", ["80", "80.0", " 80 ", "0x50", "0x00000050"])
def test_one_spelling_per_category(text):
    assert cells.canonical(text) == "80"


def test_long_texts_are_shortened_and_stay_apart():
    one, other = cells.canonical("x" * 500 + "a"), cells.canonical("x" * 500 + "b")
    assert len(one) == len(other) == cells.LONGEST_TEXT
    assert one != other


def test_numbers_are_the_same_from_every_column_type():
    expected = np.array([1.5, 0.0, 16.0, np.nan, np.nan], np.float32)
    text = ["1.5", "-", "16", "inf", "1e39"]
    typed = pa.array([1.5, None, 16.0, math.inf, 1e39])
    for array in (
        pa.array(text),
        pa.array([t.encode() for t in text]),
        pa.array(text).dictionary_encode(),
        typed,
    ):
        np.testing.assert_array_equal(cells.numbers(array, True), expected)
    assert np.isnan(cells.numbers(typed, False)[1])
    np.testing.assert_array_equal(cells.numbers(pa.array([3, None]), True), [3.0, 0.0])
    np.testing.assert_array_equal(cells.numbers(pa.array([True, False]), True), [1.0, 0.0])


def test_texts_of_every_column_type():
    for array in (
        pa.array(["80.0", "-", "80"]),
        pa.array([b"80", b"", b"80.0"]),
        pa.array([80, None, 80]),
        pa.array([80.0, 0.0, 80.0]),
    ):
        values, inverse = cells.texts(array)
        assert [values[i] for i in inverse] == ["80", "", "80"]
    assert cells.texts(pa.array([b"a\xff"]))[0] == ["a\N{REPLACEMENT CHARACTER}"]


def test_content_numbers_are_exact_in_float32_and_fixed():
    assert cells.content_number("") == 0.0
    values = [cells.content_number(f"v{i}") for i in range(1000)]
    assert len(set(values)) > 990
    assert all(float(np.float32(v)) == v for v in values)
    # The split rests on these: if this fails unintendedly, every prepared dataset changes.
    assert cells.content_number("tcp") == 8703828.0


def test_vocabulary_keeps_training_values_most_frequent_first():
    v = Vocabulary(cap=3)
    codes = v.encode(["", "a", "b", "c", "d"], np.array([0, 1, 2, 2, 3, 3, 3, 4], np.int32))
    v.count_train(codes[:-1])  # "d" is seen in a test row only.
    values, final = v.finish()
    assert values == ("", "c", "b")
    assert [values[c] for c in final[codes]] == ["", "", "b", "b", "c", "c", "c", ""]


def test_vocabulary_stays_small_and_keeps_the_frequent():
    v = Vocabulary(cap=4, limit=8)
    for i in range(50):
        codes = v.encode(["often", f"once {i}"], np.array([0, 0, 1], np.int32))
        v.count_train(codes)
        assert len(v._ids) <= 8
    values, final = v.finish()
    assert values[1] == "often"
    assert len(values) == 4
    assert final[codes[0]] == 1
    assert len(final) == 52
