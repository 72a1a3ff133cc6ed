"""Compares the hybrid with other models, each tuned with the same number of trials.

    python -m experiments.baselines --config=configs/ton_iot.py:centralised \
        --config.data.dir=D --output=runs/baselines

Writes baselines.json and baselines.md: mean and 95 % interval over seeds of each figure on the test
rows, and the settings that the trials chose on a part of the training rows. With --folds, figures
are of folds of the training rows, by which a config may be chosen. Trees of other libraries need
the extra "baselines" (pip install 'qoejax[baselines]'); --contenders leaves out any.
"""

import logging
import pathlib
from typing import Any

from absl import flags

from experiments import cli

_CONFIG = cli.define_config()
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the two files; made if missing.")
_CONTENDERS = flags.DEFINE_list("contenders", [], "Names, by commas; all if empty.")
_TRIALS = flags.DEFINE_integer("trials", 10, "Settings that each contender tries.")
_SEEDS = flags.DEFINE_integer("seeds", 5, "Fits of each contender.")
_FOLDS = flags.DEFINE_integer(
    "folds", 0, "If any, figures are of so many folds of the training rows, not of test rows."
)
_SHARE = flags.DEFINE_float("share", 0.2, "Of the training rows, on which trials are judged.")
flags.mark_flags_as_required(["config", "output"])


def main() -> dict[str, Any]:
    """Compares, and writes the table."""
    from qoejax.run import baselines, build, cache, files  # after flags: --help needs no JAX

    cache.keep_compiled()
    log = logging.getLogger("qoejax")
    folder = files.writable_folder(pathlib.Path(str(_OUTPUT.value)), "output")
    names = _CONTENDERS.value or list(baselines.CONTENDERS)
    config = _CONFIG.value

    def report(row: dict[str, Any]) -> None:
        mean, half = row["figures"].get("macro_f1", (float("nan"), float("nan")))
        log.info("%s: macro-F1 %.4f ± %.4f, %s", row["name"], mean, half, row["settings"])

    rows = baselines.compare(
        config, names, trials=_TRIALS.value, seeds=_SEEDS.value, share=_SHARE.value,
        folds=_FOLDS.value, report=report,
    )  # fmt: skip
    result = {
        "dataset": config.data.name, "trials": _TRIALS.value, "seeds": _SEEDS.value,
        "share": _SHARE.value, "folds": _FOLDS.value, "config": build.plain_config(config),
        "rows": rows,
    }  # fmt: skip
    files.write_json(folder / "baselines.json", result)
    title = f"{config.data.name}: {_TRIALS.value} trials, {_SEEDS.value} seeds"
    if _FOLDS.value:
        title += f", {_FOLDS.value} folds of the training rows"
    (folder / "baselines.md").write_text(baselines.markdown(rows, title), encoding="utf-8")
    best = max(rows, key=lambda row: row["figures"].get("macro_f1", (-1.0, 0.0))[0])
    return {"output": str(folder), "contenders": len(rows), "best": best["name"]}


if __name__ == "__main__":
    cli.run(main)
