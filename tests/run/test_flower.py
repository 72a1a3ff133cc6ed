"""A run over Flower, every client a process, with a network that meddles."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

from qoejax.run import flower, network, verify
from qoejax.run.errors import RunError
from qoejax.run.train import train
from tests.run.conftest import tiny_config

HERE = pathlib.Path(__file__).resolve().parents[2]
N = 3

needs_flower = pytest.mark.skipif(
    not flower.installed(),
    reason="flwr is not installed: it needs an environment of its own (docs/flower.md)",
)

CONFIG = """\
from tests.run.conftest import tiny_config


def get_config():
    return tiny_config({data!r}, exchange={{"mode": "pqc", "signer": "openssl"}})
"""


@pytest.mark.skipif(flower.installed(), reason="flwr is installed")
def test_without_flower_the_commands_say_what_to_do(data_dir, tmp_path):
    gate = network.Gate(None)
    with pytest.raises(RunError, match="an environment of its own with qoejax\\[flower\\]"):
        flower.serve("127.0.0.1:0", gate, dict)
    with pytest.raises(RunError, match="Flower cannot be imported"):
        flower.attend("127.0.0.1:0", bytes, 1.0)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("flower_server", (), "expected either --registry=FILE and --authority=KEY"),
        ("flower_client", ("--client=0",), "expected either --server=ID"),
    ],
)
def test_bad_flags_are_one_sentence(tmp_path, name, args, message):
    done = command(name, "--config=configs/quickstart.py", f"--workdir={tmp_path}", *args)
    _, error = done.communicate(timeout=300)
    assert done.returncode != 0
    assert error.startswith("error: ")
    assert message in error


def command(name, *args, module="experiments"):
    return subprocess.Popen(
        [sys.executable, "-m", f"{module}.{name}", *args], cwd=HERE, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(HERE)},
    )  # fmt: skip


@pytest.fixture
def started():
    """``command``, whose processes end with the test."""
    alive = []

    def start(*args, **options):
        alive.append(command(*args, **options))
        return alive[-1]

    yield start
    for process in alive:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def simulated(data_dir, tmp_path_factory):
    """Config file, and digest of the parameters of the simulated run."""
    folder = tmp_path_factory.mktemp("simulated")
    path = folder / "config.py"
    path.write_text(CONFIG.format(data=str(data_dir)))
    config = tiny_config(data_dir, exchange={"mode": "pqc", "signer": "openssl"})
    return path, train(config, folder / "run")["params_sha256"]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def clients(started, config, folder, address, fault=None):
    """The processes: client 1 behind ``fault``, the others as documented."""
    out = []
    for i in range(N):
        if fault is not None and i == 1:
            args = (config, folder / "1", 1, address, fault, "flower")
            out.append(started("faulty_client", *map(str, args), module="tests.run"))
        else:
            out.append(
                started(
                    "flower_client", f"--config={config}", f"--workdir={folder / str(i)}",
                    f"--client={i}", f"--address={address}", "--trust_on_first_use",
                )
            )  # fmt: skip
    return out


def server(started, config, folder, address, seconds=100):
    return started(
        "flower_server", f"--config={config}", f"--workdir={folder / 'server'}",
        f"--address={address}", "--trust_on_first_use", f"--round_seconds={seconds}",
    )  # fmt: skip


def ended(process, folder):
    """Summary, wire rows and what verify finds, once the server ends by itself."""
    out, error = process.communicate(timeout=500)
    assert process.returncode == 0, error
    rows = (folder / "server" / "metrics.jsonl").read_text().splitlines()
    return json.loads(out), [json.loads(r)["wire"] for r in rows], verify.verify(folder / "server")


@needs_flower
@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "accepted", "refused"),
    [
        (None, [3, 3, 3, 3], {}),
        ("delay", [3, 3, 3, 3], {}),
        ("replay", [3, 3, 3, 3], {"ROUND": 3}),
        ("forge", [3, 3, 3, 3], {"DECRYPT": 4}),
        ("reorder", [3, 2, 3, 3], {"ROUND": 1, "FORMAT": 0}),
    ],
    ids=str,
)
def test_over_flower(started, simulated, tmp_path, fault, accepted, refused):
    config, digest = simulated
    address = f"127.0.0.1:{free_port()}"
    process = server(started, config, tmp_path, address)
    others = clients(started, config, tmp_path, address, fault)
    summary, wire, found = ended(process, tmp_path)
    assert [w["accepted"] for w in wire] == accepted
    assert (summary["params_sha256"] == digest) == (sum(accepted) == 12)
    for code, count in refused.items():
        assert sum(w["rejected"].get(code, 0) for w in wire) == count
    assert found["ok"]
    assert found["updates"] == sum(accepted)
    for other in others:
        other.communicate(timeout=60)
        assert other.returncode == 0


@needs_flower
@pytest.mark.slow
def test_a_killed_client_is_waited_for_and_goes_on(started, simulated, tmp_path):
    """Killed when its third update is sealed, and not yet sent."""
    config, digest = simulated
    address = f"127.0.0.1:{free_port()}"
    process = server(started, config, tmp_path, address, seconds=300)
    victim = clients(started, config, tmp_path, address, "die")[1]
    assert victim.wait(timeout=500) == -signal.SIGKILL
    time.sleep(1.0)
    started(
        "flower_client", f"--config={config}", f"--workdir={tmp_path / '1'}", "--client=1",
        f"--address={address}", "--trust_on_first_use",
    )  # fmt: skip
    summary, wire, found = ended(process, tmp_path)
    assert summary["params_sha256"] == digest
    assert [w["network"]["lost"] for w in wire][2] >= 1
    assert found["ok"]


@needs_flower
@pytest.mark.slow
def test_a_killed_server_goes_on_from_its_checkpoint(started, simulated, tmp_path):
    """Killed in the fourth round; clients find the one that is started again by themselves."""
    config, digest = simulated
    address = f"127.0.0.1:{free_port()}"
    first = server(started, config, tmp_path, address)
    others = clients(started, config, tmp_path, address, "stall")
    rows, end = tmp_path / "server" / "metrics.jsonl", time.monotonic() + 500
    while not (rows.exists() and len(rows.read_text().splitlines()) >= 2):
        assert time.monotonic() < end, "the first two rounds did not end"
        time.sleep(0.2)
    time.sleep(5.0)
    first.kill()
    summary, wire, found = ended(server(started, config, tmp_path, address), tmp_path)
    assert summary["params_sha256"] == digest
    assert [w["accepted"] for w in wire] == [3] * 4
    assert found["ok"]
    assert found["runs"] == 2
    for other in others:
        other.communicate(timeout=60)
        assert other.returncode == 0
