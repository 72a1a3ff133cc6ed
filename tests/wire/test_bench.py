import json

from experiments.bench import secagg, wire


def test_the_benchmark_prints_complete_lines(capsys):
    arguments = ["--sizes", "4000", "--size", "4000", "--repeats", "1", "--clients", "2"]
    wire.main([*arguments, "--rounds", "1", "--suites", "0x0001", "0x0005", "0x01ff"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kinds = [(row["bench"], row.get("suite"), row["signer"]) for row in rows]
    assert kinds == [
        ("envelope", "0x0001", "pqcrypto"),
        ("envelope", "0x0001", "openssl"),
        ("envelope", "0x0005", "pqcrypto"),
        ("envelope", "0x01ff", "pqcrypto"),
        ("envelope", "0x01ff", "openssl"),
        ("session", "0x0001", "pqcrypto"),
        *[("exchange", None, "pqcrypto")] * 4,
        *[("exchange", None, "openssl")] * 4,
    ]
    assert [row["extra_bytes"] for row in rows[:6]] == [4663, 4663, 18442, 218, 218, 234]
    assert rows[1]["ratio_seal"] == rows[1]["ratio_open"] == 1
    for row in rows[:2]:
        assert row["seal_ms"] >= row["parts_ms"]["sign"] > 0
    for row in rows[6:]:
        assert row["bytes_up"] == 2 * (4000 + 4663)
        assert row["updates_per_s"] > 0
    assert {"python", "cores", "versions"} <= set(rows[0])


def test_the_benchmark_of_secure_aggregation_prints_complete_lines(capsys):
    secagg.main(["--clients=8", "--degree=0", "--leave=1", "--words=50", "--repeats=1"])
    *rows, device = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["fresh"], row["evidence"]) for row in rows] == [
        (True, True), (False, True), (True, False), (False, False),
    ]  # fmt: skip
    for row in rows:
        assert row["bench"] == "secagg"
        assert (row["degree"], row["threshold"]) == (7, 5)
        assert row["client_ms"] >= row["client_min_ms"] > 0
        assert row["up_bytes"] > 0
    assert rows[0]["client_ms"] > rows[1]["client_ms"]
    assert rows[0]["up_bytes"] > rows[1]["up_bytes"] > rows[3]["up_bytes"]
    assert device["bench"] == "secagg_device"
    assert device["cpu_s"] > 0
