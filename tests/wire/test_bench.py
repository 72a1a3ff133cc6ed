import json

from experiments.bench import wire


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
