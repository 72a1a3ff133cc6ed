"""One config at many seeds and rates, all at once; means with 95 % intervals over seeds.

python -m experiments.sweep --config=configs/quickstart.py:plain --workdir=runs/seeds --seeds=5
python -m experiments.sweep --config=configs/quickstart.py:plain --workdir=runs/rates --seeds=3
    --over=client.lr=0.001,0.003 --over=server.lr=0.5,1.0
python -m experiments.sweep --config=configs/ton_iot.py --workdir=runs/alpha --seeds=3
    --over=clients.alpha=0.1,1.0 --sequential
"""

import pathlib
from typing import Any

from absl import flags

from experiments import cli

_CONFIG = cli.define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the sweep; made if missing.")
_SEEDS = flags.DEFINE_integer("seeds", 5, "Seeds of each setting, from the config's own on.")
_OVER = flags.DEFINE_multi_string(
    "over", [], "KEY=VALUE,VALUE; again for another key. At once: client.lr, server.lr, fed.mu, "
    "fed.alpha; with --sequential: any key.",
)  # fmt: skip
_AT_ONCE = flags.DEFINE_integer(
    "at_once", 0, "Members under one vmap, 0 for all; 1 suits large networks on CPU."
)
_SEQUENTIAL = flags.DEFINE_bool("sequential", False, "One member after the other.")
flags.mark_flags_as_required(["config", "workdir"])


def main() -> dict[str, Any]:
    """Trains and scores all members and returns the table."""
    from qoejax.run import cache, sweep  # after flags: --help needs no JAX

    cache.keep_compiled()
    return sweep.run(
        _CONFIG.value, pathlib.Path(str(_WORKDIR.value)), _SEEDS.value, _OVER.value,
        _SEQUENTIAL.value, _AT_ONCE.value,
    )  # fmt: skip


if __name__ == "__main__":
    cli.run(main)
