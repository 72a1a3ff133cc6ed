"""Benchmarks run and print what they promise; how fast they are is not tested."""

import json
import subprocess
import sys

import pytest


def lines(name, *args):
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.bench.{name}", *args],
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_rounds():
    off, on, total = lines(
        "rounds", "--clients=2", "--rows=16", "--rounds=1", "--signers=openssl", "--axis=turn"
    )
    assert (off["wire"], on["wire"]) == ("off", "openssl")
    assert off["ratio"] == 1.0
    for row in (off, on):
        assert row["seconds"] >= row["minimum"] > 0
        assert row["versions"]["jax"]
    assert on["bytes_up"] == 2 * (4663 + 4 * on["params"])
    assert on["wire_share"] == pytest.approx(1 - 1 / on["ratio"])
    assert 0 <= on["wait_share"] <= 1
    assert set(total["ratios"]) == {"2/turn/off", "2/turn/openssl"}


@pytest.mark.slow
def test_wire():
    rows = lines("wire", "--repeats", "2")
    assert rows
    assert all(isinstance(row, dict) for row in rows)


@pytest.mark.slow
def test_prepare(tmp_path):
    files, prepared, equal, loaded, summary = lines("prepare", "--rows=3000", f"--dir={tmp_path}")
    assert files["rows"] == prepared["rows"] == 3000
    assert 270 < files["raw_bytes_per_row"] < 320
    assert loaded["rows"] < 3000
    for row in (prepared, equal):
        assert row["cpu_s"] > 0
        assert 50 < row["peak_mb"] < 1000
    assert set(summary["targets"]) < set(summary)
    assert not any(tmp_path.iterdir())
