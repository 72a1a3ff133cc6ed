"""Sketches against exact counts."""

import numpy as np
import pytest

from qoejax.data import sketch


def marked(values, rows=None):
    bits = np.zeros((2, sketch.WORDS), np.uint64)
    hashes = np.array([sketch.text_hash(str(v)) for v in values], np.int32)
    rows = np.zeros(len(hashes), np.int64) if rows is None else rows
    sketch.mark(bits, rows, hashes)
    return bits


@pytest.mark.parametrize("count", [0, 1, 10, 100, 1000, 4000])
def test_distinct_values_are_counted_within_a_few_per_cent(count):
    bits = marked(range(count))
    estimate, other = sketch.distinct(bits)
    assert estimate == pytest.approx(count, rel=0.06, abs=0.6)
    assert other == 0


def test_order_repeats_and_parts_do_not_matter():
    values = np.arange(500)
    np.testing.assert_array_equal(marked(values), marked(np.r_[values[::-1], values]))
    np.testing.assert_array_equal(marked(values), marked(values[:200]) | marked(values[200:]))


def test_rows_are_apart():
    rows = np.arange(300) % 2
    bits = marked(range(300), rows)
    np.testing.assert_array_equal(bits[0], marked(range(0, 300, 2))[0])


def test_a_full_bitmap_is_still_a_number():
    full = np.full((1, sketch.WORDS), 2**64 - 1, np.uint64)
    assert sketch.distinct(full)[0] == pytest.approx(1024 * np.log(1024))


def test_hashes_are_fixed():
    assert [sketch.text_hash(t) for t in ("", "53", "192.0.2.1")] == [
        154724242,
        298854737,
        368865095,
    ]


@pytest.mark.parametrize(
    ("counts", "bits"), [([0, 0], 0), ([5, 0], 0), ([1, 1], 1), ([1, 1, 2], 1.5)]
)
def test_entropy(counts, bits):
    assert sketch.entropy(np.array([counts], float)) == pytest.approx([bits])
