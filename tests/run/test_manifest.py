import json

import pytest

from qoejax.run import manifest
from qoejax.run.errors import RunError

CONFIG = {"seed": 0, "client": {"lr": 0.1, "keep": []}}


def test_open_and_continue(tmp_path):
    first = manifest.open_run(tmp_path, CONFIG)
    assert first["packages"]["jax"]
    again = manifest.open_run(tmp_path, CONFIG)
    assert len(again["resumed"]) == 1
    assert json.loads((tmp_path / "manifest.json").read_text()) == again


def test_other_config_is_refused_and_named(tmp_path):
    manifest.open_run(tmp_path, CONFIG)
    before = (tmp_path / "manifest.json").read_bytes()
    other = {"seed": 0, "client": {"lr": 0.2, "keep": []}}
    with pytest.raises(RunError, match=r"config\.client\.lr \(0\.1 there, 0\.2 asked for\)"):
        manifest.open_run(tmp_path, other)
    assert (tmp_path / "manifest.json").read_bytes() == before


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
