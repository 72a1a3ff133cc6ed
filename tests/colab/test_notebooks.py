import pathlib

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

COLAB = pathlib.Path(__file__).parents[2] / "colab"
SOURCES = sorted(COLAB.glob("*.py"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_notebook_is_its_source(source):
    """The .ipynb is what jupytext makes of the .py: same cells, no outputs."""
    made = jupytext.read(source)
    kept = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    assert [(c.cell_type, c.source) for c in kept.cells] == [
        (c.cell_type, c.source) for c in made.cells
    ]
    assert not any(c.get("outputs") for c in kept.cells)


@pytest.mark.slow
@pytest.mark.notebook
@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_notebook_runs_with_tiny_settings(source, tmp_path, monkeypatch):
    monkeypatch.setenv("QOEJAX_WORKDIR", str(tmp_path))
    monkeypatch.setenv("QOEJAX_DATASET", "simulated_iot/tiny")
    monkeypatch.setenv("QOEJAX_ROUNDS", "2")
    monkeypatch.setenv("QOEJAX_CLIENTS", "3")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    notebook = jupytext.read(source)
    NotebookClient(notebook, timeout=280, kernel_name="python3").execute(cwd=str(tmp_path))
    last = "".join(o.get("text", "") for o in notebook.cells[-1].outputs)
    assert "macro-F1" in last
    assert (tmp_path / "hybrid" / "report.html").exists()
    pictures = [o for c in notebook.cells for o in c.get("outputs", []) if "image/png" in str(o)]
    assert pictures
