"""``config.data`` to tables: every way of parting rows, on the simulated and on recorded rows."""

import numpy as np
import pytest

from qoejax.data import load, table
from qoejax.data.errors import DataError
from qoejax.run import build, tables
from qoejax.run.errors import RunError
from tests.data import dummy
from tests.run.conftest import tiny_config


def key(rows):
    return {r.tobytes() for r in np.ascontiguousarray(rows.x)}


@pytest.fixture(scope="module")
def ton(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ton")
    dummy.write(folder / "Train_Test_Network.csv", dummy.table("ton_iot/10class", 600))
    load.builder("ton_iot/10class", data_dir, folder)
    return data_dir


@pytest.mark.parametrize("way", ["prepared", "random", "group", "blocked", "leave_out"])
def test_no_row_is_on_both_sides(data_dir, way):
    names = load.table(tables.dataset(tiny_config(data_dir)), "test")[0].label_names
    more = {"leave_out": names[1:2]} if way == "leave_out" else {}
    config = tiny_config(data_dir, data={"split": way, "within": "group", "gap": 1, **more})
    spec, train, test, report = tables.tables(config)
    assert len(train.label)
    assert len(test.label)
    assert not key(train) & key(test)
    np.testing.assert_array_equal(tables.test_rows(config).x, test.x)
    assert set(report) == {"train", "test"}
    if way == "group":
        assert not set(train.group) & set(test.group)
        assert report["train"]["test_groups"] == 1
    if way == "leave_out":
        assert 1 not in train.label
        assert 1 in test.label
        assert spec.label_names[1] == names[1]


def test_the_prepared_split_is_what_it_was(data_dir):
    config = tiny_config(data_dir)
    spec, train, test, _ = tables.tables(config)
    for name, side in (("train", train), ("test", test)):
        _, rows = load.table(tables.dataset(config), name)
        keep, _ = tables.clean(config, spec, rows)
        for a, b in zip(side, table.take(rows, keep), strict=True):
            np.testing.assert_array_equal(a, b)


def test_rows_parted_by_content_need_a_time_column(ton):
    def config(**data):
        return tiny_config(ton, data={"name": "ton_iot/10class", "split": "blocked", **data})

    with pytest.raises(RunError, match="rows have lost their order"):
        tables.tables(config())
    with pytest.raises(RunError, match=r"data\.order is 'when': ton_iot/10class has no such"):
        tables.tables(config(order="when"))
    _, train, test, report = tables.tables(config(order="duration", blocks=4, gap=1))
    assert report["test"]["dropped_at_borders"] > 0
    assert len(train.label) > len(test.label) > 0


def test_rows_that_are_equal_in_the_view_stand_on_one_side(tmp_path):
    """Four columns of few values decide the view and the label; the others differ in every row."""
    lines = dummy.table("ton_iot/10class", 400)
    at = {name: j for j, name in enumerate(lines[0])}
    for i, line in enumerate(lines[1:]):
        few = {"duration": 1 + i % 5, "src_pkts": 1 + i % 3, "dst_pkts": 1, "dst_ip_bytes": 40}
        few |= {"src_ip_bytes": 100 + i % 4, "type": ("normal", "dos", "scanning")[i % 3]}
        few |= {"proto": "tcp", "missed_bytes": i}
        for name, value in few.items():
            line[at[name]] = str(value)
    dummy.write(tmp_path / "raw" / "Train_Test_Network.csv", lines)
    load.builder("ton_iot/10class", tmp_path / "data", tmp_path / "raw")
    data = {"name": "ton_iot/10class", "view": "shared", "split": "prepared"}
    config = tiny_config(tmp_path / "data", data=data)
    with pytest.raises(DataError, match="every test row repeats a training row"):
        tables.tables(config)


def test_the_shared_view_of_another_dataset(ton):
    config = tiny_config(ton, data={"view": "shared", "split": "group"})
    spec, train, _, _ = tables.tables(config)
    assert spec.label_names == ("Benign", "Attack")
    assert train.x.shape[1] == 1
    with pytest.raises(DataError, match="ton_iot/10class cannot give size_std, fin_share"):
        tables.other_rows(config, spec, "ton_iot/10class", str(ton))
    with pytest.raises(RunError, match="only a model of the shared view"):
        tables.other_rows(tiny_config(ton), spec, "ton_iot/10class", str(ton))
    lacking = ("size_std", *(f"{f}_share" for f in ("fin", "syn", "rst", "psh", "ack")))
    config = tiny_config(ton, data={"view": "shared", "drop": lacking})
    rows = tables.other_rows(config, spec, "ton_iot/10class", str(ton))
    assert rows.x.shape[2] == len(spec.columns)
    assert set(rows.label) <= {0, 1}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            {"split": "chance"},
            "config.data.split is 'chance': expected one of 'prepared', 'random'",
        ),
        ({"view": "flat"}, "config.data.view is 'flat'"),
        ({"within": "day"}, "config.data.within is 'day'"),
        ({"test_fraction": 1.0}, "config.data.test_fraction is 1.0"),
        ({"leave_out": ("scan",)}, "config.data.split is 'prepared': expected 'leave_out'"),
    ],
)
def test_bad_config_stops_before_any_work(tmp_path, data, said):
    with pytest.raises(RunError, match=said):
        build.check(tiny_config(tmp_path, data=data))
