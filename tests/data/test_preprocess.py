import time

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from qoejax.data import preprocess, table
from qoejax.data.errors import DataError

NUMBERS = ("bytes", "copy", "flat", "noise", "leak")
PROTOCOLS = ("", "tcp", "udp", "icmp", "igmp", "never")


@pytest.fixture(scope="module")
def spec():
    columns = [table.Column(n, "B", "numeric", n == "leak", "the clock") for n in NUMBERS]
    columns.append(table.Column("proto", "", "categorical", False, ""))
    return table.Spec("toy", tuple(columns), ("a", "b", "c"), (), {"proto": PROTOCOLS}, "a", 1)


@pytest.fixture(scope="module")
def rows(spec):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 900)
    size = np.where(rng.random(900) < 0.5, 0, np.floor(10 ** rng.uniform(0, 9, 900))) * (label > 0)
    proto = np.where(rng.random(900) < 0.1, 0, 1 + (label == 2))
    proto[:20], proto[20:24] = 3, 4
    x = np.stack([size, size, np.full(900, 7), rng.normal(size=900), label, proto], 1)
    return table.make_table(x[:, None].astype(np.float32), label)


def test_what_becomes_of_each_column(spec, rows):
    stats = preprocess.fit(spec, rows)
    assert stats.names == (
        "bytes", "noise", "proto=tcp", "proto=udp", "proto=icmp", "proto=(other)"
    )  # fmt: skip
    assert stats.removed == (
        ("leak", "leaky: the clock"),
        ("copy", "equal to bytes"),
        ("flat", "constant in the training rows"),
    )
    x = preprocess.apply(stats, rows.x)
    assert x.shape == (900, 1, stats.features)
    assert x.dtype == np.float32
    proto = rows.x[:, 0, 5]
    for feature, code in ((2, 1), (3, 2), (4, 3), (5, 4)):
        np.testing.assert_array_equal(x[:, 0, feature], proto == code)


def test_levels_are_those_of_training_rows(spec, rows):
    stats = preprocess.fit(spec, rows, max_levels=1)
    assert stats.names[2:] == ("proto=tcp", "proto=(other)")
    x = np.zeros((6, 1, 6), np.float32)
    x[:, 0, 5] = np.arange(6)
    hot = preprocess.apply(stats, x)[:, 0, 2:]
    never_seen = [0.0, 0.0]
    np.testing.assert_array_equal(hot, [never_seen, [1, 0], [0, 1], [0, 1], [0, 1], never_seen])


def test_keep_and_drop(spec, rows):
    stats = preprocess.fit(spec, rows, keep=("leak",), drop=("bytes", "proto"))
    assert stats.names == ("copy", "noise", "leak")
    assert ("bytes", "dropped by name") in stats.removed
    assert preprocess.retained(spec) == [0, 1, 2, 3, 5]
    assert preprocess.retained(spec, keep=("leak",), drop=("flat",)) == [0, 1, 3, 4, 5]


def test_both_views_of_a_number(spec, rows):
    stats = preprocess.fit(spec, rows, scale="both", drop=("proto",))
    assert stats.names == (
        "bytes|signed_log", "bytes|quantile", "noise|signed_log", "noise|quantile"
    )  # fmt: skip
    both = preprocess.apply(stats, rows.x)[:, 0]
    for f, scale in ((0, "signed_log"), (1, "quantile")):
        one = preprocess.fit(spec, rows, scale=scale, drop=("proto",))
        np.testing.assert_array_equal(preprocess.apply(one, rows.x)[:, 0, 0], both[:, f])


def test_budget_keeps_the_best_in_column_order(spec, rows):
    full = preprocess.fit(spec, rows)
    score = {o.name: o.score for o in full.outputs}
    assert score["proto=udp"] > 0.3 > score["bytes"] > 0.1 > 0.05 > score["noise"]
    small = preprocess.fit(spec, rows, budget=3)
    best = sorted(score, key=score.__getitem__)[-3:]
    assert small.names == tuple(n for n in full.names if n in best)
    assert len(small.removed) == len(full.removed) + len(full.names) - 3
    assert small.removed[-1][1].endswith("is not among the best 3")
    wide = preprocess.fit(spec, rows, budget=2, select="variance")
    assert wide.names == ("bytes", "noise")


@pytest.mark.parametrize("scale", sorted(preprocess.SCALES))
def test_apply_is_row_by_row_finite_and_window_blind(spec, rows, scale):
    stats = preprocess.fit(spec, rows, scale=scale)
    x = preprocess.apply(stats, rows.x)
    assert np.abs(x).max() <= 10
    order = np.random.default_rng(1).permutation(900)
    np.testing.assert_array_equal(preprocess.apply(stats, rows.x[order]), x[order])
    windows = preprocess.apply(stats, rows.x.reshape(100, 9, 6))
    np.testing.assert_array_equal(windows.reshape(900, 1, -1), x)
    wild = rows.x.copy()
    wild[:, :, :4] = np.float32(3e38) * np.where(np.arange(900) % 2, 1, -1)[:, None, None]
    assert np.abs(preprocess.apply(stats, wild)).max() <= 10
    assert preprocess.apply(stats, rows.x[:0]).shape == (0, 1, stats.features)


def test_windows_are_fitted_record_by_record(spec, rows):
    """T records a row, all under the row's label: the same as so many rows."""
    label = np.repeat(rows.label[::9], 9)
    flat = preprocess.fit(spec, rows._replace(label=label))
    shaped = rows._replace(x=rows.x.reshape(100, 9, 6), label=rows.label[::9])
    assert_equal(preprocess.fit(spec, shaped), flat)


def assert_equal(a, b):
    assert a._replace(outputs=()) == b._replace(outputs=())
    for one, two in zip(a.outputs, b.outputs, strict=True):
        assert one._replace(view=None) == two._replace(view=None)
        assert (one.view is None) == (two.view is None)
        for p, q in zip(one.view or (), two.view or (), strict=True):
            np.testing.assert_array_equal(p, q)


def test_a_sample_of_many_rows_is_seeded_and_keeps_the_extremes(spec, rows):
    one, two, other = (preprocess.fit(spec, rows, sample=200, seed=seed) for seed in (1, 1, 2))
    assert_equal(one, two)
    assert one.outputs[0].score != other.outputs[0].score
    ends = [o.view.knots[[0, -1]].tolist() for s in (one, other) for o in s.outputs[:1]]
    top = float(rows.x[:, 0, 0].max())
    assert ends == [[0.0, top]] * 2


def test_a_value_in_one_row_only_survives_a_sample_without_it(spec, rows):
    x = rows.x.copy()
    x[:, 0, 2] = 0
    x[450, 0, 2] = 5e6
    for scale in ("quantile", "signed_log", "standard"):
        stats = preprocess.fit(spec, rows._replace(x=x), sample=20, scale=scale)
        mapped = preprocess.apply(stats, x)[:, 0, stats.names.index("flat")]
        assert mapped[450] > mapped[0]


def test_unlabelled_rows_do_not_move_scores(spec, rows):
    label = rows.label.copy()
    label[::2] = -1
    half = preprocess.fit(spec, rows._replace(label=label))
    assert 0 < half.outputs[0].score < 1.2
    with pytest.raises(DataError, match="no training row of toy has a known label"):
        preprocess.fit(spec, rows._replace(label=np.full(900, -1, np.int32)))


@pytest.mark.parametrize("scale", sorted(preprocess.SCALES))
def test_saved_is_loaded(spec, rows, scale, tmp_path):
    stats = preprocess.fit(spec, rows, scale=scale, budget=5)
    path = tmp_path / "stats.npz"
    preprocess.save(stats, path)
    back = preprocess.load(path)
    assert_equal(back, stats)
    np.testing.assert_array_equal(preprocess.apply(back, rows.x), preprocess.apply(stats, rows.x))
    assert [p.name for p in tmp_path.iterdir()] == ["stats.npz"]


def test_a_failed_save_leaves_the_old_file(spec, rows, tmp_path, monkeypatch):
    path = tmp_path / "stats.npz"
    stats = preprocess.fit(spec, rows)
    preprocess.save(stats, path)
    before = path.read_bytes()

    def broken(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", broken)
    with pytest.raises(OSError, match="disk full"):
        preprocess.save(stats, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["stats.npz"]


@pytest.fixture(scope="module")
def saved(spec, rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("stats") / "stats.npz"
    preprocess.save(preprocess.fit(spec, rows), path)
    return path, path.read_bytes()


@hypothesis.given(st.floats(0.0, 0.999))
def test_a_shortened_file_is_named(saved, where):
    path, data = saved
    path.write_bytes(data[: int(where * len(data))])
    with pytest.raises(DataError, match=r"stats\.npz is not a readable file of preprocessing"):
        preprocess.load(path)


@hypothesis.given(st.floats(0.0, 0.999))
def test_a_flipped_byte_is_refused_or_harmless(spec, rows, saved, where):
    """Checksums cover all content; some bookkeeping of the archive (times, say) means nothing."""
    path, data = saved
    at = int(where * len(data))
    path.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
    try:
        back = preprocess.load(path)
    except DataError:
        return
    assert_equal(back, preprocess.fit(spec, rows))


def test_a_missing_or_foreign_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.npz is not a readable file of preprocessing"):
        preprocess.load(tmp_path / "nowhere.npz")
    np.savez(tmp_path / "other.npz", text=np.array('{"format": "else"}'), knots=[], targets=[])
    with pytest.raises(DataError, match="its format is 'else'"):
        preprocess.load(tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        (0, np.nan, "column 'bytes' has nan; expected finite"),
        (3, np.inf, "column 'noise' has inf"),
        (5, -np.inf, "column 'proto' has -inf"),
        (5, 6.0, r"column 'proto' has category 6\.0; expected a whole number below 6"),
        (5, 1.5, r"column 'proto' has category 1\.5"),
        (5, -1.0, r"column 'proto' has category -1\.0"),
    ],
)
def test_bad_cells_are_refused_by_name(spec, rows, column, value, words):
    x = rows.x.copy()
    x[17, 0, column] = value
    with pytest.raises(DataError, match=words):
        preprocess.fit(spec, rows._replace(x=x))
    with pytest.raises(DataError, match=words):
        preprocess.apply(preprocess.fit(spec, rows), x)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keep": ("lea",)}, "toy has no column 'lea' to keep"),
        ({"drop": ("x", "y")}, "toy has no column 'x', 'y' to drop"),
        ({"keep": ("leak",), "drop": ("leak",)}, "'leak' is both kept and dropped"),
        ({"drop": ("bytes", "copy", "flat", "noise", "proto")}, "no column of toy is left"),
        ({"drop": ("bytes", "copy", "noise", "proto")}, "no column of toy varies in the 900"),
        ({"scale": "log"}, "scale is 'log'; expected one of both, quantile"),
        ({"select": "chi2"}, "select is 'chi2'; expected one of mutual_information, variance"),
    ],
)
def test_bad_options_are_refused(spec, rows, options, words):
    with pytest.raises(DataError, match=words):
        preprocess.fit(spec, rows, **options)


def test_other_columns_are_refused(spec, rows):
    stats = preprocess.fit(spec, rows)
    words = "the rows have 5 columns; expected the 6 of toy, from 'bytes' to 'proto'"
    with pytest.raises(DataError, match=words):
        preprocess.apply(stats, rows.x[:, :, :5])


def test_apply_is_quick(spec, rows):
    """A million values a second at the very least; ten times that is usual."""
    stats = preprocess.fit(spec, rows, scale="both")
    x = np.tile(rows.x, (100, 1, 1))
    start = time.process_time()
    preprocess.apply(stats, x)
    assert time.process_time() - start < x.size / 1e6
