import json

from experiments.bench import log


def test_the_benchmark_prints_complete_lines(capsys):
    log.main(["--signers", "openssl", "--clients", "2", "--size", "400", "--rounds", "1"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["bench"] for row in rows] == ["log", "witness", "audit"]
    assert rows[0]["entries"] == 4
    assert rows[0]["ratio"] > 0
    assert rows[1]["cpu_ms"] > 0
    assert rows[2]["entries"] == 1 + 2 + 2 * 4
