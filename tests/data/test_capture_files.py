"""Labels, groups and sides of captures, by name, rule or manifest; and what is wrong with one."""

import json

import pytest

from qoejax.data import capture_files as files
from qoejax.data.errors import DataError
from tests.data import pcaps


def folder(path, *names, manifest=None, rule=None):
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(pcaps.pcap([]))
    if manifest is not None:
        (path / "manifest.csv").write_text(manifest)
    if rule is not None:
        (path / "rule.json").write_text(rule if isinstance(rule, str) else json.dumps(rule))
    return path


def told(found):
    return {c.path.name: (c.label, c.group) for c in found.captures}


def test_names_tell_label_and_group(tmp_path):
    found = files.find(
        folder(
            tmp_path,
            "round1__benign_01.pcap", "v7__dos_flood_ref02.pcap", "blind05__c2_05.pcapng.gz",
            "deep/r__slow_dos_1.PCAP", "DDoS-ICMP_Flood12.pcap", "BenignTraffic.pcap",
            "x__incident_final.pcap", "pcaps__test_day1_mqtt.pcap", ".hidden/r__scan_01.pcap",
        )
    )  # fmt: skip
    assert told(found) == {
        "round1__benign_01.pcap": ("benign", "round1"),
        "v7__dos_flood_ref02.pcap": ("flood", "v7"),
        "blind05__c2_05.pcapng.gz": ("c2", "blind05"),
        "r__slow_dos_1.PCAP": ("slow_dos", "r"),
        "DDoS-ICMP_Flood12.pcap": ("DDoS-ICMP_Flood", "DDoS-ICMP_Flood12"),
        "BenignTraffic.pcap": ("benign", "BenignTraffic"),
    }
    assert found.passed_over == ("pcaps__test_day1_mqtt.pcap", "x__incident_final.pcap")


def test_a_rule_may_say_otherwise(tmp_path):
    rule = {
        "pattern": r"(?P<label>[a-z]+)-day(?P<group>\d)",
        "labels": {"calm": "benign", "storm": "flood"},
        "test": ["2"],
    }
    names = (
        "calm-day1.pcap",
        "STORM-day1.pcap",
        "calm-day2.pcap",
        "fog-day2.pcap",
        "storm-day2.pcap",
    )
    found = files.find(folder(tmp_path, *names, rule=rule))
    assert told(found) == {
        "calm-day1.pcap": ("benign", "1"),
        "calm-day2.pcap": ("benign", "2"),
        "storm-day2.pcap": ("flood", "2"),
    }
    assert [p.split for p in files.sides(found.captures)] == ["train", "test", "test"]
    assert files.label_of(tmp_path / "calm-day1.pcap") == "benign"
    assert files.label_of(tmp_path / "fog-day2.pcap") is None


def test_a_manifest_says_all(tmp_path):
    text = "file,label,group,split\nsub/a.pcap,benign,g1,train\nb.pcap,odd one,g2,test\n"
    found = files.find(folder(tmp_path, "sub/a.pcap", "b.pcap", "c.pcap", manifest=text))
    assert told(found) == {"a.pcap": ("benign", "g1"), "b.pcap": ("odd one", "g2")}
    assert found.passed_over == ("c.pcap",)
    assert files.label_of(tmp_path / "b.pcap") == "odd one"
    assert files.label_of(tmp_path / "c.pcap") is None


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("name,label\n", "lacks the column 'file'"),
        ("", "lacks the column 'file', 'label'"),
        ("file,label\ngone.pcap,benign\n", r"line 2: 'gone.pcap' is no capture"),
        ("file,label\na.pcap,\n", "'a.pcap' has no label"),
        ("file,label\na.pcap,benign\na.pcap,scan\n", "line 3: 'a.pcap' is there already in line 2"),
        (
            "file,label,split\na.pcap,benign,dev\n",
            "split is 'dev'; expected train, test or nothing",
        ),
        (
            "file,label,group,split\na.pcap,benign,g,train\nb.pcap,scan,g,test\n",
            "group 'g' is in more than one split",
        ),
        ("file,label\na.pcap,scan\n", "no capture is labelled 'benign'; there are scan"),
        ("file,label\n", "no capture has a name that tells its label"),
    ],
)
def test_bad_manifests_are_named(tmp_path, manifest, message):
    with pytest.raises(DataError, match=message):
        files.find(folder(tmp_path, "a.pcap", "b.pcap", manifest=manifest))


@pytest.mark.parametrize(
    "rule",
    ["{", "[]", {}, {"pattern": "("}, {"pattern": "x"}, {"pattern": "(?P<label>x)", "odd": 1},
     {"pattern": "(?P<label>x)", "labels": ["x"]}, {"pattern": "(?P<label>x)", "test": [1]},
     {"pattern": 3}],
)  # fmt: skip
def test_bad_rules_are_named(tmp_path, rule):
    with pytest.raises(DataError, match=r"rule\.json: (cannot be read as a rule|expected)"):
        files.find(folder(tmp_path, "x.pcap", rule=rule))


def test_a_folder_without_captures_is_named(tmp_path):
    with pytest.raises(DataError, match="holds no capture"):
        files.find(tmp_path)


def captures(**groups):
    made = []
    for group, labels in groups.items():
        made += [files.Capture(None, label, group) for label in labels.split()]
    return tuple(made)


def test_whole_groups_are_held_out_and_every_class_is_on_both_sides():
    rounds = {f"r{i}": "benign scan flood" for i in range(8)} | {"odd": "flood"}
    pieces = files.sides(captures(**rounds))
    of = {
        split: {p.capture.group for p in pieces if p.split == split} for split in ("train", "test")
    }
    assert len(of["test"]) == 2
    assert "odd" in of["train"]
    assert not of["train"] & of["test"]
    assert pieces == files.sides(captures(**rounds))


def test_a_class_of_one_round_is_cut_in_time():
    pieces = files.sides(captures(a="benign scan", b="benign", c="benign"))
    of_scan = [(p.split, p.part) for p in pieces if p.capture.label == "scan"]
    assert of_scan == [("train", (0.0, files.CUT[0])), ("test", (files.CUT[1], 1.0))]
    whole = {(p.split, p.part) for p in pieces if p.capture.label == "benign"}
    assert whole == {("train", (0.0, 1.0)), ("test", (0.0, 1.0))}


def test_a_single_round_is_cut_too():
    pieces = files.sides(captures(only="benign scan"))
    assert sorted(p.split for p in pieces) == ["test", "test", "train", "train"]
