"""What a model gives away about its training rows, with and without differential privacy.

Trains shadow models on random halves of the rows and attacks each with what the others know:
loss threshold, and a likelihood ratio with few models (LiRA). 0.5 is a coin.

python -m experiments.privacy_audit --config=configs/privacy.py --workdir=runs/audit --models=8
"""

import pathlib
from typing import Any

from absl import flags

from experiments import cli

_CONFIG = cli.define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "Where privacy_audit.json goes; made if missing.")
_MODELS = flags.DEFINE_integer("models", 8, "Shadow models: an even number, 4 or more.")
flags.mark_flags_as_required(["config", "workdir"])


def main() -> dict[str, Any]:
    """Audits the config and, where it is private, the same config without its mechanism."""
    from qoejax.run import build, files, membership

    config = _CONFIG.value
    build.check(config)
    build.set_devices(config)
    workdir = files.writable_folder(pathlib.Path(str(_WORKDIR.value)), "workdir")
    data = build.data(config)
    result: dict[str, Any] = {"models": _MODELS.value, "rows": len(data.train.label)}
    for name, each in _settings(config):
        shadows = membership.train_shadows(each, data, _MODELS.value)
        result[name] = {"epsilon": shadows.epsilon, **membership.judge(shadows)}
    files.write_json(workdir / "privacy_audit.json", result)
    return result


def _settings(config: Any) -> list[tuple[str, Any]]:
    plain = config.copy_and_resolve_references()
    with plain.unlocked():
        plain.privacy.update(mechanism="none", clip=0.0, noise=0.0, epsilon=0.0)
    if config.privacy.mechanism == "none":
        return [("plain", plain)]
    return [("private", config), ("plain", plain)]


if __name__ == "__main__":
    cli.run(main)
