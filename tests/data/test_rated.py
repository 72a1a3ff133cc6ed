"""People's scores on made-up rows: subjects on one side, scales, leaks, and what is refused."""

import gzip

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest

from qoejax.data import load, rated, schema
from qoejax.data.errors import DataError
from qoejax.data.table import concatenate, retained, spec_from_json, spec_to_json, take
from tests.data import dummy

CONFIGS = tuple(schema.CONFIGS["human_qoe"])
FOLDER = dummy.BUILDERS / "human_qoe" / "dummy_data"


@pytest.fixture(scope="module", params=CONFIGS)
def prepared(request, tmp_path_factory):
    return load.builder(f"human_qoe/{request.param}", tmp_path_factory.mktemp("data"), FOLDER)


@pytest.fixture(scope="module")
def gaming(tmp_path_factory):
    made = load.builder("human_qoe/cloud_gaming", tmp_path_factory.mktemp("data"), FOLDER)
    return load.table(made, "train")


def subjects(made):
    """Names of the subjects of each file row, read by hand."""
    level = schema.find(f"human_qoe/{made.builder_config.name}")
    lines = (FOLDER / f"{made.builder_config.name}.csv").read_text().splitlines()
    header = lines[0].split(",")
    at = [header.index(c) for c in level.schema.rating.subject]
    cells = [[line.split(",")[i] for i in at] for line in lines[1:]]
    if made.builder_config.name == "p1203":
        return [c[0].split("_")[1] for c in cells]
    return ["+".join(c) for c in cells]


def test_no_subject_on_both_sides(prepared):
    spec, train = load.table(prepared, "train")
    test = load.table(prepared, "test")[1]
    assert not set(train.group) & set(test.group)
    names = subjects(prepared)
    both = concatenate([train, test])
    assert len(both.label) == len(names) == prepared.info.metadata["rows_read"]
    # Group numbers stand for the subjects' names, one to one.
    _, sizes = np.unique(names, return_counts=True)
    assert sorted(np.unique(both.group, return_counts=True)[1]) == sorted(sizes)
    facts = prepared.info.metadata["subjects"]
    assert facts == {"train": len(set(train.group)), "test": len(set(test.group))}
    assert spec.human
    assert (both.label == 0).all()
    assert both.mos_mask.all()


def test_leaks_are_not_shown_to_models_by_default(prepared):
    spec, _ = load.table(prepared, "train")
    shown = set(retained(spec))
    rating = schema.find(spec.dataset).schema.rating
    forbidden = {
        "id", "player", "user_id", "pvs_id", "n", "sd", "ci", "p1203_mode0_O46", "QoU_age",
        "QoF_begin", "QoF_shift", "QoF_audio", "QoF_video", *rating.subject,
    }  # fmt: skip
    assert shown
    assert not shown & forbidden


def test_vocabularies_come_from_training_rows(prepared):
    spec, train = load.table(prepared, "train")
    for j, column in enumerate(spec.columns):
        if column.kind == "categorical":
            codes = set(train.x[:, 0, j].astype(int)) - {0}
            assert codes == set(range(1, len(spec.vocab[column.name])))


def test_scores_are_mapped_to_mos_and_back():
    level = schema.find("human_qoe/cloud_gaming")
    assert (level.schema.rating.low, level.schema.rating.high) == (0, 6)
    sheet = rated.Sheet(
        {}, np.array([0.0, 3.0, 6.0, np.nan]), np.array([""] * 4), np.arange(4), 4, {}
    )
    spec = schema.spec_of(level)._replace(vocab={c.name: ("",) for c in level.schema.columns})
    table = rated._table(spec, level, sheet)
    np.testing.assert_allclose(table.mos[:, 0], [1, 3, 5, 1])
    assert table.mos_mask[:, 0].tolist() == [True, True, True, False]
    assert rated.scale(spec) == (0, 6)


def test_half_widths_are_the_interval_column(tmp_path):
    made = load.builder("human_qoe/p1203", tmp_path, FOLDER)
    spec, train = load.table(made, "train")
    assert spec.interval == "ci"
    np.testing.assert_allclose(rated.half_width(spec, train), 0.25)
    assert rated.half_width(spec._replace(interval=""), train) is None


@pytest.mark.parametrize("form", ["csv", "csv.gz", "parquet"])
def test_a_file_reads_as_it_was_prepared(prepared, tmp_path, form):
    name = prepared.builder_config.name
    spec, train = load.table(prepared, "train")
    expected = concatenate([train, load.table(prepared, "test")[1]])
    spec = spec_from_json(spec_to_json(spec))
    source = FOLDER / f"{name}.csv"
    path = tmp_path / f"rows.{form}"
    if form == "csv.gz":
        path.write_bytes(gzip.compress(source.read_bytes()))
    elif form == "parquet":
        pyarrow.parquet.write_table(pyarrow.csv.read_csv(source), path)
    else:
        path.write_bytes(source.read_bytes())
    found, report, identity = load.read_file(path, spec, retained(spec))
    assert (report.rows, report.kept, report.labelled) == (120, 120, 120)
    np.testing.assert_array_equal(identity["row"], np.arange(120))
    order = [np.lexsort((*t.x[:, 0].T, t.mos[:, 0])) for t in (found, expected)]
    a, b = take(found, order[0]), take(expected, order[1])
    np.testing.assert_array_equal(a.x, b.x)
    np.testing.assert_array_equal(a.mos, b.mos)


def lines():
    return dummy.rated("human_qoe/cloud_gaming", 40)


def changed(tmp_path, edit):
    rows = lines()
    edit(rows)
    return dummy.write(tmp_path / "files" / "cloud_gaming.csv", rows)


def setter(row, column, text):
    def edit(rows):
        rows[row][rows[0].index(column)] = text

    return edit


@pytest.mark.parametrize(
    ("row", "column", "text", "message"),
    [
        (7, "QoE", "9", r"row 7 has 9 in 'QoE'; expected a score from 0 to 6"),
        (3, "QoE", "-1", r"row 3 has -1 in 'QoE'"),
        (5, "player", " ", r"row 5 has no subject; expected a name in 'player'"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, column, text, message):
    path = changed(tmp_path, setter(row, column, text))
    with pytest.raises(DataError, match=message):
        load.builder("human_qoe/cloud_gaming", tmp_path / "data", path.parent)
    assert not (tmp_path / "data").exists()


def test_a_name_without_its_source_is_refused(tmp_path):
    rows = dummy.rated("human_qoe/p1203", 20)
    rows[4][0] = "clip"
    path = dummy.write(tmp_path / "files" / "p1203.csv", rows)
    with pytest.raises(DataError, match=r"row 4 has no subject; expected a name that holds SRC"):
        load.builder("human_qoe/p1203", tmp_path / "data", path.parent)


def test_missing_numbers_are_counted_and_damage_refused(tmp_path):
    def gaps(rows):
        for row in (2, 5, 9):
            setter(row, "delay_up_ms", "")(rows)
        setter(11, "QoE", "")(rows)

    path = changed(tmp_path, gaps)
    made = load.builder("human_qoe/cloud_gaming", tmp_path / "data", path.parent)
    assert made.info.metadata["dropped"] == {"missing number": 3, "no score": 1}
    spec, train = load.table(made, "train")
    found, report, identity = load.read_file(path, spec, retained(spec))
    assert report.dropped == {"missing number": 3}
    assert (report.kept, report.labelled) == (37, 36)
    assert not set(identity["row"]) & {1, 4, 8}
    assert found.mos_mask[identity["row"] == 10].sum() == 0

    def words(rows):
        for row in (2, 5):
            setter(row, "delay_up_ms", "long")(rows)

    path = changed(tmp_path, words)
    with pytest.raises(DataError, match=r"2 of 40 rows have a cell that is no number.*row 2"):
        load.read_file(path, spec, retained(spec))
    del train


@pytest.mark.parametrize("need", ["delay_up_ms", "game"])
def test_a_lacking_column_is_named(gaming, tmp_path, need):
    def rename(rows):
        rows[0][rows[0].index(need)] = "other"

    path = changed(tmp_path, rename)
    with pytest.raises(DataError, match=f"lacks column '{need}' of the cloud gaming scores"):
        load.read_file(path, gaming[0], retained(gaming[0]))
    with pytest.raises(DataError, match="lacks column"):
        load.builder("human_qoe/cloud_gaming", tmp_path / "data", path.parent)


def test_scores_and_subjects_may_be_absent_where_only_forecasts_are_wanted(gaming, tmp_path):
    spec, _ = gaming
    rows = [row[1:-1] for row in lines()]  # neither player nor score
    path = dummy.write(tmp_path / "new.csv", rows)
    table, report, _ = load.read_file(path, spec, retained(spec))
    assert not table.mos_mask.any()
    assert (table.group == -1).all()
    assert report.labelled == 0
    assert report.absent_columns == ("player",)


def test_another_dataset_is_refused(gaming):
    with pytest.raises(DataError, match="lacks columns"):
        load.read_file(FOLDER / "vlc.csv", gaming[0], retained(gaming[0]))


REAL = {"cloud_gaming": (2996, 64), "poqemon": (1201, 142), "vlc": (300, 9), "p1203": (189, 100)}


@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_real_rows(real_data, tmp_path, name):
    made = load.builder(f"human_qoe/{name}", tmp_path, real_data / "qoe")
    meta, (rows, least) = made.info.metadata, REAL[name]
    assert meta["rows_read"] == rows
    assert meta["dropped"] == ({"missing number": 9} if name == "p1203" else {})
    share = {k: v["test"] / (v["test"] + v["train"]) for k, v in
             (("rows", meta["rows"]), ("subjects", meta["subjects"]))}  # fmt: skip
    assert 0.17 <= share["rows"] <= 0.23
    assert 0.15 <= share["subjects"] <= 0.25
    assert sum(meta["subjects"].values()) >= least
    spec, train = load.table(made, "train")
    assert np.isfinite(train.x).all()
    assert 1 <= train.mos.min() < train.mos.max() <= 5
    path = real_data / "qoe" / f"{name}.csv.gz"
    _, report, _ = load.read_file(path, spec, retained(spec))
    assert report.labelled == sum(meta["rows"].values())
