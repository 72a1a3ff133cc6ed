"""Audits of prepared datasets and of runs, the gate, and the reports of both."""

import html.parser
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from qoejax.data import audit as audits
from qoejax.data.audit import forest
from qoejax.data.errors import DataError
from qoejax.run import audit, files, model
from qoejax.run.errors import RunError
from tests.data import dummy

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def small_forest(monkeypatch):
    monkeypatch.setattr(forest, "TREES", 9)


@pytest.fixture(scope="module")
def of_run(wired_run):
    """What is found in the splits of a finished run."""
    trained = model.load(wired_run[0])
    return trained, audit.of_run(trained)


def test_a_run_passes_or_fails_by_ten_points(wired_run, of_run, tmp_path):
    workdir, summary = wired_run
    trained, found = of_run
    _, best = found.best
    for score, passed in ((best + 0.11, True), (best + 0.09, False), (best - 0.1, False)):
        files.write_json(tmp_path / "evaluation.json", {"macro_f1": score})
        gate = audit.gate(found, tmp_path, trained.spec)
        assert gate["passed"] is passed
    gate = audit.gate(found, workdir, trained.spec)
    assert gate["model"] == summary["macro_f1"]
    with pytest.raises(RunError, match=r"evaluation\.json is missing"):
        audit.gate(found, tmp_path / "none", trained.spec)
    with pytest.raises(RunError, match="no sentinel can be held against the model: too few"):
        audit.gate(found._replace(best=None, why="too few"), workdir, trained.spec)


def test_a_dataset_is_audited_on_the_columns_that_a_model_sees(data_dir, of_run):
    found = audit.of_dataset("simulated_iot/tiny", str(data_dir), "", (), ("Rate",))
    assert "Rate" not in found.default_names
    assert found.other_columns == 1
    assert found.scores.neighbours.equal == 0.0
    assert "Rate" in of_run[1].default_names
    with pytest.raises(DataError, match="has no column 'Rte' to drop"):
        audit.of_dataset("simulated_iot/tiny", str(data_dir), "", (), ("Rte",))


class _Page(html.parser.HTMLParser):
    """Checks that tags close in order, and that nothing is loaded from elsewhere."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], []

    def handle_starttag(self, tag, attrs):
        assert not {"src", "href"} & {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_reports_hold_all_findings(of_run, tmp_path):
    trained, found = of_run
    odd = audits.Finding("leak", "window size", "other", "<b>", 1.0, float("nan"), "a & b")
    found = found._replace(findings=(*found.findings, odd))
    files.write_json(tmp_path / "evaluation.json", {"macro_f1": 0.9})
    gate = audit.gate(found, tmp_path, trained.spec)
    paths = audit.write(tmp_path / "out", "a <dataset>", found, gate)
    data = json.loads(pathlib.Path(paths["json"]).read_text())
    assert [f["column"] for f in data["findings"]] == [f.column for f in found.findings]
    assert data["leaks"]["other"] == [{"column": "<b>", "rule": "window size", "value": 1.0}]
    assert {r["column"] for r in data["rules"]} == {c.name for c in trained.spec.columns}
    page = _Page()
    page.feed(pathlib.Path(paths["html"]).read_text())
    assert not page.open
    text = "".join(page.text)
    assert "Leakage audit: a <dataset>" in text
    assert "a & b" in text
    told = audit.text(found, gate)
    assert "leak  other: window size" in told
    assert "gate  " in told
    unscored = found._replace(scores=None, best=None, why="too few rows", findings=())
    assert "too few rows" in audit.text(unscored, None)
    audit.write(tmp_path / "out", "empty", unscored, None)
    assert "too few rows" in (tmp_path / "out" / "audit.html").read_text()


def test_any_file_is_audited_or_refused_in_one_sentence(tmp_path):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 400)
    rows = [
        ["leak", "x", "label"],
        *([str(y), str(x), f"c{y}"] for y, x in zip(label, rng.random(400), strict=True)),
    ]
    path = dummy.write(tmp_path / "a.csv", rows)
    found = audit.of_files([path], label="label")
    assert {f.column for f in audits.leaks(found)} == {"leak"}
    assert audits.leaks(audit.of_files([path], label="label", drop=["leak"]), "default") == []
    with pytest.raises(RunError, match="needs --label=COLUMN or --target=COLUMN"):
        audit.of_files([path])
    with pytest.raises(DataError, match="has no column 'lable'"):
        audit.of_files([path], label="lable")


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "experiments.audit", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_the_command_fails_where_a_sentinel_is_as_good(wired_run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(wired_run[0], workdir, ignore=shutil.ignore_patterns("checkpoints", "keys"))
    evaluation = files.read_json(workdir / "evaluation.json", "")
    files.write_json(workdir / "evaluation.json", evaluation | {"macro_f1": 0.2})
    done = command(f"--workdir={workdir}")
    assert done.returncode == 1
    assert json.loads(done.stdout)["gate"]["passed"] is False
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "this split says little about the model" in done.stderr
    refused = command("--input=none.csv", "--label=x")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "error: none.csv: is neither a file nor a folder.\n"
