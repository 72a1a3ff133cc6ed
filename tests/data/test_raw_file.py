"""Raw files: which are refused, with what sentence, and which oddities are read all the same."""

import gzip
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from qoejax.data import rawfile, records, schema
from qoejax.data.errors import DataError

LEVEL = schema.find("ciciot2023/merged_8class")
NAMES = [c.name for c in LEVEL.schema.columns]
HEADER = ",".join([*NAMES, "Label"])
ROW = ",".join(["1.5"] * len(NAMES) + ["XSS"])


def encode(name, texts, inverse):
    raise AssertionError("this dataset has no categories")


def read(path, need_label=True):
    """All records of a file, and the tally."""
    file = rawfile.open_raw(path)
    plan, missing = records.layout(file, LEVEL, LEVEL.schema.columns, True)
    assert not missing
    tally = records.Tally()
    parts = [r for r, _ in records.read(file, plan, encode, tally, need_label)]
    if not parts:
        return None, tally
    return records.Records(*(np.concatenate(a) for a in zip(*parts, strict=True))), tally


def put(tmp_path, content, name="rows.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"PK\x03\x04rest", "zip archive"),
        (b"\n<!DOCTYPE html><html>", "web page"),
        ("a,b\n1,2\n".encode("utf-16"), "UTF-16"),
        (b"a,b\r1,2\r", "lines end in CR alone"),
        (HEADER.encode(), "has a header but no rows"),
        (f"{HEADER}\n\n \n".encode(), "has a header but no rows"),
        (HEADER.replace(",", ";").encode() + b"\n1;2\n", "separated by ';'"),
        (b"x" * (1 << 17), "no line end"),
        (b"\x1f\x8bnot gzip at all", "cannot be read"),
        (b"PAR1 and nothing more", "cannot be read"),
    ],
)
def test_other_formats_are_refused_by_name(tmp_path, content, message):
    path = put(tmp_path, content)
    with pytest.raises(DataError, match=message) as e:
        rawfile.open_raw(path)
    assert str(e.value).startswith(str(path))


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"gone\.csv: cannot be read"):
        rawfile.open_raw(tmp_path / "gone.csv")


def test_twice_the_same_column_is_refused(tmp_path):
    path = put(tmp_path, f"{HEADER},rate\n{ROW},1\n")
    with pytest.raises(DataError, match="column 'Rate' appears 2 times"):
        read(path)


def _permuted():
    order = np.random.default_rng(0).permutation(len(NAMES) + 1)
    header, row = (np.array(line.split(","))[order].tolist() for line in (HEADER, ROW))
    return ",".join([*header, "extra"]) + "\n" + ",".join([*row, "?"]) + "\n"


@pytest.mark.parametrize(
    "content",
    [
        f"{HEADER}\n{ROW}\n",
        f"{HEADER}\n{ROW}",
        f"\ufeff{HEADER}\n{ROW}\n",
        f"{HEADER}\r\n{ROW}\r\n",
        f"\n\n{HEADER}\n\n{ROW}\n\n",
        f"{HEADER.upper()}\n{ROW.lower()}\n",
        f"{HEADER.replace(',', ' , ')}\n{ROW.replace(',', ' , ')}\n",
        "\n".join(",".join(f'"{c}"' for c in line.split(",")) for line in (HEADER, ROW)),
        _permuted(),
    ],
    ids=[
        "plain",
        "no-newline",
        "bom",
        "crlf",
        "blank-lines",
        "case",
        "padded",
        "quoted",
        "permuted",
    ],
)
def test_harmless_oddities_read_alike(tmp_path, content):
    for path in (put(tmp_path, content), put(tmp_path, gzip.compress(content.encode()), "r.gz")):
        rows, tally = read(path)
        assert (rows.numeric == 1.5).all()
        assert LEVEL.taxonomy.names[rows.label[0]] == "Web"
        assert (tally.rows, tally.kept, tally.summary()) == (1, 1, {})


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("NaN", "damaged number"),
        ("inf", "damaged number"),
        ("1e400", "damaged number"),
        ("1e39", "damaged number"),
        ("", "damaged number"),
        ("-", "damaged number"),
        ("text", "damaged number"),
        ("1_5", "damaged number"),
        ("\x00", "damaged number"),
        ("1.5,1.5", "row width"),
        ("Rate", "damaged number"),
    ],
)
def test_damaged_rows_are_left_out_and_counted(tmp_path, bad, reason):
    damaged = bad + ROW[3:]
    path = put(tmp_path, f"{HEADER}\n{ROW}\n\n{damaged}\n{ROW}\n")
    rows, tally = read(path)
    assert tally.summary() == {reason: 1}
    assert (tally.rows, tally.kept) == (3, 2)
    assert rows.row.tolist() == [0, 2]
    assert (rows.numeric == 1.5).all()


def test_a_truncated_last_line_is_left_out(tmp_path):
    rows, tally = read(put(tmp_path, f"{HEADER}\n{ROW}\n{ROW[:50]}"))
    assert tally.summary() == {"row width": 1}
    assert len(rows.label) == 1


def test_a_truncated_archive_is_refused(tmp_path):
    lines = [
        ",".join([*map(repr, values), "XSS"])
        for values in np.random.default_rng(0).random((4000, len(NAMES))).tolist()
    ]
    whole = gzip.compress("\n".join([HEADER, *lines]).encode())
    path = put(tmp_path, whole[: len(whole) // 2], "r.csv.gz")
    with pytest.raises(DataError, match="cannot be read after row"):
        read(path)


def test_labels_blank_and_unknown(tmp_path):
    path = put(tmp_path, f"{HEADER}\n{ROW}\n{ROW[:-3]}\n{ROW[:-3]}novel\n")
    rows, tally = read(path)
    assert tally.summary() == {"blank label": 1, "unknown label": 1}
    assert dict(tally.unknown_labels) == {"novel": 1}
    rows, tally = read(path, need_label=False)
    assert rows.label.tolist()[1:] == [-1, -1]
    assert (tally.kept, tally.unlabelled, tally.summary()) == (3, 1, {})


def test_reading_leniently_changes_no_value(tmp_path):
    """One bad cell in a late block switches to cell-by-cell reading: all other rows stay."""
    numbers = np.random.default_rng(0).lognormal(0, 9, (9000, len(NAMES)))
    lines = [",".join([*map(repr, row), "BENIGN"]) for row in numbers.tolist()]
    text = "\n".join([HEADER, *lines])
    assert len(text) > 5 * rawfile.BLOCK_BYTES
    clean, _ = read(put(tmp_path, text))
    dirty_lines = list(lines)
    dirty_lines[7000] = "oops" + dirty_lines[7000][dirty_lines[7000].index(",") :]
    dirty_lines.insert(100, "1,2,3")
    dirty, tally = read(put(tmp_path, "\n".join([HEADER, *dirty_lines])))
    assert tally.summary() == {"damaged number": 1, "row width": 1}
    assert tally.rows == 9001
    assert tally.example == "row 7002 has b'oops' in 'Header_Length'"
    keep = np.arange(9000) != 7000
    np.testing.assert_array_equal(dirty.numeric, clean.numeric[keep])
    np.testing.assert_array_equal(dirty.numeric, numbers[keep].astype(np.float32))
    np.testing.assert_array_equal(dirty.row, np.flatnonzero(keep) + (np.flatnonzero(keep) >= 100))


def test_parquet_reads_as_csv_does(tmp_path):
    numbers = np.random.default_rng(1).lognormal(0, 3, (50, len(NAMES)))
    lines = [",".join([*map(repr, row), "BENIGN"]) for row in numbers.tolist()]
    expected, _ = read(put(tmp_path, "\n".join([HEADER, *lines])))
    table = pa.table(
        {n.lower(): numbers[:, j] for j, n in reversed(list(enumerate(NAMES)))}
        | {"label": pa.array(["Benign"] * 50).dictionary_encode()}
    )
    pyarrow.parquet.write_table(table, tmp_path / "r.parquet")
    found, tally = read(tmp_path / "r.parquet")
    np.testing.assert_array_equal(found.numeric, expected.numeric)
    np.testing.assert_array_equal(found.label, expected.label)
    assert tally.rows == 50
    texts = table.set_column(0, table.column_names[0], pa.array(["0x1p", *["1.5"] * 49]))
    pyarrow.parquet.write_table(texts, tmp_path / "r.parquet")
    assert read(tmp_path / "r.parquet")[1].summary() == {"damaged number": 1}
    lists = table.set_column(0, table.column_names[0], pa.array([[1.0]] * 50))
    pyarrow.parquet.write_table(lists, tmp_path / "r.parquet")
    with pytest.raises(DataError, match="unusable type"):
        read(tmp_path / "r.parquet")


def test_sha256_is_of_the_bytes_on_disk(tmp_path):
    path = put(tmp_path, b"abc")
    assert rawfile.sha256(pathlib.Path(path)).startswith("ba7816bf8f01cfea")
