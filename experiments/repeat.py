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


def repeat(
    path: pathlib.Path, workdir: pathlib.Path, data_dir: str | None = None
) -> dict[str, Any]:
    """Trains the config of the manifest at ``path``.

    Raises:
      RunError: not the manifest of a finished run, or as ``qoejax.run.train.train``.
    """
    from qoejax.run import build, files, manifest, tune
    from qoejax.run.errors import RunError
    from qoejax.run.train import train

    there = files.read_json(path, "the manifest of a run")
    if "params_sha256" not in there:
        raise RunError(f"{path} has no params_sha256: expected the manifest of a finished run")
    config = build.from_plain(there["config"])
    if data_dir is not None:
        config.data.dir = data_dir
    if tuned := there.get("tuned"):  # what was measured there, never anew
        config = tune.recorded(config, tuned)
    train(config.lock(), workdir)
    here = files.read_json(workdir / "manifest.json", "the manifest of a run")
    strict = there["guarantee"]["name"] == "strict"
    return {
        "workdir": str(workdir),
        "same_bits": here["params_sha256"] == there["params_sha256"],
        "changed": manifest.changed(there, here, strict),
        "guarantee": there["guarantee"]["name"],
        "params_sha256": here["params_sha256"],
    }


def _broken(result: dict[str, Any]) -> str:
    """What to say if a promise did not hold."""
    if result["same_bits"] or result["changed"] or result["guarantee"] == "tolerance":
        return ""
    return "other bits than those of the manifest, although code, versions and devices are the same"


def main() -> dict[str, Any]:
    """Repeats the run and compares."""
    manifest, workdir = map(pathlib.Path, (str(_MANIFEST.value), str(_WORKDIR.value)))
    return repeat(manifest, workdir, _DATA_DIR.value)


if __name__ == "__main__":
    cli.run(main, _broken)
