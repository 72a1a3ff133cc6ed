"""Trains a config in a workdir; run again on the same workdir, it resumes.

python -m experiments.train --config=configs/quickstart.py --workdir=runs/quickstart

Several processes share one run when each is started with the same flags and either --distributed
(TPU pods, Slurm, Open MPI), or --coordinator, --processes and its own --process_id
(docs/scaling.md).
"""

import pathlib
from typing import Any

from absl import flags

from experiments import cli

_CONFIG = cli.define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; made if missing.")
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "One of several processes, which find each other: TPU pod, Slurm, MPI."
)
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, free there.")
_PROCESSES = flags.DEFINE_integer("processes", None, "Number of processes.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")
_PROCESS_TIMEOUT = flags.DEFINE_integer(
    "process_timeout", 100, "Seconds until a process that is not heard of counts as lost."
)
_RETUNE = flags.DEFINE_bool(
    "retune", False, "Measure config.perf's 'auto' anew instead of asking the cache."
)
flags.mark_flags_as_required(["config", "workdir"])


def main() -> dict[str, Any] | None:
    """Trains and returns the summary."""
    from qoejax.run import cache, distributed  # after flags: --help needs no JAX
    from qoejax.run.train import train

    cache.keep_compiled()
    asked = distributed.asked(
        _DISTRIBUTED.value, _COORDINATOR.value, _PROCESSES.value, _PROCESS_ID.value,
        _PROCESS_TIMEOUT.value,
    )  # fmt: skip
    with distributed.session(asked) as group:
        return train(_CONFIG.value, pathlib.Path(str(_WORKDIR.value)), group, _RETUNE.value)


if __name__ == "__main__":
    cli.run(main)
