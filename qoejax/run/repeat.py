"""Repeating a finished run from its manifest."""

import pathlib
from typing import Any

from qoejax.run import build, files, manifest, tune
from qoejax.run.errors import RunError
from qoejax.run.train import train


def repeat(
    path: pathlib.Path, workdir: pathlib.Path, data_dir: str | None = None
) -> dict[str, Any]:
    """Trains the config of the manifest at ``path``.

    Raises:
      RunError: not the manifest of a finished run, or as ``qoejax.run.train.train``.
    """
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
