import json
import os
import subprocess
import sys

import numpy as np
import pytest

from qoejax.run import files
from qoejax.run.errors import RunError


def test_write_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a" / "x.json"
    files.write_json(path, {"v": 1})

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        files.write_json(path, {"v": 2})
    assert json.loads(path.read_text()) == {"v": 1}
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]


def test_json_is_strict():
    text = files.dumps({"a": np.float32("nan"), "b": np.arange(2), 3: (1.5, np.inf), "s": "nan"})
    assert json.loads(text) == {"a": None, "b": [0, 1], "3": [1.5, None], "s": "nan"}


@pytest.mark.parametrize("content", [None, "{", "\x00"])
def test_unreadable_json_names_the_file(tmp_path, content):
    path = tmp_path / "manifest.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RunError, match=r"manifest\.json.*the manifest of a run"):
        files.read_json(path, "the manifest of a run")


def test_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"workdir .*file/sub cannot be written to"):
        files.writable_folder(tmp_path / "file" / "sub", "workdir")


def test_lock_excludes_another_process(tmp_path):
    path = tmp_path / ".lock"
    code = (
        "import sys, pathlib; from qoejax.run import files\n"
        "with files.locked(pathlib.Path(sys.argv[1]), 'workdir'): pass"
    )
    with files.locked(path, "workdir"):
        held = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
        )
    free = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert held.returncode != 0
    assert "in use by another process" in held.stderr
    assert free.returncode == 0
