"""A trained model as one folder that runs without the network's code (docs/deployment.md).

python -m experiments.export --workdir=runs/ton --output=runs/ton/artefact
python -m experiments.export --workdir=runs/ton --output=runs/ton/int8 --weights=int8 --evaluate

The program in it goes from raw columns to class logits and MOS bins; experiments.detect runs it.
"""

import pathlib
from typing import Any

from absl import flags

from experiments import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a finished run.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write.", required=True)
_WEIGHTS = flags.DEFINE_string("weights", "float32", "Stored as float32, bfloat16 or int8.")
_PLATFORMS = flags.DEFINE_list("platforms", ["cpu"], "Devices to run on: cpu, cuda, rocm, tpu.")
_EVALUATE = flags.DEFINE_bool(
    "evaluate", False, "Also run it on the run's test split, beside the model it came from."
)


def main() -> dict[str, Any]:
    """Exports and returns what was written."""
    from qoejax.run import cache, compare_export, export, model

    cache.keep_compiled()
    trained, folder = model.load(pathlib.Path(_WORKDIR.value)), pathlib.Path(_OUTPUT.value)
    facts = export.write(trained, folder, _WEIGHTS.value, _PLATFORMS.value)
    keys = ("weights", "weight_bytes", "program_bytes", "platforms", "sha256")
    result = {"workdir": _WORKDIR.value, "output": str(folder), **{k: facts[k] for k in keys}}
    if _EVALUATE.value:
        result["test"] = compare_export.on_test_split(trained, folder)
    return result


if __name__ == "__main__":
    cli.run(main)
