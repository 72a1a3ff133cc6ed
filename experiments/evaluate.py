"""Metrics of a trained model on its test split, or on a labelled file in the dataset's raw form.

python -m experiments.evaluate --workdir=runs/ton
python -m experiments.evaluate --workdir=runs/ton --input=rows.csv.gz --dataset=ton_iot/10class
python -m experiments.evaluate --workdir=W --input=r1__scan_01.pcap --dataset=pcap_folder/packets
python -m experiments.evaluate --workdir=runs/shared --dataset=ciciot2023/merged_binary

The last tries a model of the shared view (config.data.view) on another prepared dataset.
"""

import pathlib
from typing import Any

from absl import flags

from experiments import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a finished run.", required=True)
_INPUT = flags.DEFINE_string(
    "input", None, "Raw rows: .csv, .csv.gz or .parquet; or a labelled capture."
)
_DATASET = flags.DEFINE_string(
    "dataset", None, "Dataset and config: that --input has the form of, or to try the model on."
)
_DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the other dataset lies prepared.")


def main() -> dict[str, Any]:
    """Evaluates and returns the metrics."""
    from qoejax.run import cache, evaluate, model
    from qoejax.run.errors import RunError

    cache.keep_compiled()
    trained = model.load(pathlib.Path(str(_WORKDIR.value)))
    if _INPUT.value is None:
        name = _DATASET.value or trained.spec.dataset
        if name == trained.spec.dataset:
            result = evaluate.on_test_split(trained)
        else:
            result = evaluate.evaluate_model(
                trained, evaluate.other_rows(trained, name, _DATA_DIR.value)
            )
        return {"workdir": _WORKDIR.value, "dataset": name, **result.summary}
    if _DATASET.value is None:
        raise RunError("--input needs --dataset=NAME/CONFIG: the form that the file has")
    return evaluate.evaluate_file(trained, pathlib.Path(str(_INPUT.value)), _DATASET.value)


if __name__ == "__main__":
    cli.run(main)
