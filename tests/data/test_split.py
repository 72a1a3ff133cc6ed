import gzip

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest

from qoejax.data import split
from qoejax.data.errors import DataError
from tests.reference import data_clean

CELLS = st.sampled_from([np.float32(v) for v in (0.0, -0.0, 1.0, 1e-30, 3e38, -2.5)])


@st.composite
def tables(draw):
    """Few distinct cells, so that equal rows and conflicts abound."""
    shape = (draw(st.integers(1, 30)), draw(st.integers(1, 3)))
    x = draw(hnp.arrays(np.float32, shape, elements=CELLS))
    return x, draw(hnp.arrays(np.int32, shape[0], elements=st.integers(0, 2)))


@hypothesis.given(tables())
def test_clean_is_the_reference(case):
    x, label = case
    keep, report = split.clean(x, label)
    expected, ceiling = data_clean.clean(x, label)
    assert keep.tolist() == expected
    assert report.accuracy_ceiling == pytest.approx(ceiling, abs=1e-12)
    assert report.rows == report.kept + report.duplicates + report.conflict_rows
    kinds = (report.class_kept, report.class_duplicates, report.class_conflicts)
    assert tuple(map(sum, kinds)) == (report.kept, report.duplicates, report.conflict_rows)
    assert np.sum(kinds, 0).tolist() == list(report.class_rows)


@hypothesis.given(tables(), st.sampled_from([1, 2, 3]))
def test_colliding_hashes_change_nothing(case, distinct):
    x, _ = case
    weak = split.row_hash(x) % np.uint64(distinct)
    np.testing.assert_array_equal(split.first_equal(x, weak), split.first_equal(x))


def test_a_hand_made_table():
    x = np.array([[1, 2], [3, 4], [1, 2], [5, 6], [3, 4], [3, 4], [7, 8]], np.float32)
    keep, report = split.clean(x, np.array([0, 0, 0, 1, 1, 1, -1], np.int32))
    assert keep.tolist() == [0, 3]
    assert report == split.CleanReport(
        rows=7, kept=2, duplicates=1, conflict_rows=3, conflict_groups=1, unlabelled=1,
        accuracy_ceiling=5 / 6, class_rows=(3, 3), class_kept=(1, 1), class_duplicates=(1, 0),
        class_conflicts=(1, 2),
    )  # fmt: skip


def test_nothing_to_clean():
    keep, report = split.clean(np.zeros((0, 3), np.float32), np.zeros(0, np.int32))
    assert len(keep) == report.rows == 0
    assert report.accuracy_ceiling == 1.0


def test_hash_is_fixed():
    """Splits of everyone's data depend on these numbers: a change needs a new data version."""
    x = np.array([[0.0, 1.5], [1.5, 0.0], [-0.0, 1.5]], np.float32)
    hashes = split.row_hash(x, salt=3)
    assert [hex(h) for h in hashes[:2].tolist()] == ["0xdc3a9f44fe0a8fad", "0xe751d12664f96dad"]
    assert hashes[0] == hashes[2]


def test_holdout_follows_content_and_salt():
    x = np.random.default_rng(0).normal(size=(40_000, 3)).astype(np.float32)
    one, two = split.holdout(x, 0.2, 1), split.holdout(x, 0.2, 2)
    order = np.random.default_rng(1).permutation(len(x))
    np.testing.assert_array_equal(split.holdout(x[order], 0.2, 1), one[order])
    sigma = np.sqrt(0.2 * 0.8 / len(x))
    assert abs(one.mean() - 0.2) < 4 * sigma
    assert abs(two.mean() - 0.2) < 4 * sigma
    assert abs((one & two).mean() - 0.04) < 4 * np.sqrt(0.04 * 0.96 / len(x)), "independent"
    assert not split.holdout(x, 0.0, 1).any()
    assert split.holdout(x, 1.0, 1).all()


def test_integers_do_not_collide():
    """Small whole numbers share their low bits: the hash must not lean on those."""
    grid = np.stack(np.meshgrid(np.arange(512), np.arange(256), [0, 4e9]), -1).reshape(-1, 3)
    assert len(np.unique(split.row_hash(grid.astype(np.float32)))) == len(grid)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_refuses_what_is_not_finite(bad):
    x = np.zeros((9000, 3), np.float32)
    x[8500, 1] = bad
    with pytest.raises(DataError, match=f"row 8500 has {bad} in column number 1"):
        split.clean(x, np.zeros(9000, np.int32))


def test_refuses_other_fractions():
    x = np.zeros((3, 2), np.float32)
    with pytest.raises(DataError, match=r"hold out is 1\.5"):
        split.holdout(x, 1.5, 0)


@pytest.mark.real
def test_real_rows_repeat_and_conflict(real_data):
    """The figures that are stated of TON_IoT's rows without addresses and ports."""
    import pyarrow.csv

    path = real_data / "ton_iot" / "Train_Test_Network.csv.gz"
    with gzip.open(path) as file:
        rows = pyarrow.csv.read_csv(file)
    skip = ("src_ip", "src_port", "dst_ip", "dst_port", "label", "type", "dns_query")
    skip += ("ssl_subject", "ssl_issuer", "http_uri", "http_referrer", "http_user_agent")
    skip += ("weird_addl",)
    columns = [
        rows[n].combine_chunks().dictionary_encode().indices for n in rows.column_names
        if n not in skip
    ]  # fmt: skip
    x = np.stack([c.to_numpy() for c in columns], 1).astype(np.float32)
    label = rows["type"].combine_chunks().dictionary_encode().indices.to_numpy()
    keep, report = split.clean(x, label)
    repeats = 1 - len(np.unique(split.first_equal(x))) / len(x)
    assert repeats == pytest.approx(0.56, abs=0.02)
    assert report.conflict_rows / report.rows == pytest.approx(0.11, abs=0.01)
    assert report.accuracy_ceiling == pytest.approx(0.989, abs=0.003)
    assert split.clean(x[keep], label[keep])[1].kept == len(keep)
