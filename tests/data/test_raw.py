"""Raw files for a trained model: the codes of the prepared dataset, and an honest report."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from qoejax.data import load, raw
from qoejax.data.errors import DataError
from qoejax.data.table import narrow, retained, spec_from_json, spec_to_json
from tests.data import dummy


@pytest.fixture(scope="module")
def ton(tmp_path_factory):
    manual = dummy.BUILDERS / "ton_iot" / "dummy_data"
    made = load.builder("ton_iot/10class", tmp_path_factory.mktemp("data"), manual)
    return made, load.table(made, "train")[0]


def sorted_rows(x):
    return x[np.lexsort(x.T)]


def test_the_same_file_gives_the_same_rows(ton):
    made, spec = ton
    saved = spec_from_json(json.loads(json.dumps(spec_to_json(spec))))
    path = dummy.BUILDERS / "ton_iot" / "dummy_data" / "Train_Test_Network.csv"
    table, report, rows = raw.read_raw_rows(path, saved)
    expected = np.concatenate([load.table(made, s)[1].x for s in ("train", "test")])
    np.testing.assert_array_equal(sorted_rows(table.x[:, 0]), sorted_rows(expected[:, 0]))
    assert (report.rows, report.kept, report.labelled, report.dropped) == (80, 80, 80, {})
    assert rows.tolist() == list(range(80))
    assert table.label.tolist() == [i % 10 for i in range(80)]
    json.dumps(report._asdict())


def test_new_categories_labels_and_damage(ton, tmp_path):
    _, spec = ton
    lines = dummy.table("ton_iot/10class", 60, seed=5)
    at = lines[0].index
    lines[1][at("proto")] = "sctp"
    lines[2][at("proto")] = "-"
    lines[3][at("duration")] = "broken"
    lines[4][at("type")] = "novel"
    lines[5][at("type")] = ""
    lines[6] = lines[6][:-1]
    lines[7][at("src_ip")] = "203.0.113.9"
    table, report, rows = raw.read_raw_rows(dummy.write(tmp_path / "r.csv", lines), spec)
    proto = table.x[:, 0, [c.name for c in spec.columns].index("proto")]
    assert proto[:2].tolist() == [0.0, 0.0]
    assert report.unknown_categories == {"proto": 1, "src_ip": 1}
    assert report.dropped == {"damaged number": 1, "row width": 1}
    assert report.unknown_labels == {"novel": 1}
    assert (report.rows, report.kept, report.labelled) == (60, 58, 56)
    assert rows.tolist() == [0, 1, 3, 4, *range(6, 60)]
    assert table.label[2:4].tolist() == [-1, -1]
    assert table.group[rows.tolist().index(6)] == -1
    assert (table.group >= 0).any()


def test_files_without_labels_are_read(ton, tmp_path):
    _, spec = ton
    lines = [row[:-1] for row in dummy.table("ton_iot/10class", 20)]
    table, report = raw.read_raw(dummy.write(tmp_path / "r.csv", lines), spec)
    assert (table.label == -1).all()
    assert (report.labelled, report.kept) == (0, 20)


def test_missing_columns_are_named_unless_nobody_needs_them(ton, tmp_path):
    _, spec = ton
    lines = dummy.table("ton_iot/10class", 20)
    keep = [i for i, n in enumerate(lines[0]) if n not in ("src_ip", "duration")]
    path = dummy.write(tmp_path / "r.csv", [[row[i] for i in keep] for row in lines])
    with pytest.raises(DataError, match=r"r\.csv: lacks columns 'src_ip', 'duration'"):
        raw.read_raw(path, spec)
    needed = retained(spec)
    with pytest.raises(DataError, match="lacks column 'duration'"):
        raw.read_raw(path, spec, needed)
    needed = [n for n in needed if n != "duration"]
    table, report = raw.read_raw(path, spec, needed)
    assert report.absent_columns == ("src_ip", "duration")
    assert (table.x[:, 0, [0, 6]] == 0).all()
    assert (table.group == -1).all()
    small, _ = raw.read_raw(path, narrow(spec, needed))
    columns = [i for i, c in enumerate(spec.columns) if c.name in needed]
    np.testing.assert_array_equal(small.x, table.x[:, :, columns])


def test_parquet_gives_the_same_table(ton, tmp_path):
    _, spec = ton
    path = dummy.write(tmp_path / "r.csv", dummy.table("ton_iot/10class", 60, seed=9))
    expected, _ = raw.read_raw(path, spec)
    typed = pyarrow.csv.read_csv(path)
    assert {pa.float64(), pa.string()} <= set(typed.schema.types)
    pyarrow.parquet.write_table(typed, tmp_path / "r.parquet", row_group_size=25)
    found, report = raw.read_raw(tmp_path / "r.parquet", spec)
    assert report.rows == 60
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("a,b\n1,2\n", "lacks columns 'src_ip'"),
        ("<html>", "web page"),
    ],
)
def test_other_files_are_refused(ton, tmp_path, content, message):
    (tmp_path / "r.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        raw.read_raw(tmp_path / "r.csv", ton[1])


def test_files_without_a_usable_row_are_refused(ton, tmp_path):
    lines = dummy.table("ton_iot/10class", 3)
    for row in lines[1:]:
        row[lines[0].index("duration")] = "nan"
    with pytest.raises(DataError, match=r"no usable row \(3 damaged number; row 1 has"):
        raw.read_raw(dummy.write(tmp_path / "r.csv", lines), ton[1])
    with pytest.raises(DataError, match="is not a file"):
        raw.read_raw(tmp_path / "gone.csv", ton[1])


def test_descriptions_that_fit_no_raw_form_are_refused(ton, tmp_path):
    _, spec = ton
    path = dummy.write(tmp_path / "r.csv", dummy.table("ton_iot/10class", 3))
    with pytest.raises(DataError, match="no raw files"):
        raw.read_raw(path, spec._replace(dataset="simulated_iot"))
    with pytest.raises(DataError, match="label names"):
        raw.read_raw(path, spec._replace(label_names=("a", "b")))
    with pytest.raises(DataError, match="has no column 'nope'"):
        raw.read_raw(path, spec, ("nope",))


def test_partial_models_read_partial_files(tmp_path):
    lines = dummy.table("ciciot2023/34class", 80)
    keep = [i for i, n in enumerate(lines[0]) if n != "AVG"]
    path = dummy.write(tmp_path / "m" / "a.csv", [[row[i] for i in keep] for row in lines])
    made = load.builder("ciciot2023/binary_partial", tmp_path / "d", tmp_path / "m")
    spec, _ = load.table(made, "train")
    table, _ = raw.read_raw(path, spec)
    assert table.x.shape == (80, 1, 45)
    whole = load.builder(
        "ciciot2023/binary", tmp_path / "d", dummy.BUILDERS / "ciciot2023/dummy_data"
    )
    with pytest.raises(DataError, match=r"lacks column 'AVG' .* config ciciot2023/binary_partial"):
        raw.read_raw(path, load.table(whole, "train")[0])
