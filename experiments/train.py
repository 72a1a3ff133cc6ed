"""Trains a config in a workdir; run again on the same workdir, it resumes.

python -m experiments.train --config=configs/quickstart.py --workdir=runs/quickstart
"""

import pathlib
from typing import Any

from absl import flags

from experiments import cli

_CONFIG = cli.define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; made if missing.")
flags.mark_flags_as_required(["config", "workdir"])


def main() -> dict[str, Any]:
    """Trains and returns the summary."""
    from qoejax.run.train import train  # after flags: --help needs no JAX

    return train(_CONFIG.value, pathlib.Path(str(_WORKDIR.value)))


if __name__ == "__main__":
    cli.run(main)
