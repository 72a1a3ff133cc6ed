"""Class, probability, MOS with an interval and recommended action for every record of a file.

python -m experiments.predict --workdir=runs/ton --input=rows.csv --output=verdicts.csv
"""

import pathlib
from typing import Any

from absl import flags

from experiments import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a finished run.", required=True)
_INPUT = flags.DEFINE_string("input", None, "Raw rows: .csv, .csv.gz or .parquet.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, ".csv, .csv.gz or .parquet to write.", required=True)
_DAMAGE = flags.DEFINE_float("damage", 5.0, "Cost of an admitted attack, in MOS points.")


def main() -> dict[str, Any]:
    """Predicts and returns counts."""
    from qoejax.qoe.decide import Costs
    from qoejax.run import model, predict

    trained = model.load(pathlib.Path(str(_WORKDIR.value)))
    costs = Costs(damage=_DAMAGE.value)
    return predict.predict(
        trained, pathlib.Path(str(_INPUT.value)), pathlib.Path(str(_OUTPUT.value)), costs
    )


if __name__ == "__main__":
    cli.run(main)
