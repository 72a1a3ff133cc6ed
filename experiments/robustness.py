"""Attacks against robust rules: scores, a heat map and a plot of the worst cases.

python -m experiments.robustness --config=configs/robustness.py --workdir=runs/robustness
"""

import pathlib
from typing import Any

from absl import flags

from experiments import cli

_CONFIG = cli.define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the results; made if missing.")
_FRACTIONS = flags.DEFINE_list("fractions", ["0.2", "0.3"], "Shares of malicious clients.")
_RULES = flags.DEFINE_list("rules", [], "Aggregators; by default the mean and all robust ones.")
_ATTACKS = flags.DEFINE_list("attacks", [], "Attacks, after none; all by default.")
flags.mark_flags_as_required(["config", "workdir"])


def main() -> dict[str, Any]:
    """Runs the grids and returns what each rule kept."""
    from qoejax.fed import aggregate, attacks  # after flags: --help needs no JAX
    from qoejax.run import cache, robustness

    cache.keep_compiled()
    chosen = [name for name in _ATTACKS.value or attacks.ATTACKS if name != "none"]
    return robustness.run(
        _CONFIG.value, pathlib.Path(str(_WORKDIR.value)), [float(f) for f in _FRACTIONS.value],
        _RULES.value or ["weighted_mean", *aggregate.ROBUST], ["none", *chosen],
    )  # fmt: skip


if __name__ == "__main__":
    cli.run(main)
