"""Compressed updates on the wire: fewer bytes, the same bits as without the wire."""

import pytest

from qoejax.run import writer
from qoejax.run.train import train

from .conftest import tiny_config


@pytest.mark.slow
@pytest.mark.parametrize("method", ["int4", "top_k"])
def test_wired_and_fused_agree_and_fewer_bytes_travel(method, data_dir, wired_run, tmp_path):
    compress = {"method": method, "fraction": 0.1}
    wire = {"mode": "pqc", "signer": "openssl"}
    wired = train(tiny_config(data_dir, compress=compress, exchange=wire), tmp_path / "wired")
    fused = train(tiny_config(data_dir, compress=compress), tmp_path / "fused")
    assert wired["params_sha256"] == fused["params_sha256"] != wired_run[1]["params_sha256"]
    plain, small, same = (
        writer.read_rows(folder / "metrics.jsonl")
        for folder in (wired_run[0], tmp_path / "wired", tmp_path / "fused")
    )
    for before, after, beside in zip(plain, small, same, strict=True):
        assert after["wire"]["accepted"] == 3
        saved = before["update_bytes"] - after["update_bytes"]
        assert after["update_bytes"] == beside["update_bytes"] < 0.25 * before["update_bytes"]
        assert before["wire"]["bytes_up"] - after["wire"]["bytes_up"] == 3 * saved
