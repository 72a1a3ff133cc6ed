"""The recorded datasets on made-up rows: split, vocabularies, releases, and what is refused."""

import gzip
import shutil

import numpy as np
import pytest

from qoejax.data import cells, load, recorded, records, schema, spill, split
from qoejax.data.errors import DataError
from qoejax.data.table import concatenate, retained
from qoejax.data.vocabulary import Vocabulary
from tests.data import dummy

SAMPLES = {
    "ciciot2023/34class": "ciciot2023/dummy_data/parts",
    "ciciot2023/merged_34class": "ciciot2023/dummy_data/merged",
    "ton_iot/10class": "ton_iot/dummy_data",
    "edge_iiotset/15class": "edge_iiotset/dummy_data/merged",
}


@pytest.fixture(scope="module", params=SAMPLES)
def prepared(request, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("data")
    return load.builder(request.param, data_dir, dummy.BUILDERS / SAMPLES[request.param])


def tables(made):
    spec, train = load.table(made, "train")
    return spec, train, load.table(made, "test")[1]


def seen(spec, table):
    """Rows as a model sees them by default, as bytes."""
    names = set(retained(spec))
    columns = [i for i, c in enumerate(spec.columns) if c.name in names]
    return {row.tobytes() for row in table.x[:, 0, columns]}


def test_every_row_arrives_once(prepared):
    spec, train, test = tables(prepared)
    meta = prepared.info.metadata
    whole = concatenate([train, test])
    assert len(whole.label) == meta["rows_read"] == sum(meta["rows"].values())
    assert set(np.unique(whole.label)) == set(range(len(spec.label_names)))
    assert np.isfinite(whole.x).all()
    assert spec.columns == schema.find(spec.dataset).schema.columns
    assert 0.1 < len(test.label) / len(whole.label) < 0.35
    (source,) = meta["sources"]
    assert len(source["sha256"]) == 64
    assert meta["hash_version"] == recorded.HASH_VERSION
    assert meta["absent_columns"] == meta["passed_over"] == []


def test_codes_are_indices_of_training_vocabularies(prepared):
    spec, train, test = tables(prepared)
    for i, column in enumerate(spec.columns):
        if column.kind != "categorical":
            continue
        values = spec.vocab[column.name]
        assert values[0] == ""
        assert len(set(values)) == len(values)
        codes = train.x[:, 0, i].astype(int)
        assert set(codes) - {0} == set(range(1, len(values)))
        assert test.x[:, 0, i].max(initial=0) < len(values)
    assert set(spec.vocab) == {c.name for c in spec.columns if c.kind == "categorical"}


def test_groups_are_the_source_hosts(prepared):
    spec, train, _ = tables(prepared)
    name = prepared.info.metadata["group_column"]
    if not name:
        assert (train.group == -1).all()
        return
    column = [c.name for c in spec.columns].index(name)
    codes = train.x[:, 0, column].astype(int)
    np.testing.assert_array_equal(train.group, np.where(codes == 0, -1, codes))
    assert len(np.unique(train.group)) == 3


def test_no_row_is_on_both_sides(prepared):
    spec, train, test = tables(prepared)
    assert not seen(spec, train) & seen(spec, test)


def test_coarse_configs_are_the_fine_one_relabelled(tmp_path):
    fine = load.builder(
        "edge_iiotset/15class", tmp_path, dummy.BUILDERS / SAMPLES["edge_iiotset/15class"]
    )
    spec, train, test = tables(fine)
    for config in ("6class", "binary"):
        name = f"edge_iiotset/{config}"
        other = load.builder(name, tmp_path, dummy.BUILDERS / SAMPLES["edge_iiotset/15class"])
        taxonomy = schema.find(name).taxonomy
        coarse = [taxonomy.names.index(taxonomy.of[n]) for n in spec.label_names]
        for before, after in zip((train, test), tables(other)[1:], strict=True):
            np.testing.assert_array_equal(before.x, after.x)
            np.testing.assert_array_equal(np.array(coarse)[before.label], after.label)


def test_split_ignores_order_files_compression_and_leaky_columns(tmp_path):
    lines = dummy.table("ton_iot/10class", 300)
    header, rows = lines[0], lines[1:]
    dummy.write(tmp_path / "one" / "a.csv", lines)
    shuffled = [list(rows[i]) for i in np.random.default_rng(0).permutation(300)]
    for row in shuffled:
        row[header.index("src_port")] = "another"
    dummy.write(tmp_path / "two" / "x" / "b.csv", [header, *shuffled[:120]], "\r\n")
    path = dummy.write(tmp_path / "two" / "c.csv", [header, *shuffled[120:]])
    path.with_suffix(".csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    found = []
    for name in ("one", "two"):
        made = load.builder("ton_iot/10class", tmp_path / f"d{name}", tmp_path / name)
        spec, _, test = tables(made)
        duration = [c.name for c in spec.columns].index("duration")
        found.append(np.sort(test.x[:, 0, duration]))
    np.testing.assert_array_equal(*found)
    assert [s["path"] for s in made.info.metadata["sources"]] == ["c.csv.gz", "x/b.csv"]


def test_which_rows_are_test_rows_is_fixed():
    # The split of every prepared dataset rests on this. If it fails unintendedly, that is a bug.
    x = np.stack([np.arange(20), np.full(20, cells.content_number("tcp"))], 1).astype(np.float32)
    mask = split.holdout(x, recorded.TEST_FRACTION, recorded.SPLIT_SALT)
    assert np.flatnonzero(mask).tolist() == [2, 5, 12, 13, 17, 19]


def test_a_row_that_coding_makes_equal_to_a_training_row_moves(tmp_path):
    """Test rows with a category no training row has must not land on a training row's features."""
    level = schema.find("ton_iot/10class")
    columns = tuple(c for c in level.schema.columns if c.name in ("proto", "duration"))
    spec = schema.spec_of(level)._replace(columns=columns)
    v = Vocabulary()
    codes = v.encode(["", "tcp", "odd"], np.array([0, 1, 2], np.int32))
    v.count_train(codes[:2])

    rows = records.Records(
        numeric=np.array([[5.0], [6.0], [5.0], [7.0]], np.float32),
        codes=np.array([[0], [1], [2], [2]], np.int32),
        content=np.zeros((4, 2), np.float32),
        label=np.array([0, 1, 2, 3], np.int32),
        row=np.arange(4),
    )
    train, test = tmp_path / "train", tmp_path / "test"
    spill.append(train, rows, np.array([True, True, False, False]))
    spill.append(test, rows, np.array([False, False, True, True]))
    merger = spill.Merger(spec, {"proto": v}, "")
    merger.find_collisions([train])
    assert merger.spec.vocab == {"proto": ("", "tcp")}
    (stays,) = merger.tables(test, colliding=False)
    (moves,) = merger.tables(test, colliding=True)
    assert (moves.label.tolist(), stays.label.tolist()) == ([2], [3])
    assert moves.x[0, 0].tolist() == [0.0, 5.0]


def test_both_spellings_of_edge_files(tmp_path):
    """Per-attack files: hexadecimal numbers, the attack's longer name, one class a file."""
    attacks = dummy.BUILDERS / "edge_iiotset/dummy_data/attacks"
    made = load.builder("edge_iiotset/15class", tmp_path / "d", attacks)
    spec, train, test = tables(made)
    both = concatenate([train, test])
    counts = np.bincount(both.label, minlength=15)
    assert counts[spec.label_names.index("Fingerprinting")] == 40
    assert counts[spec.label_names.index("Normal")] == 40
    flags = both.x[both.label > 0, 0, [c.name for c in spec.columns].index("tcp.flags")]
    assert set(flags) == {37.0 * i for i in range(40)}
    assert made.info.metadata["dropped"] == {}


def test_shifted_rows_are_kept_and_counted(tmp_path):
    lines = dummy.table("edge_iiotset/15class", 90)
    for row in lines[1:]:
        if row[-1] == "MITM":
            row[0] = "6.0"
    dummy.write(tmp_path / "m" / "MITM_attack.csv", lines)
    made = load.builder("edge_iiotset/binary", tmp_path / "d", tmp_path / "m")
    assert made.info.metadata["rows_without_time"] == {"Attack": 6}
    assert sum(made.info.metadata["rows"].values()) == 90


def test_merged_files_are_preferred_and_the_rest_passed_over(tmp_path):
    manual = tmp_path / "m"
    shutil.copytree(dummy.BUILDERS / "edge_iiotset/dummy_data", manual)
    (manual / ".hidden.csv").write_text("not looked at")
    meta = load.builder("edge_iiotset/15class", tmp_path / "d", manual).info.metadata
    assert [s["path"] for s in meta["sources"]] == ["merged/ML-EdgeIIoT-dataset.csv"]
    assert meta["passed_over"] == ["attacks/Normal.csv", "attacks/OS_Fingerprinting_attack.csv"]


def test_progress_goes_from_nothing_to_all(tmp_path):
    said = []
    manual = dummy.BUILDERS / SAMPLES["ton_iot/10class"]
    load.builder("ton_iot/10class", tmp_path, manual, lambda *a: said.append(a))
    assert said[-1] == (80, 1.0)


def without(lines, *names):
    keep = [i for i, n in enumerate(lines[0]) if n not in names]
    return [[row[i] for i in keep] for row in lines]


def test_partial_configs_leave_absent_columns_out(tmp_path):
    lines = dummy.table("ciciot2023/34class", 80)
    dummy.write(tmp_path / "m" / "a.csv", without(lines, "AVG", "Radius"))
    dummy.write(tmp_path / "m" / "b.csv", without(lines, "AVG", "Max"))
    made = load.builder("ciciot2023/8class_partial", tmp_path / "d", tmp_path / "m")
    spec, train, _ = tables(made)
    assert made.info.metadata["absent_columns"] == ["Max", "AVG", "Radius"]
    assert train.x.shape[2] == len(spec.columns) == 43
    assert not {"AVG", "Max", "Radius"} & {c.name for c in spec.columns}
    with pytest.raises(
        DataError, match=r"lacks columns 'AVG', 'Radius' .* config ciciot2023/8class_partial trains"
    ):
        load.builder("ciciot2023/8class", tmp_path / "d", tmp_path / "m")


def spoiled(change):
    """A file of 300 rows in which ``change`` has spoiled something."""
    lines = dummy.table("ciciot2023/34class", 300)
    change(lines)
    return lines


def set_cell(rows, column, value):
    def change(lines):
        for i in range(1, rows + 1):
            lines[i][lines[0].index(column)] = value

    return change


@pytest.mark.parametrize(
    ("config", "lines", "message"),
    [
        ("34class", dummy.table("ciciot2023/merged_34class", 9), "see ciciot2023/merged_34class"),
        ("merged_8class", dummy.table("ciciot2023/34class", 9), "see ciciot2023/34class"),
        ("8class_partial", dummy.table("ciciot2023/merged_34class", 9), "the other release"),
        ("34class", without(dummy.table("ciciot2023/34class", 9), "label"), "lacks column 'label'"),
        (
            "34class_partial",
            without(dummy.table("ciciot2023/34class", 9), "label"),
            "lacks column 'label'",
        ),
        ("34class", spoiled(set_cell(2, "label", "Novel")), "2 rows have labels .*'Novel'"),
        ("34class", spoiled(set_cell(4, "Rate", "inf")), r"4 of 300 rows are unusable \(4 damaged"),
        ("34class", spoiled(set_cell(4, "Rate", "x")), "row 1 has b?'x' in 'Rate'"),
        ("34class", spoiled(set_cell(4, "label", "")), "4 blank label"),
        ("34class", [["a", "b"], ["1", "2"]], "lacks columns 'flow_duration'"),
    ],
)
def test_files_of_another_form_are_refused_and_leave_nothing(tmp_path, config, lines, message):
    path = dummy.write(tmp_path / "m" / "deep" / "er.csv", lines)
    with pytest.raises(DataError, match=message) as e:
        load.builder(f"ciciot2023/{config}", tmp_path / "d", tmp_path / "m")
    assert str(e.value).startswith(str(path))
    assert "\n" not in str(e.value)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("change", [set_cell(3, "Rate", "nan"), set_cell(1, "label", "Novel")])
def test_a_few_damaged_rows_are_dropped_and_counted(tmp_path, change):
    dummy.write(tmp_path / "m" / "a.csv", spoiled(change))
    made = load.builder("ciciot2023/34class", tmp_path / "d", tmp_path / "m")
    (dropped,) = made.info.metadata["dropped"].values()
    assert sum(made.info.metadata["rows"].values()) == 300 - dropped
    assert made.info.metadata["sources"][0]["rows"] == 300


def test_all_headers_are_checked_before_any_work(tmp_path, monkeypatch):
    dummy.write(tmp_path / "m" / "a.csv", dummy.table("ciciot2023/34class", 50))
    dummy.write(tmp_path / "m" / "b.csv", [["a"], ["1"]])

    def never(*args):
        raise AssertionError("a row was read")

    monkeypatch.setattr(recorded.records, "read", never)
    with pytest.raises(DataError, match=r"b\.csv"):
        load.builder("ciciot2023/34class", tmp_path / "d", tmp_path / "m")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "is empty"),
        (("notes.txt",), "holds no .csv"),
        (("CIC.zip",), r"unpack CIC\.zip first"),
        (("a.csv", "a.csv.gz"), "both plain and compressed"),
    ],
)
def test_folders_without_usable_files(tmp_path, names, message):
    (tmp_path / "m").mkdir()
    for name in names:
        (tmp_path / "m" / name).write_text("x")
    with pytest.raises(DataError, match=message):
        load.builder("ciciot2023/34class", tmp_path / "d", tmp_path / "m")
