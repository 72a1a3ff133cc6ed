"""Strict mode in whole runs, the threads that it needs, and repeating a run from its manifest."""

import os
import shutil
import subprocess
import sys

import jax
import pytest

from qoejax.run import files, runtime
from qoejax.run.errors import RunError
from qoejax.run.repeat import repeat
from qoejax.run.train import train
from tests.run.conftest import tiny_config

WIRE = {"mode": "pqc", "signer": "openssl"}


def perf(**values):
    here = runtime.pool_size() or jax.local_device_count()
    return {"client_axis": "strict", "threads": here, "devices": 0, "chunk": 3, **values}


@pytest.fixture(scope="module")
def strict_run(data_dir, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("strict") / "w"
    return workdir, train(tiny_config(data_dir, perf=perf()), workdir)


@pytest.mark.slow
def test_the_wire_changes_no_bit(strict_run, data_dir, tmp_path):
    wired = train(tiny_config(data_dir, perf=perf(), exchange=WIRE), tmp_path / "w")
    assert wired["params_sha256"] == strict_run[1]["params_sha256"]


@pytest.mark.slow
def test_a_run_is_repeated_from_its_manifest_in_other_blocks(strict_run, tmp_path):
    workdir, first = strict_run
    record = files.read_json(workdir / "manifest.json", "the manifest of a run")
    record["config"]["perf"]["rounds_per_dispatch"] = 3
    files.write_json(tmp_path / "manifest.json", record)
    result = repeat(tmp_path / "manifest.json", tmp_path / "w")
    assert result["same_bits"]
    assert result["guarantee"] == "strict"
    assert result["changed"] == []
    assert result["params_sha256"] == first["params_sha256"]


def test_a_run_without_a_digest_is_not_repeated(tmp_path):
    files.write_json(tmp_path / "manifest.json", {"config": {}})
    with pytest.raises(RunError, match="has no params_sha256: expected the manifest of a finished"):
        repeat(tmp_path / "manifest.json", tmp_path / "w")


@pytest.mark.slow
@pytest.mark.parametrize("done", [1, 2, 3])
def test_checkpoints_of_any_round_lead_to_the_same_bits(data_dir, tmp_path, done):
    config = tiny_config(data_dir, perf=perf(), checkpoint={"every": 1, "keep": 9})
    first = train(config, tmp_path / "w")
    for later in range(done + 1, 5):
        shutil.rmtree(tmp_path / "w" / "checkpoints" / str(later))
    assert train(config, tmp_path / "w")["params_sha256"] == first["params_sha256"]


# Threads.


def test_threads_are_fixed_before_jax_starts():
    code = (
        "from qoejax.run import runtime; before = runtime.started(); runtime.fix_threads(3, 2); "
        "import jax; jax.devices(); print(before, runtime.started(), runtime.pool_size())"
    )
    env = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "PJRT_NPROC", "NPROC")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() in (["False", "True", "3"], ["False", "True", "None"])


def test_another_number_of_threads_or_too_few_is_refused(data_dir, tmp_path):
    assert jax.devices()  # JAX has started
    with pytest.raises(RunError, match=r"threads is 99, but JAX has started with \d+: train in a"):
        train(tiny_config(data_dir, perf=perf(threads=99)), tmp_path / "w")
    with pytest.raises(RunError, match=r"threads is 2: expected at least .*devices \(3\)"):
        train(tiny_config(data_dir, perf=perf(threads=2, devices=3)), tmp_path / "w")
    assert not (tmp_path / "w" / "manifest.json").exists()
