"""Captures end to end: builder, reader and their agreement; any damage is survived."""

import gzip
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoejax.data import capture, capture_files, load
from qoejax.data.errors import DataError
from qoejax.data.table import QOME, concatenate, retained
from tests.data import pcaps


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = pcaps.write_folder(tmp_path_factory.mktemp("pcaps"))
    (made / "round1__mixed_01.pcap").write_bytes(pcaps.pcap([]))
    return made


@pytest.fixture(scope="module", params=capture.CONFIGS)
def prepared(request, folder, tmp_path_factory):
    return load.builder(f"pcap_folder/{request.param}", tmp_path_factory.mktemp("data"), folder)


def tables(prepared):
    spec, train = load.table(prepared, "train")
    return spec, train, load.table(prepared, "test")[1]


def test_rounds_are_whole_on_one_side_and_classes_on_both(prepared):
    spec, train, test = tables(prepared)
    assert spec.label_names == ("benign", "flood", "scan")
    assert set(train.label) == set(test.label) == {0, 1, 2}
    assert not set(train.group) & set(test.group)
    meta = prepared.info.metadata
    assert len(meta["test_groups"]) == 1
    assert meta["passed_over"] == ["round1__mixed_01.pcap"]
    for entry in meta["sources"]:
        assert (entry["split"] == "test") == (entry["group"] in meta["test_groups"])
    assert sum(e["windows"] for e in meta["sources"]) == len(train.label) + len(test.label)
    assert retained(spec) == tuple(c.name for c in spec.columns)


def test_only_benign_conversations_are_rated(prepared):
    spec, train, test = tables(prepared)
    both = concatenate([train, test])
    assert both.mos_mask[both.label == 0].any()
    assert not both.mos_mask[both.label != 0].any()
    for q, service in enumerate(spec.services):
        scores = both.mos[both.mos_mask[:, q], q]
        low, high = (0, 1) if service.scale == QOME else (1, 5)
        assert ((scores >= low) & (scores <= high)).all(), service


def test_files_read_as_they_were_prepared(prepared, folder):
    spec, train, test = tables(prepared)
    both = concatenate([train, test])
    found = [load.read_file(p, spec, ()) for p in sorted(folder.glob("*__[bfs]*.pcap"))]
    x = np.concatenate([t.x for t, _, _ in found]).reshape(len(both.label), -1)
    expected = both.x.reshape(len(both.label), -1)
    np.testing.assert_array_equal(x[np.lexsort(x.T)], expected[np.lexsort(expected.T)])
    for table, report, identity in found:
        assert report.labelled == report.windows == len(table.label)
        assert {len(column) for column in identity.values()} == {report.windows}


def test_rows_say_when_and_who(prepared, folder, tmp_path):
    spec = tables(prepared)[0]
    data = (folder / "round1__benign_01.pcap").read_bytes()
    (tmp_path / "some.pcap.gz").write_bytes(gzip.compress(data))
    table, report, identity = load.read_file(tmp_path / "some.pcap.gz", spec, ())
    assert (table.label == -1).all()
    assert report.labelled == 0
    assert list(identity["start"]) == sorted(identity["start"])
    assert all(re.fullmatch(r"2023-11-14T22:\d\d:\d\d\.\d{6}Z", t) for t in identity["start"])
    known = identity["source"] != "several"
    assert set(identity["source"][known]) == {pcaps.CLIENT}
    assert set(identity["destination"][known]) <= {pcaps.SERVER, pcaps.BROKER}
    assert set(identity["protocol"][known]) <= {"tcp/80", "tcp/1883", "udp/53"}


def test_time_and_hosts_do_not_reach_the_features(folder, tmp_path):
    spec = capture.spec("packets", ("benign", "flood", "scan"))
    later = [(t + 5e6, frame) for t, frame in pcaps.benign(0)]
    (tmp_path / "a.pcap").write_bytes(pcaps.pcap(pcaps.benign(0)))
    (tmp_path / "b.pcap").write_bytes(pcaps.pcap(later))
    a, b = (capture.read(tmp_path / n, spec, ())[0] for n in ("a.pcap", "b.pcap"))
    np.testing.assert_allclose(a.x, b.x, rtol=2e-3, atol=1e-5)


def test_parts_of_a_capture_are_apart(tmp_path):
    path = tmp_path / "a.pcap"
    path.write_bytes(pcaps.pcap(pcaps.flood(0, packets=1000)))
    whole, *parts = (
        capture.Reading(path, capture.CONFIGS["packets"], part)
        for part in (capture.WHOLE, (0.0, capture_files.CUT[0]), (capture_files.CUT[1], 1.0))
    )
    rows = [sum(len(s.x) for s in r) for r in (whole, *parts)]
    assert whole.report.packets == 1000
    assert [p.report.packets for p in parts] == pytest.approx([780, 200], abs=2)
    assert rows == [50, 39, 10] or rows == [50, 38, 10]


def test_a_class_in_one_round_is_cut_between_the_splits(tmp_path):
    made = pcaps.write_folder(tmp_path / "pcaps", ("only",))
    meta = load.builder("pcap_folder/packets", tmp_path / "data", made).info.metadata
    for split in ("train", "test"):
        assert min(meta["class_counts"][split].values()) > 0
    assert {e["split"] for e in meta["sources"]} == {"train", "test"}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.pcap", b"no capture", "is no capture"),
        ("a.pcap", pcaps.pcap([]), "has 0 packets, too few for one window"),
        ("a.csv", b"a,b\n", "expected a name ending in .pcap"),
        ("a.pcap", pcaps.pcap(pcaps.flood(0, packets=30))[:-5], None),
        (
            "a.pcap",
            pcaps.pcap(pcaps.flood(0, packets=9))[:-5],
            "too few .*; the last record is cut off",
        ),
    ],
)
def test_bad_captures_are_named(tmp_path, name, data, message):
    spec = capture.spec("packets", ("benign",))
    (tmp_path / name).write_bytes(data)
    if message is None:
        _, report, _ = capture.read(tmp_path / name, spec, ())
        assert report.warnings == ("the last record is cut off",)
        assert report.packets == 29
        return
    with pytest.raises(DataError, match=message):
        capture.read(tmp_path / name, spec, ())


def test_an_empty_capture_among_others_is_no_harm(tmp_path):
    made = pcaps.write_folder(tmp_path / "pcaps")
    (made / "round1__benign_09.pcap").write_bytes(pcaps.pcap([]))
    (made / "round2__scan_09.pcap").write_bytes(pcaps.pcap(pcaps.scan(9))[:-7])
    meta = load.builder("pcap_folder/packets", tmp_path / "data", made).info.metadata
    assert meta["warnings"] == ["round2__scan_09.pcap: the last record is cut off"]
    assert [e["packets"] for e in meta["sources"] if e["file"] == "round1__benign_09.pcap"] == [0]


def test_what_is_not_a_capture_stops_the_preparation(tmp_path):
    made = pcaps.write_folder(tmp_path / "pcaps")
    (made / "round1__benign_09.pcap").write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"round1__benign_09\.pcap: is no capture"):
        load.builder("pcap_folder/packets", tmp_path / "data", made)
    assert not list((tmp_path / "data").rglob("*.array_record*"))


BYTES = pcaps.pcap(sorted(pcaps.benign(0, sessions=3) + pcaps.scan(1) + pcaps.flood(2)))


@given(
    st.lists(st.tuples(st.integers(0, len(BYTES) - 1), st.integers(0, 255)), max_size=12),
    st.integers(0, len(BYTES)),
    st.sampled_from([*capture.CONFIGS]),
)
def test_no_damage_crashes_the_reader(tmp_path_factory, flips, end, config):
    data = bytearray(BYTES)
    for at, value in flips:
        data[at] = value
    path = tmp_path_factory.getbasetemp() / "damaged.pcap"
    path.write_bytes(data[:end] if end > 100 else data)
    spec = capture.spec(config, ("benign",))
    try:
        table, report, identity = capture.read(path, spec, ())
    except DataError:
        return
    assert np.isfinite(table.x).all()
    assert np.isfinite(table.mos).all()
    assert len(table.label) == report.windows == len(identity["start"])
