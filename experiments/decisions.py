"""Who may pass, who is slowed, who is stopped: policies compared in a closed loop.

python -m experiments.decisions --output=runs/decisions

Fits the nets, tunes every policy and plays the test scenes; writes ``decisions.json`` (every
cell of damage x prevalence x detector quality) and ``decisions.png``. Run again on the same folder,
it goes on where it stopped.
"""

import pathlib
from typing import Any

from absl import flags

from experiments import cli

_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)
_SCALE = flags.DEFINE_float("scale", 1.0, "Work against that of the published table.", 0.0)
_SEEDS = flags.DEFINE_integer(
    "seeds", 3, "Fits of the nets, at most 3; a smaller scale has fewer.", 1, 3
)


def main() -> dict[str, Any]:
    """Runs the study and returns its verdict."""
    from qoejax.run import cache, decisions, files, study

    cache.keep_compiled()
    folder = files.writable_folder(pathlib.Path(str(_OUTPUT.value)), "output")
    found = decisions.study(study.Context("", folder, _SEEDS.value, _SCALE.value))
    files.write_json(folder / "decisions.json", {"rows": files.plain(found.rows)})
    return {"verdict": found.verdict, "reason": found.reason, "output": str(folder)}


if __name__ == "__main__":
    cli.run(main)
