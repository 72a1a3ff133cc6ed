"""Tries every claim of the framework's paper, or goes on where it was, and writes the table.

    python -m experiments.claims --workdir=runs/claims
    python -m experiments.claims --workdir=runs/claims --budget=5
    python -m experiments.claims --workdir=runs/claims --data_dir=D --output=docs/claims.md

Simulated rows are made when they are missing. Real rows are used where experiments.prepare has put
them into the same --data_dir. Writes claims.md, claims.json and figures to the workdir. --budget is
in minutes on 2 cores with simulated rows alone: 60 is the full work, less shrinks it, though not
all that is compiled, so that 5 takes 6 where nothing is cached yet and 4 after that; real rows come
on top. The last line counts verdicts. The exit code is non-zero if a study failed to run; a claim
that fails is a result.
"""

import os
import pathlib
import shlex
import sys
from typing import Any

from absl import flags

from experiments import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of all results.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where prepared datasets live (workdir/data).")
_BUDGET = flags.DEFINE_float("budget", 60.0, "Minutes, 5 to 60.")
_SEEDS = flags.DEFINE_integer("seeds", 5, "Fits of each thing compared, at full scale.")
_ONLY = flags.DEFINE_list("only", [], "Names of claims, by commas; all if empty.")
_WORKERS = flags.DEFINE_integer("workers", 0, "Processes that fit side by side; 0: one a core.")
_OUTPUT = flags.DEFINE_string("output", None, "Also write the page here, figures beside it.")


def configs() -> dict[str, Any]:
    """How the hybrid is trained in one place, by dataset."""
    from configs import ciciot2023, human_qoe, quickstart, ton_iot

    return {
        "simulated_iot/small": quickstart.get_config("centralised"),
        "ton_iot/10class": ton_iot.get_config("centralised"),
        "ciciot2023/merged_8class": ciciot2023.get_config("merged_8class+centralised"),
        "ciciot2023/merged_34class": ciciot2023.get_config("merged_34class+centralised"),
        "human_qoe/cloud_gaming": human_qoe.get_config("cloud_gaming"),
        "human_qoe/poqemon": human_qoe.get_config("poqemon"),
    }


def main() -> dict[str, Any]:
    """Tries the claims; returns the counts."""
    from qoejax.run import cache, claims  # after flags: --help needs no JAX

    cache.keep_compiled()
    workdir = pathlib.Path(str(_WORKDIR.value))
    command = "python -m experiments.claims " + shlex.join(
        a
        for a in sys.argv[1:]
        if a.startswith(("--budget", "--seeds"))  # what the plan says
    )
    asked = claims.Asked(
        plan=claims.plan(_BUDGET.value, _SEEDS.value),
        data_dir=_DATA_DIR.value or str(workdir / "data"),
        configs=configs(),
        command=f"{command.rstrip()} --workdir=W",
    )
    output = None if _OUTPUT.value is None else pathlib.Path(_OUTPUT.value)
    workers = _WORKERS.value or os.cpu_count() or 1
    return claims.run(workdir, asked, _ONLY.value, output, workers=workers)


def failed(result: dict[str, Any]) -> str:
    """What to fail on."""
    from qoejax.run import claims

    return claims.failed(result)


if __name__ == "__main__":
    cli.run(main, failed)
