"""Audits of raw files: spelling, shifted cells, forms, labels, groups; each with and without."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from qoejax.data import audit, schema, table
from qoejax.data.audit import forest, rawcells, spelling
from qoejax.data.errors import DataError
from tests.data import dummy

RNG = np.random.default_rng(0)
ROWS = 600
LABEL = np.array(["normal", "flood", "scan"])[np.arange(ROWS) % 3]


@pytest.fixture(autouse=True)
def small_forest(monkeypatch):
    monkeypatch.setattr(forest, "TREES", 9)


def write(path, **columns):
    names = list(columns)
    rows = zip(*columns.values(), strict=True)
    return dummy.write(path, [names, *([str(v) for v in row] for row in rows)])


def run(path, **kwargs):
    return audit.audit_raw(rawcells.read([path]), **kwargs)


def found(result, column, *severities):
    chosen = severities or ("leak",)
    return {f.rule for f in result.findings if f.column == column and f.severity in chosen}


def cells(*texts):
    seen = list(dict.fromkeys(texts))
    return rawcells.Cells("x", tuple(seen), np.array([seen.index(t) for t in texts]))


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("0.0", "empty"), ("-", "empty"), ("", "empty"), ("6.0", "number"), ("1e3", "number"),
        ("0x1f", "hexadecimal"), ("192.168.0.1", "address"), ("fe80::1", "address"),
        ("00:0c:29:aa:bb:cc", "address"), (" 2021 22:14:30.9 ", "time"), ("22:14:30", "time"),
        ("_ipp._tcp.local", "text"), ("1.0 ", "number"),
    ],
)  # fmt: skip
def test_what_a_cell_looks_like(text, form):
    assert spelling.form(text) == form


def test_spelling_that_tells_the_class_is_a_leak(tmp_path):
    """One class was exported with '0', the others with '0.0'; values are drawn alike."""
    value = RNG.integers(0, 3, ROWS)
    told = np.where(LABEL == "flood", value.astype(str), value.astype(float).astype(str))
    drawn = np.where(RNG.random(ROWS) < 0.5, value.astype(str), value.astype(float).astype(str))
    padded = [t + " " * int(name == "scan") for t, name in zip(told, LABEL, strict=True)]
    path = write(
        tmp_path / "a.csv", told=told, drawn=drawn, padded=padded, one=value, x=RNG.random(ROWS),
        label=LABEL,
    )  # fmt: skip
    result = run(path, label="label")
    assert found(result, "told") == {"spelling"}
    assert found(result, "padded") == {"spelling"}
    assert found(result, "drawn") == set()
    assert "spelling" in found(result, "drawn", "note")
    assert not found(result, "one", "leak", "note")


def test_a_column_with_addresses_among_numbers(tmp_path):
    """Cells of one class hold addresses where the others hold numbers."""
    number = RNG.integers(1, 9, ROWS).astype(str)
    moved = np.where(LABEL == "scan", "192.0.2.1", number)
    path = write(tmp_path / "a.csv", moved=moved, number=number, x=RNG.random(ROWS), label=LABEL)
    result = run(path, label="label")
    assert "mixed forms" in found(result, "moved")
    assert "mixed forms" not in found(result, "number", "leak", "note")
    assert spelling.mixed(cells("GET", "7", "POST")) == {}
    assert set(spelling.mixed(cells("0x1f", "0x2f", "0"))) == {"hexadecimal"}


def test_a_shifted_file_is_found_without_any_other_class(tmp_path):
    """As in Edge-IIoTset's MITM file: one class, and the time column holds other columns' cells."""
    name = "edge_iiotset/15class"
    lines = dummy.table(name, 60, only=["MITM"])
    at = lines[0].index("frame.time")
    level = schema.find(name)
    default = table.retained(schema.spec_of(level))
    common = {"level": level, "label": "Attack_type", "default": default}
    sound = dummy.write(tmp_path / "sound.csv", lines)
    assert found(run(sound, **common), "frame.time") == set()
    for i, line in enumerate(lines[1:]):
        line[at] = "192.0.2.9" if i % 5 == 0 else "6.0"
    result = run(dummy.write(tmp_path / "shifted.csv", lines), **common)
    assert found(result, "frame.time") == {"shifted"}
    (finding,) = [f for f in result.findings if f.rule == "shifted"]
    assert "'6.0'" in finding.reason
    assert "'192.0.2.9'" in finding.reason
    assert "same target" in result.why
    assert result.scores is None


def test_known_labels_take_the_schemas_names(tmp_path):
    name = "ciciot2023/8class"
    path = dummy.write(tmp_path / "a.csv", dummy.table(name, 40, only=["DoS-UDP_Flood", "XSS"]))
    raw = rawcells.read([path])
    codes, names = rawcells.labels(raw, "LABEL", schema.find(name))
    assert names == ("DoS", "Web")
    assert np.bincount(codes).tolist() == [20, 20]
    assert rawcells.labels(raw, "label", None)[1] == ("DoS-UDP_Flood", "XSS")


def test_people_stay_on_one_side_and_their_column_is_no_feature(tmp_path):
    """Tastes differ by person: only with a person on both sides do names help."""
    person = RNG.integers(0, 40, ROWS)
    score = np.clip(3 + RNG.normal(0, 1, 40)[person] + RNG.normal(0, 0.2, ROWS), 1, 5).round(2)
    names = [f"person {p}" for p in person]
    path = write(tmp_path / "a.csv", who=names, x=RNG.random(ROWS), y=RNG.random(ROWS), mos=score)
    apart = run(path, target="mos", group=["who"])
    assert "who" not in {r.column for r in apart.scores.rules}
    mixed = run(path, target="mos")
    assert found(mixed, "who") == {"identity"}
    assert len(set(rawcells.owners(rawcells.read([path]), ["who"], r"\d").tolist())) == 10


def test_duplicates_and_conflicts_are_counted(tmp_path):
    path = write(tmp_path / "a.csv", x=np.arange(ROWS) % 200, y=np.arange(ROWS) % 200, label=LABEL)
    result = run(path, label="label")
    assert result.cleaning["conflict_rows"] == ROWS
    assert result.why
    path = write(tmp_path / "b.csv", x=np.arange(ROWS) % 300, label=LABEL)
    assert run(path, label="label").cleaning["duplicates"] == ROWS - 300


def test_sorted_rows_and_constant_columns_are_noted(tmp_path):
    order = np.argsort(LABEL, kind="stable")
    path = write(tmp_path / "a.csv", x=RNG.random(ROWS), one=["7"] * ROWS, label=LABEL[order])
    rules = {(f.rule, f.column) for f in run(path, label="label").findings}
    assert {("row order", ""), ("constant", "one")} <= rules


def test_files_of_one_form_and_parquet_are_read_alike(tmp_path):
    number = RNG.normal(size=ROWS).round(3)
    half = ROWS // 2
    first = write(tmp_path / "d" / "1.csv", x=number[:half], label=LABEL[:half])
    write(tmp_path / "d" / "2.csv", label=LABEL[half:], more=number[half:], X=number[half:])
    raw = rawcells.read(rawcells.paths_of([tmp_path / "d"]))
    assert list(raw.cells) == ["x", "label"]
    assert np.bincount(raw.file).tolist() == [half, half]
    columns = {c.name: c for c in rawcells.columns(raw, None)}
    np.testing.assert_array_equal(columns["x"].numbers, number)
    typed = pa.table({"x": number[:half], "label": LABEL[:half]})
    pyarrow.parquet.write_table(typed, tmp_path / "1.parquet")
    same = [rawcells.columns(rawcells.read([p]), None) for p in (first, tmp_path / "1.parquet")]
    for a, b in zip(*same, strict=True):
        np.testing.assert_array_equal(a.numbers, b.numbers)


def test_bad_input_is_one_sentence(tmp_path):
    path = write(tmp_path / "a.csv", x=range(3), label=["a", "b", "a"])
    with pytest.raises(DataError, match=r"a\.csv: has no column 'type'; it has x, label"):
        run(path, label="type")
    with pytest.raises(DataError, match="'label' holds no number"):
        run(path, target="label")
    with pytest.raises(DataError, match="is neither a file nor a folder"):
        rawcells.paths_of([tmp_path / "none.csv"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no \.csv"):
        rawcells.paths_of([tmp_path / "empty"])
    other = write(tmp_path / "b.csv", z=range(3))
    with pytest.raises(DataError, match="shares no column"):
        rawcells.read([path, other])
    blank = write(tmp_path / "c.csv", x=range(3), label=["", "", ""])
    with pytest.raises(DataError, match="'label' is blank"):
        run(blank, label="label")
