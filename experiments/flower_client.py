"""One client of a run over Flower, as a process of its own; ends when the run does.

python -m experiments.flower_client --config=configs/quickstart.py --workdir=runs/client-3 \
    --client=3 --trust_on_first_use

--config and its overrides are the server's. With --server=ID the client answers that server only;
the server prints its id when it starts. Killed and started again, it goes on (docs/flower.md).
"""

import pathlib
from typing import Any

from absl import flags

from experiments import cli

_CONFIG = cli.define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "The client's own folder; made if missing.")
_CLIENT = flags.DEFINE_integer("client", None, "Number of the client, from 0.", lower_bound=0)
_ADDRESS = flags.DEFINE_string("address", "127.0.0.1:8080", "HOST:PORT of the server.")
_SERVER = flags.DEFINE_string("server", None, "Id of the server, hexadecimal.")
_FIRST_USE = flags.DEFINE_bool(
    "trust_on_first_use", False, "Pin the first server that is met; for trials."
)
_PATIENCE = flags.DEFINE_float("patience", 300.0, "Seconds without a server before giving up.")
flags.mark_flags_as_required(["config", "workdir", "client"])


def main() -> dict[str, Any]:
    """Takes part until the run is over."""
    from qoejax.run.errors import RunError

    if (_SERVER.value is None) != _FIRST_USE.value:
        raise RunError("expected either --server=ID, or --trust_on_first_use for a trial")

    from qoejax.run import build, cache, flower, node  # JAX comes with them

    cache.keep_compiled()
    build.set_devices(_CONFIG.value)
    workdir, client = pathlib.Path(str(_WORKDIR.value)), int(str(_CLIENT.value))
    answer = node.open_node(_CONFIG.value, workdir, client, _SERVER.value)
    flower.attend(_ADDRESS.value, answer, _PATIENCE.value)
    return {"workdir": str(workdir), "client": client}


if __name__ == "__main__":
    cli.run(main)
