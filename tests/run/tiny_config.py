"""The tiny run as a config file, for tests of the commands; rounds enough to be killed within."""

from tests.run.conftest import tiny_config


def get_config():
    return tiny_config(
        "", fed={"rounds": 40}, exchange={"mode": "pqc", "signer": "openssl"},
        evaluation={"every": 5}, checkpoint={"every": 2},
    )  # fmt: skip
