"""Damaged CSV files: only the documented error escapes, and rows add up."""

import gzip

import hypothesis
import hypothesis.strategies as st
import pytest

from qoejax.data import load
from qoejax.data.errors import DataError
from qoejax.data.table import concatenate
from tests.fuzz import csv_target

CELLS = [
    *(
        "",
        " ",
        "-",
        "nan",
        "inf",
        "-inf",
        "1e400",
        "1e39",
        "-1",
        "0x1f",
        "0X",
        "1_0",
        "text",
        "0.0",
    ),
    *("\x00", '"', '""', "'", '"a', 'a"b', "é", "\ufeff", "\u2028", "١", ",", ";", "\t", "\\"),
    *("9" * 400, "9" * 70_000, "1556485532.5", "-0.0", "+5", "1e-400", "True", "null", "<a>"),
]
ENDS = [b"\n", b"\r\n", b"\r", b"\n\n", b" \n", b"\n\r"]


def _cell(draw, data: bytes) -> bytes:
    lines = data.split(b"\n")
    i = draw(st.integers(0, len(lines) - 1))
    cells = lines[i].split(b",")
    j = draw(st.integers(0, len(cells) - 1))
    cells[j] = draw(st.sampled_from(CELLS)).encode()
    lines[i] = b",".join(cells)
    return b"\n".join(lines)


def _column(draw, data: bytes) -> bytes:
    """The same odd cell in all rows of a column, or the column gone or there twice."""
    rows = [line.split(b",") for line in data.split(b"\n")]
    j = draw(st.integers(0, len(rows[0]) - 1))
    how = draw(st.sampled_from(["fill", "drop", "double"]))
    cell = draw(st.sampled_from(CELLS)).encode()
    for i, row in enumerate(rows):
        if how == "fill" and i and len(row) > j:
            row[j] = cell
        elif how != "fill":
            row[j : j + 1] = row[j : j + 1] * (2 if how == "double" else 0)
    return b"\n".join(b",".join(row) for row in rows)


def _line(draw, data: bytes) -> bytes:
    lines = data.split(b"\n")
    i, j = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
    lines.insert(j, lines[i])
    return b"\n".join(lines)


def _bytes(draw, data: bytes) -> bytes:
    at = draw(st.integers(0, len(data)))
    gone = draw(st.integers(0, 3))
    return data[:at] + draw(st.binary(max_size=4)) + data[at + gone :]


def _cut(draw, data: bytes) -> bytes:
    return data[: draw(st.integers(0, len(data)))]


def _ends(draw, data: bytes) -> bytes:
    return data.replace(b"\n", draw(st.sampled_from(ENDS)))


def _encoding(draw, data: bytes) -> bytes:
    text = data.decode(errors="replace")
    name = draw(st.sampled_from(["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp500"]))
    return text.encode(name, errors="replace")


def _quoted(draw, data: bytes) -> bytes:
    del draw
    lines = [line for line in data.split(b"\n") if line]
    return b"\n".join(b'"' + line.replace(b",", b'","') + b'"' for line in lines) + b"\n"


def _gzip(draw, data: bytes) -> bytes:
    packed = gzip.compress(data, mtime=0)
    return packed if draw(st.booleans()) else _bytes(draw, packed)


@st.composite
def damaged(draw, data: bytes) -> bytes:
    """The file after one to three accidents."""
    accidents = [_cell, _column, _line, _bytes, _cut, _ends, _encoding, _quoted, _gzip]
    for accident in draw(st.lists(st.sampled_from(accidents), min_size=1, max_size=3)):
        data = accident(draw, data)
    return data


@pytest.mark.parametrize("config", csv_target.CONFIGS)
@hypothesis.settings(
    max_examples=40, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(data=st.data())
def test_only_the_documented_error_escapes(tmp_path, config, data):
    path = tmp_path / "rows.csv"
    path.write_bytes(data.draw(damaged(csv_target.valid(config))))
    csv_target.read_all(config, path)


@pytest.mark.parametrize("config", csv_target.CONFIGS)
def test_valid_files_are_read(tmp_path, config):
    path = tmp_path / "rows.csv"
    path.write_bytes(csv_target.valid(config))
    assert csv_target.read_all(config, path) == "read"


@hypothesis.settings(
    max_examples=8, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(data=st.data())
def test_builders_keep_all_rows_or_leave_nothing(tmp_path_factory, data):
    config = data.draw(st.sampled_from(csv_target.RECORDED))
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "m").mkdir()
    (folder / "m" / "rows.csv").write_bytes(data.draw(damaged(csv_target.valid(config))))
    try:
        made = load.builder(config, folder / "d", folder / "m")
    except DataError:
        assert not (folder / "d").exists()
        return
    meta = made.info.metadata
    both = concatenate([load.table(made, split)[1] for split in ("train", "test")])
    assert len(both.label) == meta["rows_read"] - sum(meta["dropped"].values())
