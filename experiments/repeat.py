"""Repeats a finished run from its manifest, and says whether the bits are the same.

    python -m experiments.repeat --manifest=runs/quickstart/manifest.json --workdir=runs/again

The result names what differs between the two places as far as the last bit may depend on it. Exit
code 1: the bits differ although nothing else does.
"""

import pathlib
from typing import Any

from absl import flags

from experiments import cli

_MANIFEST = flags.DEFINE_string("manifest", None, "manifest.json of the run to repeat.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the new run; made if missing.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Prepared datasets, if elsewhere by now.")
flags.mark_flags_as_required(["manifest", "workdir"])


def _broken(result: dict[str, Any]) -> str:
    """What to say if a promise did not hold."""
    if result["same_bits"] or result["changed"] or result["guarantee"] == "tolerance":
        return ""
    return "other bits than those of the manifest, although code, versions and devices are the same"


def main() -> dict[str, Any]:
    """Repeats the run and compares."""
    from qoejax.run.repeat import repeat  # after flags: --help needs no JAX

    manifest, workdir = map(pathlib.Path, (str(_MANIFEST.value), str(_WORKDIR.value)))
    return repeat(manifest, workdir, _DATA_DIR.value)


if __name__ == "__main__":
    cli.run(main, _broken)
