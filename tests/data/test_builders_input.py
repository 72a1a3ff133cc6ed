"""Every kind of damaged or odd file, as a builder meets it: refused, dropped, or read."""

import gzip

import numpy as np
import pytest

from qoejax.data import load
from qoejax.data.errors import DataError
from tests.data import dummy

CONFIG = "ciciot2023/8class"
LINES = dummy.table("ciciot2023/34class", 204)
RATE = LINES[0].index("Rate")


def text(lines=LINES, end="\n"):
    return "".join(",".join(line) + end for line in lines)


def with_cell(value, row=1, column=RATE):
    return text([line if i != row else _put(line, column, value) for i, line in enumerate(LINES)])


def _put(line, column, value):
    return [*line[:column], value, *line[column + 1 :]]


def _permuted():
    order = np.random.default_rng(0).permutation(len(LINES[0]))
    return text([[*np.array(line)[order].tolist(), "?"] for line in LINES])


def prepare(tmp_path, content, name="part-00000.csv"):
    (tmp_path / "m").mkdir(parents=True)
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "m" / name).write_bytes(data)
    return load.builder(CONFIG, tmp_path / "d", tmp_path / "m")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    made = prepare(tmp_path_factory.mktemp("plain"), text())
    return [load.table(made, split)[1] for split in ("train", "test")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<!DOCTYPE html><html></html>", "web page"),
        (b"PK\x03\x04" + text().encode(), "zip archive"),
        (text().encode("utf-16"), "UTF-16"),
        (text(end="\r"), "CR alone"),
        ("", "is empty"),
        ("\ufeff", "is empty"),
        (text(LINES[:1]), "header but no rows"),
        (text().replace(",", ";"), "separated by ';'"),
        (text().replace("Srate", "Rate", 1), "'Rate' appears 2 times"),
        (text().replace("Srate", "S-speed", 1), "lacks column 'Srate'"),
        (gzip.compress(text().encode())[:-20], "cannot be read"),
        (
            text([LINES[0], *[_put(x, RATE, "nan") for x in LINES[1:6]], *LINES[6:]]),
            "5 of 204 rows",
        ),
        (text([LINES[0], *[line[:9] for line in LINES[1:]]]), "204 row width"),
        (text().replace("XSS\n", "novel\n"), "rows have labels"),
    ],
)
def test_refused_in_one_sentence_with_nothing_left(tmp_path, content, message):
    with pytest.raises(DataError, match=message) as e:
        prepare(tmp_path, content)
    assert str(e.value).startswith(str(tmp_path / "m" / "part-00000.csv"))
    assert "\n" not in str(e.value)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    "content",
    [
        text().replace(",", " , "),
        "\n".join(",".join(f'"{c}"' for c in line) for line in LINES),
        "\ufeff" + text(),
        text(end="\r\n"),
        _permuted(),
        "\n\n" + text(end="\n\n"),
        text([LINES[0], *[[*line[:-1], line[-1].upper()] for line in LINES[1:]]]),
        gzip.compress(text().encode()),
    ],
    ids=["padded", "quotes", "bom", "crlf", "permuted", "blank lines", "label case", "gzip"],
)
def test_read_as_the_plain_file(tmp_path, plain, content):
    made = prepare(tmp_path, content)
    for split, expected in zip(("train", "test"), plain, strict=True):
        np.testing.assert_array_equal(load.table(made, split)[1].x, expected.x)
        np.testing.assert_array_equal(load.table(made, split)[1].label, expected.label)
    assert made.info.metadata["dropped"] == {}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (with_cell("NaN"), "damaged number"),
        (with_cell("inf"), "damaged number"),
        (with_cell("1e400"), "damaged number"),
        (with_cell("fast"), "damaged number"),
        (with_cell("\x00"), "damaged number"),
        (with_cell("1,2"), "row width"),
        (with_cell("\udcff,2").encode(errors="surrogateescape"), "row width"),
        (with_cell("", column=-1 % len(LINES[0])), "blank label"),
        (with_cell("novel", column=-1 % len(LINES[0])), "unknown label"),
        (text([*LINES[:100], LINES[0], *LINES[101:]]), "damaged number"),  # a repeated header
        (text()[:-40], "row width"),  # broken off in the last line
    ],
)
def test_one_damaged_row_is_dropped_and_counted(tmp_path, content, reason):
    meta = prepare(tmp_path, content).info.metadata
    assert meta["dropped"] == {reason: 1}
    assert meta["rows_read"] == 204
    assert sum(meta["rows"].values()) == 203


def test_a_hexadecimal_number_is_a_number(tmp_path):
    made = prepare(tmp_path, with_cell("0x1000000"))
    assert made.info.metadata["dropped"] == {}
    both = [load.table(made, split)[1].x[:, 0, RATE] for split in ("train", "test")]
    assert (np.concatenate(both) == 2**24).sum() == 1
