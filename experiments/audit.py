"""What data give away before any model is trained: columns, rows and splits that leak the target.

python -m experiments.audit --dataset=ton_iot/10class --data_dir=data --output=runs/audit
python -m experiments.audit --dataset=ton_iot/10class --input=Train_Test_Network.csv.gz
python -m experiments.audit --input=scores.csv --target=MOS --group=user_id
python -m experiments.audit --workdir=runs/ton

Without --input, the prepared splits of --dataset, or of a run; with it, raw files as they lie (a
folder stands for the tables in it; several are audited together). With --workdir, exit code 1 if
the best sentinel on the model's columns comes within ten points of the model.
"""

import pathlib
import sys
from typing import Any

from absl import flags

from experiments import cli

_DATASET = flags.DEFINE_string("dataset", None, "NAME/CONFIG; not needed with --workdir.")
_INPUT = flags.DEFINE_multi_string("input", [], "Raw file or folder; may be repeated.")
_LABEL = flags.DEFINE_string("label", "", "With --input: the column of the classes.")
_TARGET = flags.DEFINE_string("target", "", "With --input: the column of the scores.")
_GROUP = flags.DEFINE_list("group", [], "With --input: columns that name a person, host ...")
_KEEP = flags.DEFINE_list("keep", [], "Leaky columns that the model is to see nevertheless.")
_DROP = flags.DEFINE_list("drop", [], "Columns that the model is not to see.")
_MANUAL_DIR = flags.DEFINE_string("manual_dir", "", "Folder of the dataset's own files.")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "Where prepared datasets live (TFDS' default).")
_WORKDIR = flags.DEFINE_string("workdir", None, "A finished run to hold the sentinels against.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for audit.json and audit.html.")


def main() -> dict[str, Any]:
    """Audits, prints the findings to stderr and returns the summary."""
    from qoejax.run import audit, model

    gate = trained = workdir = None
    if _WORKDIR.value is not None:
        workdir = pathlib.Path(_WORKDIR.value)
        trained = model.load(workdir)
    what, found = _audited(trained)
    if trained is not None and workdir is not None:
        gate = audit.gate(found, workdir, trained.spec)
    print(audit.text(found, gate), file=sys.stderr)
    result = audit.summary(what, found, gate)
    if _OUTPUT.value:
        result["report"] = audit.write(pathlib.Path(_OUTPUT.value), what, found, gate)
    return result


def _audited(trained: Any) -> tuple[str, Any]:
    """What is audited, in words, and what was found."""
    from qoejax.run import audit
    from qoejax.run.errors import RunError

    dataset = _DATASET.value or (trained.spec.dataset if trained and not _LABEL.value else "")
    if trained and dataset not in ("", trained.spec.dataset):
        raise RunError(f"--dataset={dataset}, but the run learnt {trained.spec.dataset}")
    if trained and (_KEEP.value or _DROP.value):
        raise RunError("--keep and --drop say what a run saw, which --workdir knows already")
    if _INPUT.value:
        found = audit.of_files(
            [pathlib.Path(path) for path in _INPUT.value], dataset=dataset, label=_LABEL.value,
            target=_TARGET.value, group=_GROUP.value, keep=_KEEP.value, drop=_DROP.value,
            default=audit.default_of(trained) if trained else None,
        )  # fmt: skip
        return f"{', '.join(_INPUT.value)}" + (f" as {dataset}" if dataset else ""), found
    if _LABEL.value or _TARGET.value or _GROUP.value:
        raise RunError("--label, --target and --group go with --input")
    if trained:
        return f"{dataset}, as {_WORKDIR.value} was trained", audit.of_run(trained)
    if not dataset:
        raise RunError("expected --dataset=NAME/CONFIG, --input=FILE or --workdir=RUN")
    return dataset, audit.of_dataset(
        dataset, _DATA_DIR.value, _MANUAL_DIR.value, _KEEP.value, _DROP.value
    )


def _failed(result: dict[str, Any]) -> str:
    gate = result["gate"]
    if gate is None or gate["passed"]:
        return ""
    return (
        f"{gate['sentinel']} alone scores {gate['sentinel_score']:.3f}, not {gate['margin']} below "
        f"the model's {gate['model']:.3f}: this split says little about the model"
    )


if __name__ == "__main__":
    cli.run(main, _failed)
