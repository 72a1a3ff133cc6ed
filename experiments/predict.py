"""Class, probability, MOS with an interval and recommended action for every record of a file.

python -m experiments.predict --workdir=runs/ton --input=rows.csv --output=verdicts.csv
python -m experiments.predict --workdir=runs/mqtt --input=some.pcap --output=verdicts.csv

A capture gives a row a window, with its times (UTC) and hosts; a summary of who did what, and when,
goes to standard error.
"""

import pathlib
import sys
from typing import Any

from absl import flags

from experiments import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a finished run.", required=True)
_INPUT = flags.DEFINE_string(
    "input", None, "Raw rows: .csv, .csv.gz or .parquet; or a capture.", required=True
)
_OUTPUT = flags.DEFINE_string("output", None, ".csv, .csv.gz or .parquet to write.", required=True)
_DAMAGE = flags.DEFINE_float("damage", 5.0, "Cost of an admitted attack, in MOS points.")


def main() -> dict[str, Any]:
    """Predicts and returns counts."""
    from qoejax.qoe.decide import Costs
    from qoejax.run import cache, model, predict

    cache.keep_compiled()
    trained = model.load(pathlib.Path(str(_WORKDIR.value)))
    costs = Costs(damage=_DAMAGE.value)
    return predict.predict(
        trained, pathlib.Path(str(_INPUT.value)), pathlib.Path(str(_OUTPUT.value)), costs, _show
    )


def _show(table: Any) -> None:
    from qoejax.run import verdicts

    for line in verdicts.lines(table):
        print(line, file=sys.stderr)


if __name__ == "__main__":
    cli.run(main)
