"""The builders on real rows: counts, splits, and raw files read as the datasets were."""

import numpy as np
import pytest

from qoejax.data import load, raw
from qoejax.data.errors import DataError
from qoejax.data.table import concatenate, retained, spec_from_json, spec_to_json

pytestmark = pytest.mark.real

CASES = {
    "ton_iot/10class": ("ton_iot", 174_079, 10, 42),
    "ciciot2023/merged_34class": ("ciciot2023/v2", 2_456, 34, 39),
    "ciciot2023/8class_partial": ("ciciot2023/v1", 25_306, 8, 28),
    "edge_iiotset/15class": ("edge_iiotset", 2_248, 13, 61),
}


@pytest.fixture(scope="module", params=CASES)
def case(request, real_data, tmp_path_factory):
    folder, *expected = CASES[request.param]
    made = load.builder(request.param, tmp_path_factory.mktemp("data"), real_data / folder)
    return made, real_data / folder, expected


def test_every_real_row_is_usable(case):
    made, _, (rows, classes, columns) = case
    meta = made.info.metadata
    assert sum(meta["rows"].values()) == meta["rows_read"] == rows
    assert meta["dropped"] == {}
    spec, train = load.table(made, "train")
    test = load.table(made, "test")[1]
    both = concatenate([train, test])
    assert len(np.unique(both.label)) == classes
    assert both.x.shape == (rows, 1, columns)
    assert np.isfinite(both.x).all()
    names = set(retained(spec))
    columns = [i for i, c in enumerate(spec.columns) if c.name in names]
    sides = [{r.tobytes() for r in t.x[:, 0, columns]} for t in (train, test)]
    assert not sides[0] & sides[1]


def test_raw_files_read_as_prepared(case):
    made, folder, (rows, _, _) = case
    spec, train = load.table(made, "train")
    expected = np.concatenate([train.x, load.table(made, "test")[1].x])[:, 0]
    spec = spec_from_json(spec_to_json(spec))
    files = sorted(p for p in folder.iterdir() if ".csv" in p.name)
    found = [raw.read_raw(p, spec) for p in files]
    assert sum(r.labelled for _, r in found) == rows
    x = np.concatenate([t.x for t, _ in found])[:, 0]
    np.testing.assert_array_equal(x[np.lexsort(x.T)], expected[np.lexsort(expected.T)])


def test_excerpt_without_all_columns_names_the_way_out(real_data, tmp_path):
    with pytest.raises(DataError) as e:
        load.builder("ciciot2023/8class", tmp_path, real_data / "ciciot2023" / "v1")
    for text in ("'Srate'", "'Weight'", "'Variance'", "ciciot2023/8class_partial"):
        assert text in str(e.value)


def test_the_other_release_is_recognised(real_data, tmp_path):
    with pytest.raises(DataError, match="see ciciot2023/merged_34class"):
        load.builder("ciciot2023/34class", tmp_path, real_data / "ciciot2023" / "v2")


def test_shifted_rows_of_edge(real_data, tmp_path):
    made = load.builder("edge_iiotset/6class", tmp_path, real_data / "edge_iiotset")
    meta = made.info.metadata
    assert meta["rows_without_time"] == {"MITM": 1230, "DDoS": 1}
    assert meta["class_counts"]["train"]["MITM"] + meta["class_counts"]["test"]["MITM"] == 1230
    assert [s["rows"] for s in meta["sources"]] == [1229, 1001, 18]
