"""TON_IoT as a time series: features, classes, scores and splits against plain Python."""

import gzip

import numpy as np
import pytest

from configs import ton_iot_windows as config
from qoejax.data import bins, load, preprocess, rawfile, windowed, windows
from qoejax.data.errors import DataError
from qoejax.data.schema import ton_iot_windows as schema
from qoejax.data.table import concatenate, persistence
from tests.data import dummy, zeek
from tests.reference import ton_windows as reference

SPEC = schema.spec("windows")
MADE = schema.CONFIGS["windows"]
NAMES = [c.name for c in SPEC.columns]
HASHED = ("distinct_src_ip", "distinct_dst_port")  # exact but for collisions


def read(path):
    return windowed.read_windows(path, SPEC, NAMES)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Rows of one capture, and the windows read from them."""
    rows = zeek.captures(count=1, seconds=300)
    path = zeek.write(tmp_path_factory.mktemp("one") / "Network_dataset_1.csv", rows)
    return [dict(zip(zeek.HEADER, row, strict=True)) for row in rows], path, read(path)


def test_header_is_the_published_one():
    assert len(zeek.HEADER) == 46
    assert zeek.HEADER[:3] == ("ts", "src_ip", "src_port")
    assert zeek.HEADER[-3:] == ("weird_notice", "label", "type")


def test_every_window_is_what_plain_python_counts(one):
    rows, _, (table, report, identity) = one
    assert (report.rows, report.kept, report.blocks) == (len(rows), len(rows), 1)
    assert len(table.label) == report.windows > 20
    rated = 0
    for i, second in enumerate(identity["second"].tolist()):
        expected = reference.features(rows, second - 10, second)
        found = dict(zip(NAMES, table.x[i, -1].tolist(), strict=True))
        for name, value in expected.items():
            rel, off = (0.1, 1.1) if name in HASHED else (2e-6, 1e-6)
            assert found[name] == pytest.approx(value, rel=rel, abs=off), name
        known = reference.label(rows, second - 10, second)
        assert SPEC.label_names[table.label[i]] == known
        spans = [(second - 60, second), (second, second + 60)]
        for q, (service, span) in enumerate((s, span) for span in spans for s in ("dns", "http")):
            score = reference.score(rows, service, *span)
            first, last = identity["second"][0] - 80, identity["second"][-1]
            inside = first <= span[0] and span[1] <= last
            assert table.mos_mask[i, q] == (score is not None and inside)
            if table.mos_mask[i, q]:
                rated += 1
                assert table.mos[i, q] == pytest.approx(score, abs=1e-4)
    assert rated > 40


def test_files_are_read_through_the_table_of_readers(one):
    _, path, (table, _, _) = one
    found, _, identity = load.read_file(path, SPEC, NAMES)
    np.testing.assert_array_equal(found.x, table.x)
    assert set(identity) == {"block", "second"}


def test_windows_are_consecutive_bins_and_end_before_their_scores(one):
    _, _, (table, _, identity) = one
    np.testing.assert_array_equal(np.diff(identity["second"]), 10)
    np.testing.assert_array_equal(table.x[1:, :-1], table.x[:-1, 1:])
    assert persistence(SPEC) == (None, None, 0, 1)


def test_scores_by_hand(tmp_path):
    """Six questions in a horizon: one unanswered, one in 20 ms, one in a second, three in 0.1 s."""
    start = zeek.START // 10 * 10
    dns = {"service": "dns", "dst_port": "53", "proto": "udp", "dst_ip": "192.0.2.1"}
    waits = ["0.02", "1", "0.1", "0.1", "0.1"]
    rows = [zeek.record(start + 85, duration=w, **dns) for w in waits]
    rows += [zeek.record(start + 85, conn_state="S0", **dns)]
    not_judged = [{"conn_state": "SHR"}, {"dst_port": "5353", "conn_state": "S0"}, {"type": "dos"}]
    rows += [zeek.record(start + 85, **(dns | change)) for change in not_judged]
    rows += [zeek.record(start + s) for s in range(0, 200, 10)]
    table, _, identity = read(zeek.write(tmp_path / "a.csv", rows))
    at = np.flatnonzero(identity["second"] == start + 80)[0]
    middle = 5 - 4 * np.log(0.1 / 0.02) / np.log(50)
    expected = 1 / 6 + 5 / 6 * (5 + 1 + 3 * middle) / 5
    assert table.mos[at, 2] == pytest.approx(expected, abs=1e-5)
    assert table.mos_mask[at].tolist() == [False, False, True, False]


def test_a_record_counts_where_it_ended_and_its_class_with_it(tmp_path):
    start = zeek.START // 10 * 10
    rows = [zeek.record(start + s) for s in range(0, 200, 10)]
    rows += [zeek.record(start + 81, duration="25.5", src_bytes="500", type="backdoor")]
    table, _, identity = read(zeek.write(tmp_path / "a.csv", rows))
    sent = table.x[:, -1, NAMES.index("src_bytes")]
    (at,) = np.flatnonzero(sent)
    assert (identity["second"][at], sent[at]) == (start + 110, 50.0)
    assert SPEC.label_names[table.label[at]] == "backdoor"
    assert (np.delete(table.label, at) == 0).all()


def test_order_files_chunks_and_compression_do_not_matter(tmp_path, monkeypatch):
    rows = zeek.captures(count=5, seconds=300)
    zeek.write(tmp_path / "a" / "Network_dataset_1.csv", rows)
    shuffled = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]
    zeek.write(tmp_path / "b" / "Network_dataset_1.csv", shuffled[:500])
    path = zeek.write(tmp_path / "b" / "Network_dataset_2.csv", shuffled[500:])
    path.with_suffix(".csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    tables = []
    for name, block in (("a", 1 << 20), ("b", 4096)):
        monkeypatch.setattr(rawfile, "BLOCK_BYTES", block)
        made = load.builder("ton_iot/windows", tmp_path / f"d{name}", tmp_path / name)
        tables.append([load.table(made, split)[1] for split in ("train", "test")])
    for first, second in zip(*tables, strict=True):
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ton")
    zeek.write(folder / "m" / "Network_dataset_1.csv", zeek.captures(count=5, seconds=300))
    return load.builder("ton_iot/windows", folder / "d", folder / "m")


def test_whole_captures_are_test_captures_where_classes_allow(prepared):
    spec, train = load.table(prepared, "train")
    _, test = load.table(prepared, "test")
    meta = prepared.info.metadata
    assert spec == SPEC
    assert meta["split"] == "whole blocks"
    assert set(train.group) | set(test.group) == set(range(5))
    assert not set(train.group) & set(test.group)
    assert len(meta["blocks"]) == 5
    assert [(b["train"], b["test"]) for b in meta["blocks"]] == [(24, 0)] * 4 + [(0, 24)]
    for name, table in (("train", train), ("test", test)):
        rated = table.mos_mask[:, 2:]
        found = {"dns": rated[:, 0].sum(), "http": rated[:, 1].sum(), "any": rated.any(1).sum()}
        assert meta["usable_windows"][name] == found
    assert meta["notes"] == [
        f"only {sum(s['any'] for s in meta['usable_windows'].values())} windows have a score to "
        "forecast; below 2000, results are a case study"
    ]


def test_one_capture_is_parted_with_a_gap(tmp_path):
    zeek.write(tmp_path / "m" / "Network_dataset_1.csv", zeek.captures(count=1, seconds=600))
    made = load.builder("ton_iot/windows", tmp_path / "d", tmp_path / "m")
    meta = made.info.metadata
    assert meta["split"] == "ends of blocks"
    (block,) = meta["blocks"]
    in_all = 61 - 7  # The capture begins and ends within a bin.
    assert block["test"] == round(0.2 * in_all)
    assert block["train"] == in_all - block["test"] - (7 + 6)
    assert made.info.metadata["rows"] == {k: block[k] for k in ("train", "test")}


def test_no_horizon_of_a_training_window_reaches_into_a_test_window():
    bins_in = (300, 40, 21, 9)
    blocks = [
        windows.Block(
            first=1000 * i,
            x=np.zeros((n, len(NAMES)), np.float32),
            label=np.full(n, i, np.int32),  # Each capture has a class of its own.
            mos=np.ones((n, 4), np.float32),
            mos_mask=np.ones((n, 4), bool),
        )
        for i, n in enumerate(bins_in)
    ]
    split = windows.split(blocks, MADE)
    assert split.rule == "ends of blocks"
    for n, train, test in zip(bins_in, split.train, split.test, strict=True):
        assert train[0] == MADE.length - 1
        if len(test):
            assert test[-1] == n - 1
            assert train[-1] + MADE.ahead < test[0] - (MADE.length - 1)
    assert [len(t) for t in split.test] == [59, 7, 0, 0]  # Too short to be parted.


@pytest.mark.parametrize(
    ("counts", "chosen"),
    [
        ([[8, 2], [2, 1], [5, 5]], [False, True, False]),
        ([[8, 0], [2, 1], [10, 0]], None),  # the only attack would be unseen
        ([[9, 1], [9, 1]], None),  # half is too much
        ([[5, 0], [1, 0], [1, 0], [3, 0]], [False, True, True, False]),
        ([[5, 1]], None),
    ],
)
def test_choice_of_whole_blocks(counts, chosen):
    found = windows.whole_blocks(np.array(counts))
    assert chosen == (None if found is None else found.tolist())


def test_damaged_time_stamps_are_counted_and_limited(tmp_path):
    rows = zeek.captures(count=1, seconds=200)
    bad = ["-", "yesterday", "0", "-5", "1e300", "4294967296"]
    for row, value in zip(rows, bad, strict=False):
        row[0] = value
    path = zeek.write(tmp_path / "m" / "Network_dataset_1.csv", rows)
    _, report, _ = read(path)
    assert report.dropped == {"no time": 6}
    assert report.kept == report.rows - 6 == len(rows) - 6
    with pytest.raises(DataError, match=r"6 of \d+ rows are unusable \(6 no time\)"):
        load.builder("ton_iot/windows", tmp_path / "d", tmp_path / "m")
    assert not (tmp_path / "d").exists()


def test_files_without_labels_give_windows_without_class(one, tmp_path):
    rows, path, (table, _, _) = one
    cut = tmp_path / "a.csv"
    cut.write_text("\n".join(line.rsplit(",", 2)[0] for line in path.read_text().splitlines()))
    found, report, _ = read(cut)
    np.testing.assert_array_equal(found.x, table.x)
    assert (found.label == -1).all()
    assert not found.mos_mask.any()
    assert report.kept == len(rows)


def test_what_is_refused(tmp_path):
    ton = dummy.write(tmp_path / "t" / "Train_Test_Network.csv", dummy.table("ton_iot/10class", 30))
    with pytest.raises(DataError, match=r"lacks column 'ts' of .* is for ton_iot/10class"):
        load.builder("ton_iot/windows", tmp_path / "d", ton.parent)
    with pytest.raises(DataError, match=r"lacks column 'ts'"):
        read(ton)
    with pytest.raises(DataError, match="is not a file"):
        read(tmp_path / "none.csv")
    short = zeek.write(tmp_path / "s" / "Network_dataset_1.csv", zeek.captures(1, 30))
    for refuse in (lambda: read(short), lambda: windowed.plan("windows", short.parent, None)):
        with pytest.raises(DataError, match="no capture lasts 8 bins of 10 s"):
            refuse()


def test_time_stamps_all_over_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(bins, "MOST_BINS", 50)
    path = zeek.write(tmp_path / "a.csv", [zeek.record(zeek.START + 100 * i) for i in range(60)])
    with pytest.raises(DataError, match=r"a\.csv: the records are spread over more than 50 bins"):
        read(path)


def test_the_ablation_drops_all_that_tells_outcomes():
    dropped = config.get_config("blind").data.drop
    assert list(dropped) == [c.name for c in schema.OUTCOME_COLUMNS]
    left = {SPEC.columns[i].name for i in preprocess.retained(SPEC, drop=dropped)}
    assert not {n for n in left if n.startswith(("state", "duration"))}
    assert {"records", "distinct_dst_ip", "dst_entropy"} < left


def test_the_folder_of_made_up_records_prepares(tmp_path):
    made = load.builder("ton_iot/windows", tmp_path, dummy.BUILDERS / "ton_iot/dummy_windows")
    both = concatenate([load.table(made, split)[1] for split in ("train", "test")])
    assert both.x.shape[1:] == (8, len(NAMES))
    assert np.isfinite(both.x).all()
