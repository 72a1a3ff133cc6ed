"""A prepared tiny dataset and one finished run, shared by the tests of this folder."""

import pathlib

import pytest

from configs import base
from qoejax.run.train import train


def tiny_config(data_dir, **sections):
    """Three sites of the simulated network, a small MLP, four rounds; sections override keys."""
    c = base.get_config()
    c.data.update(name="simulated_iot/tiny", dir=str(data_dir), features=12)
    c.clients.update(partition="natural", count=3)
    c.model = {"net": "mlp", "width": 8, "depth": 1}
    c.fed.rounds = 4
    c.client.update(batch=32, lr=0.01)
    c.evaluation.every = 2
    c.checkpoint.every = 2
    c.perf.update(client_axis="turn", rounds_per_dispatch=2)
    for name, values in sections.items():
        c[name].update(values)
    return c.lock()


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="session")
def wired_run(data_dir, tmp_path_factory):
    """(workdir, summary) of a finished run with the wire on."""
    workdir = tmp_path_factory.mktemp("runs") / "wired"
    config = tiny_config(data_dir, exchange={"mode": "pqc", "signer": "openssl"})
    return workdir, train(config, workdir)
