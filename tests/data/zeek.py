"""Made-up records in the form of TON_IoT's full network files (46 columns, ``ts`` first).

``python -m tests.data.zeek`` rewrites the builder's dummy_windows folder.
"""

import numpy as np

from qoejax.data.schema import ton_iot, ton_iot_windows
from tests.data import dummy

HEADER = (
    "ts",
    *(c.name for c in ton_iot.COLUMNS if not c.name.startswith(("http", "weird"))),
    *("http_trans_depth", "http_method", "http_uri", "http_referrer", "http_version"),
    *("http_request_body_len", "http_response_body_len", "http_status_code", "http_user_agent"),
    *("http_orig_mime_types", "http_resp_mime_types"),
    *("weird_name", "weird_addl", "weird_notice", "label", "type"),
)
START = 1_556_485_532


def record(ts, **cells):
    """One row; what is not given is "-", or 0 in a number."""
    blank = {c.name: "0" for c in ton_iot_windows.RECORDS.columns if c.name in ton_iot_windows.SUMS}
    given = {"ts": str(ts), "proto": "tcp", "conn_state": "SF", "type": "normal"} | cells
    given["label"] = str(int(given["type"] != "normal"))
    return [str((blank | given).get(name, "-")) for name in HEADER]


def capture(start, seconds, rng, attack="dos"):
    """Records of some minutes: DNS and HTTP of benign hosts, an attack in the middle third."""
    rows = []
    for s in range(seconds):
        for _ in range(rng.poisson(1.0)):
            dns = rng.random() < 0.7
            rows.append(
                record(
                    start + s,
                    src_ip=f"192.0.2.{rng.integers(1, 6)}",
                    dst_ip=f"198.51.100.{rng.integers(1, 4)}",
                    src_port=rng.integers(1024, 60000),
                    dst_port="53" if dns else "80",
                    proto="udp" if dns else "tcp",
                    service="dns" if dns else "http",
                    duration=f"{rng.lognormal(-3, 2):.6f}",
                    conn_state=rng.choice(["SF", "SF", "SF", "S0", "SHR" if dns else "S1"]),
                    **{name: rng.integers(0, 3000) for name in ton_iot_windows.SUMS[1:]},
                )
            )
        if seconds <= 3 * s < 2 * seconds:
            rows += [
                record(
                    start + s,
                    src_ip="203.0.113.7",
                    dst_ip="198.51.100.1",
                    dst_port=rng.integers(1, 1000),
                    conn_state="REJ",
                    src_pkts=1,
                    src_ip_bytes=48,
                    type=attack if rng.random() < 0.8 else "scanning",
                )
                for _ in range(rng.poisson(2.0))
            ]
    return rows


def captures(count=5, seconds=400, seed=0, pause=7200):
    """Rows of several captures, with a pause of ``pause`` seconds between."""
    rng = np.random.default_rng(seed)
    step = seconds + pause
    return [row for i in range(count) for row in capture(START + i * step, seconds, rng)]


def write(path, rows):
    return dummy.write(path, [HEADER, *rows])


if __name__ == "__main__":
    write(
        dummy.BUILDERS / "ton_iot/dummy_windows/Network_dataset_1.csv",
        captures(count=5, seconds=90),
    )
