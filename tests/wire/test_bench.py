import json
import ssl

import pytest

from experiments.bench import secagg, wire
from experiments.bench.peers import tls


def test_the_benchmark_prints_complete_lines(capsys):
    arguments = ["--sizes", "4000", "--size", "4000", "--repeats", "1", "--clients", "2"]
    few = ["--words", "40", "--members", "6", "--degree", "4", "--threshold", "3", "--turns", "1"]
    wire.main([*arguments, *few, "--rounds", "1", "--suites", "0x0001", "0x0005", "0x01ff"])
    everything = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    rows, peers = everything[:14], everything[14:]
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
    check_peers(peers)


def check_peers(rows):
    connections, sums = rows[:3], rows[3:]
    assert [row["certificates"] for row in connections] == list(tls.KEYS)
    for row in connections:
        assert row["tls_ms"] >= row["handshake_ms"] > 0
        assert row["extra_bytes"] == 4663 > row["tls_extra_bytes"] > 500
        assert row["ratio_announced"] > row["ratio"] > 0
    ours = [row for row in sums if row["who"] in secagg.OURS]
    assert [row["who"] for row in ours] == list(secagg.OURS)
    assert ours[0]["ratio"]["first"] == ours[1]["ratio"]["epoch"] == 1
    assert {row["who"] for row in sums} == {*secagg.OURS, *secagg.PEERS}
    for row in sums[3:]:
        assert row["up_bytes"] > 160 if "ratio" in row else "is not installed" in row["skipped"]


def test_the_cost_model_is_printed(capsys):
    wire.main(["--model"])
    assert "| lorawan, s |" in capsys.readouterr().out


@pytest.mark.parametrize("kind", list(tls.KEYS))
def test_both_ends_of_the_tls_peer_show_certificates(kind):
    who = tls.parties(kind)
    cost = tls.exchange(who, b"payload" * 5000)
    assert cost.up > 35_000
    assert cost.handshake > 0
    stranger = tls.parties(kind)
    with pytest.raises(ssl.SSLError):
        tls.exchange(tls.Parties(stranger.client, who.server), b"payload")
    with pytest.raises(ssl.SSLError):
        tls.exchange(tls.Parties(who.client, stranger.server), b"payload")


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
