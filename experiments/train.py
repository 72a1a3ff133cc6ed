"""Trains a config in a workdir; run again on the same workdir, it resumes.

python -m experiments.train --config=configs/quickstart.py --workdir=runs/quickstart
"""

import pathlib
from typing import Any

from absl import flags

from experiments import cli

_CONFIG = cli.define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; made if missing.")
_RETUNE = flags.DEFINE_bool(
    "retune", False, "Measure config.perf's 'auto' anew instead of asking the cache."
)
flags.mark_flags_as_required(["config", "workdir"])


def main() -> dict[str, Any]:
    """Trains and returns the summary."""
    from qoejax.run import cache  # after flags: --help needs no JAX
    from qoejax.run.train import train

    cache.keep_compiled()
    return train(_CONFIG.value, pathlib.Path(str(_WORKDIR.value)), _RETUNE.value)


if __name__ == "__main__":
    cli.run(main)
