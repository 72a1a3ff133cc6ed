"""Re-checks a run: every signature, digest and proof of its log; names the first bad entry.

python -m experiments.verify --workdir=runs/quickstart
python -m experiments.verify --workdir=W --policy=trusted.policy --checkpoint=seen-by-a-witness
python -m experiments.verify --workdir=W --prove=17 --output=update.tlog-proof
python -m experiments.verify --receipt=update.tlog-proof --policy=trusted.policy

Without --policy the keys are those that lie with the run: that shows that nothing was changed
since, not who wrote it. The last form needs neither the run nor its log.
"""

import pathlib
from typing import Any

from absl import flags

from experiments import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run with the wire on.")
_POLICY = flags.DEFINE_string("policy", None, "Keys to trust (a tlog-policy file).")
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "A checkpoint that someone else was shown: is it of the same history?"
)
_AUTHORITY = flags.DEFINE_string(
    "authority", None, "Public key, in hexadecimal, that must have signed the run's registry."
)
_PROVE = flags.DEFINE_integer("prove", None, "Entry to write a receipt for.", lower_bound=0)
_OUTPUT = flags.DEFINE_string("output", None, "Where the receipt goes.")
_RECEIPT = flags.DEFINE_string("receipt", None, "A receipt to check against --policy.")


def main() -> dict[str, Any]:
    """Verifies, proves or checks a receipt, and returns what was found."""
    from qoejax.run.errors import RunError

    if _RECEIPT.value is not None and _POLICY.value is None:
        raise RunError("--receipt needs --policy=FILE: the keys to trust")
    if _RECEIPT.value is None and _WORKDIR.value is None:
        raise RunError("expected --workdir=D, or --receipt=FILE and --policy=FILE")
    if _PROVE.value is not None and _OUTPUT.value is None:
        raise RunError("--prove needs --output=FILE: where the receipt goes")

    from qoejax.run import files, verify  # JAX comes with them
    from qoejax.wire.log import proof

    trusted, seen = _path(_POLICY), _path(_CHECKPOINT)
    if _RECEIPT.value is not None:
        return verify.check_receipt(
            pathlib.Path(str(_RECEIPT.value)), pathlib.Path(str(_POLICY.value))
        )
    workdir = pathlib.Path(str(_WORKDIR.value))
    if _PROVE.value is not None:
        found = verify.receipt(workdir, _PROVE.value)
        files.write_bytes(pathlib.Path(str(_OUTPUT.value)), proof.render(found).encode())
        return {"index": found.index, "size": found.note.checkpoint.size, "output": _OUTPUT.value}
    return verify.verify(workdir, trusted, seen, _AUTHORITY.value)


def _path(flag: flags.FlagHolder) -> pathlib.Path | None:
    return None if flag.value is None else pathlib.Path(flag.value)


def failed(result: dict[str, Any]) -> str:
    """The sentence of a run that does not verify."""
    return "" if result.get("ok", True) else f"{result['problem']}: {result['reason']}"


if __name__ == "__main__":
    cli.run(main, failed)
