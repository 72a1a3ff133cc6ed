"""Benchmarks run and print what they promise; how fast they are is not tested."""

import json
import subprocess
import sys

import pytest

from experiments.bench import products


def lines(name, *args):
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.bench.{name}", *args],
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_wired_rounds():
    off, on, total = lines(
        "wired_rounds", "--clients=2", "--rows=16", "--rounds=1", "--signers=openssl", "--axis=turn"
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
def test_strict():
    row, total = lines("strict", "--clients=2", "--rows=16", "--rounds=1", "--net=linear")
    assert set(row["seconds"]) == set(row["compile_s"]) == {"shard", "strict"}
    assert row["ratio"] == pytest.approx(row["seconds"]["strict"] / row["seconds"]["shard"])
    assert total["ratio"] == row["ratio"]
    assert row["threads"] in (None, 8)


@pytest.mark.slow
def test_rounds():
    small = ("--models=mlp", "--clients=2", "--population=3", "--rows=64", "--steps=2")
    *rows, total = lines(
        "rounds", *small, "--rotations=2", "--recompile_rounds=3", "--contenders=vmap,torch_1"
    )
    ours, vmap, torch = rows
    assert [row["contender"] for row in rows] == ["qoejax", "vmap", "torch_1"]
    assert (ours["ratio"], ours["compilations"], ours["params"]) == (1.0, 0, 16_482)
    assert 0 < ours["compile_s"] <= ours["first_s"]
    assert vmap["rounds"] == 2
    assert vmap["ratio_fastest"] == pytest.approx(vmap["minimum"] / ours["minimum"])
    assert ("ratio" in torch) != ("torch is not installed" in torch.get("error", ""))
    assert total["ratios_fastest"]["mlp/2"]["vmap"] == vmap["ratio_fastest"]


def test_products_are_those_that_are_counted():
    sizes = {"width": 64, "embed_size": 8, "frequencies": 24, "stride": 4, "kernel": 4, "mlp": 128}
    sizes |= {"depth": 2, "hidden": 128}
    listed = products.shapes(sizes, 46, 34, 32)
    assert len(listed) == 1 + 2 + 2 * 4 + 2
    once = sum(g * m * k * n for g, m, k, n in listed)
    scores = 32 * 2 * 2 * 3 * 3 * 64  # records, blocks, two products of 3 by 3 tokens
    assert 3 * 2 * (once + scores) == products.matmul_flops(sizes, 46, 34, 32)


@pytest.mark.slow
def test_roofline():
    row, total = lines(
        "roofline", "--clients=2", "--steps=1", "--rows=32", "--repeats=1", "--size=64"
    )
    assert 0.8 * row["step_mflop_xla"] < row["step_mflop"] < row["step_mflop_xla"]
    assert 0 < row["fraction"] < row["fraction_xla"]
    assert row["gflops"] / row["peak_gflops"] == pytest.approx(row["fraction"])
    assert total["fractions"] == {"2/0/1": row["fraction"]}


@pytest.mark.slow
def test_attention():
    row, total = lines("attention", "--tokens=3", "--calls=2", "--turns=1")
    assert row["us"]["jax"] / row["us"]["ours"] == pytest.approx(row["ratio"])
    assert total["ratios"] == {"3": row["ratio"]}


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


@pytest.mark.slow
def test_simulator():
    one, two, total = lines("simulator", "--chunks=1,4", "--episodes=8")
    assert (one["chunk"], two["chunk"]) == (1, 4)
    for row in (one, two):
        assert row["episodes"] == 8
        assert row["seconds"] > 0
        assert row["cpu_s"] > 0
        assert row["episodes_per_s"] == pytest.approx(8 / row["seconds"])
        assert row["versions"]["jax"]
    assert one["ratio"] == 1.0
    assert total["fastest_chunk"] in (1, 4)


@pytest.mark.slow
def test_forecast(tmp_path):
    *rows, total = lines(
        "forecast", "--dataset=simulated_iot/tiny", f"--data_dir={tmp_path}", "--iterations=2"
    )
    assert len(rows) == 20
    assert all(0 <= row["now_rmse"] < 2 for row in rows)
    assert ["skill" in row for row in rows[:5]] == [False, True, True, True, True]
    assert 0 <= total["now_macro_f1"] <= 1


@pytest.mark.slow
def test_captures():
    small, large, ratio = lines("captures", "--packets=20000")
    assert (small["packets"], large["packets"]) == (2000, 20_000)
    assert large["windows"] == 1000
    for row in (small, large):
        assert row["packets_per_cpu_second"] > 0
        assert row["megabytes_peak"] >= row["megabytes_before"] > 0
    assert ratio["packets_ratio"] == 10


@pytest.mark.slow
def test_rules():
    *rows, total = lines(
        "rules", "--clients=5", "--memory=7", "--repeats=1", "--steps=1",
        "--rules=coordinate_median,krum",
    )  # fmt: skip
    by_name = {row["rule"]: row for row in rows}
    assert set(by_name) == {"coordinate_median", "coordinate_median by sort", "krum", "round"}
    assert set(total["rules"]) == set(by_name)
    median, krum = by_name["coordinate_median"], by_name["krum"]
    assert median["by_sort"] > 0
    assert "by_sort" not in krum
    for row in (median, krum):
        assert row["seconds"] >= row["minimum"] > 0
        assert row["of_round"] == pytest.approx(row["seconds"] / by_name["round"]["seconds"])
        assert row["temp_mb_many"] > 0


@pytest.mark.slow
def test_scaleout():
    *rows, total = lines("scaleout", "--clients=2", "--rows=16", "--rounds=1", "--repeats=1")
    assert [row["layout"] for row in rows] == list(total["ratios"])
    assert [(r["processes"], r["mesh_devices"]) for r in rows] == [(1, 1), (1, 2), (2, 2)]
    assert rows[0]["ratio"] == 1.0
    assert rows[1]["same_bits"]
    assert rows[2]["same_bits"]


@pytest.mark.slow
def test_compile():
    row, total = lines("compile", "--models=mlp", "--clients=4")
    assert total["ratios"] == {"mlp": row["ratio"]}
    assert row["ratio"] == pytest.approx(row["cold_compile_s"] / row["warm_compile_s"])
    assert row["ratio"] > 1


@pytest.mark.slow
def test_sweep():
    *rows, total = lines(
        "sweep", "--models=mlp", "--axis=turn", "--seeds=2", "--clients=3", "--steps=1",
        "--rounds=1",
    )  # fmt: skip
    assert [row["at_once"] for row in rows] == [2, 1]
    assert all(row["sweep_seconds"] > 0 and row["singles_seconds"] > 0 for row in rows)
    assert total["ratios"].keys() == {"mlp/turn/2 at once", "mlp/turn/1 at once"}


@pytest.mark.slow
def test_scale():
    rows = lines(
        "scale", "--cohorts=2,4", "--rounds=1", "--rows=200", "--clients=4", "--alphas=0.3",
        "--registered=50",
    )  # fmt: skip
    first, second, staged, small, large, total = rows
    assert [row["part"] for row in rows[:-1]] == ["start", "start", "staging", "round", "round"]
    assert first["state_mb"] == 0 < second["state_mb"]
    assert 1 <= staged["ratio"] < 1.1
    assert staged["home_ratio"] >= 1
    assert (small["time_ratio"], small["memory_ratio"]) == (1, 1)
    assert total["memory_ratio"] == large["memory_ratio"] < 1.1


@pytest.mark.slow
def test_latency():
    row, total = lines("latency", "--calls=10")
    us = row["microseconds"]
    assert row["ratio"] == total["ratio"] > 0
    assert row["ratio"] == pytest.approx(
        us["joint"]["p99"] / (us["class_twin"]["p99"] + us["mos_twin"]["p99"])
    )
    many, total = lines(
        "latency", "--mode=throughput", "--rows=64", "--batches=32", "--repeats=1", "--size=64",
        "--nets=small",
    )  # fmt: skip
    assert total["records_per_s_and_fraction"]["small/32"][0] == many["records_per_s"] > 0
    assert many["fraction"] == pytest.approx(many["gflops"] / many["peak_gflops"])


@pytest.mark.slow
def test_detect():
    small, large, live, total = lines("detect", "--packets=2000", "--rates=200", "--for_s=1")
    assert (small["packets"], large["packets"], live["packets"]) == (200, 2000, 200)
    assert large["windows"] == 100
    assert live["latency_s"]["p99"] >= live["latency_s"]["p50"] > 0
    assert total["latency_s"] == {"200": live["latency_s"]}
    assert total["packets_per_s"] == large["packets_per_s"] > 0
