import json
import logging
import re

import pytest

from qoejax.run import manifest
from qoejax.run.errors import RunError

PERF = {"client_axis": "shard", "chunk": 4, "devices": 2, "rounds_per_dispatch": 10, "threads": 8}
CONFIG = {"seed": 0, "client": {"lr": 0.1, "keep": []}, "perf": PERF}


def test_open_and_continue(tmp_path):
    first = manifest.open_run(tmp_path, CONFIG)
    assert first["packages"]["jax"]
    again = manifest.open_run(tmp_path, CONFIG)
    assert len(again["resumed"]) == 1
    assert json.loads((tmp_path / "manifest.json").read_text()) == again


def test_it_says_what_the_last_bit_depends_on(tmp_path):
    record = manifest.open_run(tmp_path, CONFIG)
    assert record["devices"] == ["cpu"] * 4
    assert record["threads"] is None or record["threads"] >= 4
    assert record["instructions"]
    assert "device_count=4" in record["variables"]["XLA_FLAGS"]
    assert record["settings"]["jax_enable_x64"] is False
    assert record["guarantee"] == {"name": "bits", "means": manifest.GUARANTEES["bits"]}


def test_other_config_is_refused_and_named(tmp_path):
    manifest.open_run(tmp_path, CONFIG)
    before = (tmp_path / "manifest.json").read_bytes()
    other = CONFIG | {"client": {"lr": 0.2, "keep": []}}
    with pytest.raises(RunError, match=r"config\.client\.lr \(0\.1 there, 0\.2 asked for\)"):
        manifest.open_run(tmp_path, other)
    assert (tmp_path / "manifest.json").read_bytes() == before


def perf(**values):
    return CONFIG | {"perf": PERF | values}


STRICT = {"client_axis": "strict"}


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({}, {"chunk": 2}, r"config\.perf\.chunk \(4 there, 2 here\)"),
        ({}, {"devices": 4}, r"config\.perf\.devices \(2 there, 4 here\)"),
        (STRICT, STRICT | {"threads": 4}, r"config\.perf\.threads \(8 there, 4 here\)"),
        (STRICT, {}, r"config\.perf\.client_axis \('strict' there, 'shard' here\)"),
        ({}, {"rounds_per_dispatch": 1}, None),
        (STRICT, STRICT | {"devices": 4}, None),
    ],
)
def test_other_ways_to_run_are_allowed_but_said(tmp_path, caplog, before, after, said):
    manifest.open_run(tmp_path, perf(**before))
    with caplog.at_level(logging.WARNING, "qoejax"):
        record = manifest.open_run(tmp_path, perf(**after))
    assert len(caplog.records) == len(record["resumed"][-1]["changed"]) == (said is not None)
    name = "strict" if before and not said else "bits"
    assert record["guarantee"]["name"] == ("tolerance" if said else name)
    for line in caplog.messages:
        assert re.search(said, line)
    # Once different, always different: a straight run would not repeat these bits.
    again = manifest.open_run(tmp_path, perf(**after))
    assert again["guarantee"] == record["guarantee"]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("packages", {"jax": "0.1"}, r"packages\.jax \('0\.1' there, '[\d.]+' here\)"),
        ("devices", ["TPU v5"], r"devices \(\['TPU v5'\] there"),
        ("instructions", ["NEON"], r"instructions \(\['NEON'\] there"),
        ("variables", {"XLA_FLAGS": "--x"}, r"variables\.XLA_FLAGS \('--x' there"),
        ("git_commit", "abc", r"git_commit \('abc' there"),
        ("platform", "another kernel", None),
    ],
)
def test_another_place_is_named(tmp_path, caplog, key, value, said):
    record = manifest.open_run(tmp_path, CONFIG)
    value = record[key] | value if isinstance(value, dict) else value
    (tmp_path / "manifest.json").write_text(json.dumps(record | {key: value}))
    with caplog.at_level(logging.WARNING, "qoejax"):
        again = manifest.open_run(tmp_path, CONFIG)
    assert [bool(re.search(said, line)) for line in caplog.messages] == [True] * bool(said)
    assert again["guarantee"]["name"] == ("tolerance" if said else "bits")


def test_more_devices_of_the_same_kind_are_no_change_in_strict_mode():
    here = manifest.environment()
    more = here | {"devices": ["cpu"] * 8}
    assert manifest.changed(here, more) == [f"devices ({['cpu'] * 4} there, {['cpu'] * 8} here)"]
    assert manifest.changed(here, more, strict=True) == []
    assert manifest.changed(here, more | {"devices": ["gpu"]}, strict=True)


def test_a_gpu_adds_in_any_order_unless_told_otherwise():
    gpu = {"backend": "gpu", "variables": {}}
    told = {"backend": "gpu", "variables": {"XLA_FLAGS": f"--x {manifest.DETERMINISTIC}"}}
    assert manifest.guarantee(CONFIG, gpu) == "tolerance"
    assert manifest.guarantee(CONFIG, told) == "bits"
    assert manifest.guarantee(perf(**STRICT), told) == "strict"


def test_foreign_folder_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(RunError, match=r"holds 'thesis\.tex'"):
        manifest.open_run(tmp_path, CONFIG)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_other_rows_are_refused(tmp_path):
    record = manifest.open_run(tmp_path, CONFIG)
    manifest.pin_data(tmp_path, record, "aaaa")
    manifest.pin_data(tmp_path, manifest.open_run(tmp_path, CONFIG), "aaaa")
    with pytest.raises(RunError, match="training rows are not those"):
        manifest.pin_data(tmp_path, manifest.open_run(tmp_path, CONFIG), "bbbb")
