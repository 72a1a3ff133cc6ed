"""Loading prepared datasets: names, damage, and saved descriptions."""

import itertools
import json
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from qoejax.data import load
from qoejax.data.errors import DataError
from qoejax.data.table import (
    make_table,
    narrow,
    retained,
    spec_from_json,
    spec_to_json,
)
from tests.data import dummy

MANUAL = dummy.BUILDERS / "ton_iot" / "dummy_data"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    load.builder("ton_iot/10class", folder, MANUAL)
    return folder


def test_prepared_data_needs_no_files_and_no_work(data_dir):
    def never(rows, fraction):
        raise AssertionError("prepared again")

    made = load.builder("ton_iot/10class", data_dir, progress=never)
    assert load.builder("ton_iot", data_dir).data_path == made.data_path  # The default config.
    spec, table = load.table(made, "test")
    assert table.x.shape == (made.info.metadata["rows"]["test"], 1, len(spec.columns))
    assert table.mos.shape == table.mos_mask.shape == (len(table.label), 0)


def test_plain_tfds_reads_it_too(data_dir):
    source = tfds.data_source("ton_iot/10class", split="train", data_dir=str(data_dir))
    _, table = load.table(load.builder("ton_iot/10class", data_dir), "train")
    np.testing.assert_array_equal(source[0]["x"], table.x[: len(source[0]["x"])])
    info = tfds.builder("ton_iot/10class", data_dir=str(data_dir)).info
    assert "Zeek" in info.description
    assert "moustafa" in info.citation


@pytest.mark.parametrize(
    ("name", "manual_dir", "message"),
    [
        ("nope", None, "There is no dataset 'nope'; there are .*ton_iot"),
        ("ton_iot/9class", None, "ton_iot has no config '9class'; it has 10class, binary"),
        ("ton_iot/binary", None, "not prepared in .* no manual_dir is given: put Train_Test"),
        ("ton_iot/binary", "gone", "manual_dir gone is not a folder"),
    ],
)
def test_unusable_requests_are_refused(data_dir, name, manual_dir, message):
    with pytest.raises(DataError, match=message):
        load.builder(name, data_dir, manual_dir)


def test_a_split_that_is_not_there_is_refused(data_dir):
    with pytest.raises(DataError, match="no split 'valid'; it has test, train"):
        load.table(load.builder("ton_iot/10class", data_dir), "valid")


@pytest.mark.parametrize("victim", ["*train.array_record*", "metadata.json", "dataset_info.json"])
@pytest.mark.parametrize("how", ["truncated", "deleted"])
def test_a_damaged_dataset_is_one_clear_error(data_dir, tmp_path, victim, how):
    shutil.copytree(data_dir, tmp_path / "d")
    (path,) = (tmp_path / "d" / "ton_iot" / "10class" / "1.0.0").glob(victim)
    if how == "deleted":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match="ton_iot"):
        load.table(load.builder("ton_iot/10class", tmp_path / "d"), "train")


def test_a_description_survives_json(data_dir):
    spec, _ = load.table(load.builder("ton_iot/10class", data_dir), "train")
    text = json.dumps(spec_to_json(spec))
    assert spec_from_json(json.loads(text)) == spec
    for broken in ({}, {**spec_to_json(spec), "columns": [{"name": "x"}]}, []):
        with pytest.raises(DataError, match="not a saved dataset description"):
            spec_from_json(broken)


def test_columns_are_kept_and_chosen_by_name(data_dir):
    spec, _ = load.table(load.builder("ton_iot/10class", data_dir), "train")
    names = retained(spec)
    assert "src_ip" not in names
    assert retained(spec, keep=("src_ip",)) == ("src_ip", *names)
    small = narrow(spec, ("proto", "duration"))
    assert [c.name for c in small.columns] == ["proto", "duration"]
    assert set(small.vocab) == {"proto"}
    for wrong in (retained, narrow):
        with pytest.raises(DataError, match="has no column 'nope'"):
            wrong(spec, ("nope",))


def test_batches_visit_each_row_once_in_a_fixed_order():
    table = make_table(np.arange(10.0).reshape(10, 1, 1), np.arange(10))
    drawn = [[b.label.tolist() for b in load.batches(table, 4, 7, epoch)] for epoch in (0, 0, 1)]
    assert [len(b) for b in drawn[0]] == [4, 4, 2]
    assert sorted(itertools.chain(*drawn[0])) == list(range(10))
    assert drawn[0] == drawn[1] != drawn[2]
