import json
import os
import subprocess
import sys

import pytest

TOLERANCE = 1e-6
"""Of parameters and client states of size 1 after three rounds of at most five steps."""


@pytest.mark.slow
@pytest.mark.multidevice
def test_meshes_of_2_4_and_8_devices_agree_with_one():
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    done = subprocess.run(
        [sys.executable, "-m", "tests.fed.meshes", "8"], capture_output=True, text=True,
        check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {(r["case"], r["devices"]) for r in rows} == {
        (case, n) for case in ("fedavg", "scaffold", "median") for n in (2, 4, 8)
    }
    for r in rows:
        assert r["far"] < TOLERANCE, r
        assert r["moved"] > 0.05, r
