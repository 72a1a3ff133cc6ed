"""Trains with clients that are other processes: the server's end of a run over Flower.

python -m experiments.flower_server --config=configs/quickstart.py --workdir=runs/server \
    --trust_on_first_use

Every client is one experiments.flower_client with the same --config. Enrolled clients only, instead
of whoever comes first: --registry=FILE --authority=KEY (docs/flower.md).
"""

import pathlib
from typing import Any

from absl import flags

from experiments import cli

_CONFIG = cli.define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; made if missing.")
_ADDRESS = flags.DEFINE_string("address", "127.0.0.1:8080", "HOST:PORT to listen on.")
_REGISTRY = flags.DEFINE_string("registry", None, "Registry of those who may take part.")
_AUTHORITY = flags.DEFINE_string("authority", None, "Public key that signed it, hexadecimal.")
_FIRST_USE = flags.DEFINE_bool(
    "trust_on_first_use", False, "Take the first key shown for each client; for trials."
)
_JOIN_SECONDS = flags.DEFINE_float("join_seconds", 600.0, "To wait for all clients.")
_ROUND_SECONDS = flags.DEFINE_float("round_seconds", 120.0, "To wait for a round's answers.")
flags.mark_flags_as_required(["config", "workdir"])


def main() -> dict[str, Any] | None:
    """Trains and returns the summary."""
    from qoejax.run import enrol

    enrolled = enrol.enrolled(_REGISTRY.value, _AUTHORITY.value, _FIRST_USE.value)

    from qoejax.run import cache, flower, network  # JAX comes with them
    from qoejax.run.train import train

    config, workdir = _CONFIG.value, pathlib.Path(str(_WORKDIR.value))
    patience = network.Patience(_JOIN_SECONDS.value, _ROUND_SECONDS.value)
    cache.keep_compiled()
    gate = network.Gate(enrolled, patience)
    return flower.serve(_ADDRESS.value, gate, lambda: train(config, workdir, gate=gate))


if __name__ == "__main__":
    cli.run(main)
