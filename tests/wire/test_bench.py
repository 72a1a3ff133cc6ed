import json

from experiments.bench import wire


def test_the_benchmark_prints_complete_lines(capsys):
    wire.main(["--sizes", "4000", "--repeats", "1", "--clients", "2", "--rounds", "1"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kinds = [(row["bench"], row["signer"]) for row in rows]
    assert kinds == [
        ("envelope", "pqcrypto"),
        ("envelope", "openssl"),
        *[("exchange", "pqcrypto")] * 4,
        *[("exchange", "openssl")] * 4,
    ]
    for row in rows[:2]:
        assert row["extra_bytes"] == 4663
        assert row["seal_ms"] >= row["parts_ms"]["sign"] > 0
    for row in rows[2:]:
        assert row["bytes_up"] == 2 * (4000 + 4663)
        assert row["updates_per_s"] > 0
    assert {"python", "cores", "versions"} <= set(rows[0])
