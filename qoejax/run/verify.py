"""A whole run re-checked offline: its log, its manifest and its model against each other."""

import hashlib
import pathlib
from typing import Any

import jax
import numpy as np

from qoejax import trees
from qoejax.run import files, transparency, wired
from qoejax.run.errors import RunError
from qoejax.run.model import load as load_model
from qoejax.wire import codec
from qoejax.wire.log import audit, note, policy, proof, store
from qoejax.wire.log.audit import Report
from qoejax.wire.log.errors import LogError, SplitViewError
from qoejax.wire.log.policy import Policy
from qoejax.wire.log.state import unsigned


def read_policy(path: pathlib.Path) -> Policy:
    """A policy file.

    Raises:
      RunError: it is missing or no policy; names the line.
    """
    try:
        return policy.parse(path.read_text())
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}, expected a log's policy") from None
    except (LogError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: {error}") from None


def audit_run(workdir: pathlib.Path, trusted: Policy | None = None) -> Report:
    """Audits the log of a run.

    Raises:
      LogError: the first thing that is wrong.
      RunError: there is nothing to audit.
    """
    folder = workdir / "log"
    if not folder.is_dir():
        raise RunError(f"{folder} is missing: expected the log of a run with the wire on")
    own = read_policy(folder / "policy")
    report = audit.audit(store.read(folder), own, trusted)
    session = report.state.session
    if session is not None and session.policy != _sha256(folder / "policy"):
        raise LogError("policy: not the file that the log's last run entry names")
    return report


def verify(
    workdir: pathlib.Path,
    trusted: pathlib.Path | None = None,
    elsewhere: pathlib.Path | None = None,
    authority: str | None = None,
) -> dict[str, Any]:
    """Re-checks every signature, digest and proof of a run.

    Args:
      workdir: of the run.
      trusted: policy of the keys that the reader trusts beforehand; None takes the run's own.
      elsewhere: a checkpoint that somebody else was shown, to be found in this log.
      authority: public key, in hexadecimal, that must have signed the registry.

    Returns:
      The summary that the command prints, or ``ok`` false with the reason and the bad entry.

    Raises:
      RunError: there is nothing to verify.
    """
    manifest = files.read_json(workdir / "manifest.json", "the manifest of a run")
    known = None if trusted is None else read_policy(trusted)
    try:
        report = audit_run(workdir, known)
        if elsewhere is not None:
            _same_history(report, known or read_policy(workdir / "log" / "policy"), elsewhere)
        signer = None if report.state.authority is None else report.state.authority[0].hex()
        if authority is not None and signer != authority.lower():
            raise LogError(f"the registry is signed by another authority: {signer or 'by nobody'}")
        model = _against_manifest(report, manifest, workdir)
    except LogError as error:
        kind = "split view" if isinstance(error, SplitViewError) else "damaged"
        return {"ok": False, "problem": kind, "entry": error.entry, "reason": str(error)}
    return {"ok": True, "keys": "the run's own" if trusted is None else str(trusted)} | _summary(
        report, model
    )


def _summary(report: Report, model: str) -> dict[str, Any]:
    head, state = report.heads[-1], report.state
    live = [r for r in state.rounds if r.result is not None]
    return {
        "entries": report.tree.size,
        "checkpoints": len(report.heads),
        "signatures": report.signatures,
        "runs": len(state.runs),
        "authority": None if state.authority is None else state.authority[0].hex(),
        "rounds": max(state.models, default=-1) + 1,
        "updates": sum(len(r.members) for r in live),
        "unsigned": unsigned(state),
        "summed": sum(len(one.survivors) for r in live for one in r.sums),
        "rejected": sum(len(r.refusals) for r in live),
        "equivocations": sum(len(r.convictions) for r in live),
        "witnesses": sorted(head.verdict.witnesses),
        "finished": state.final is not None,
        "model": model,
        "origin": head.note.checkpoint.origin,
        "root": head.note.checkpoint.root.hex(),
    }


def _against_manifest(report: Report, manifest: dict[str, Any], workdir: pathlib.Path) -> str:
    """Config, head and parameters; what was found out about the model, in words."""
    session, final = report.state.session, report.state.final
    if session is None:
        raise LogError("the log holds no run")
    if transparency.config_digest(manifest["config"]) != session.config:
        raise LogError("manifest.json: its config is not the one that the log names")
    if final is None:
        if "finished" in manifest:
            raise LogError("manifest.json: a finished run, but the log has no final entry")
        return "unfinished"
    head = report.heads[-1].note.checkpoint
    written = manifest.get("log", {})
    if (written.get("size"), written.get("root")) != (head.size, head.root.hex()):
        raise LogError("manifest.json: names another log head than the last checkpoint")
    if manifest.get("params_sha256") != final["params"].hex():
        raise LogError("manifest.json: params_sha256 is not the final entry's")
    try:
        params = load_model(workdir).params
    except RunError as error:
        raise LogError(f"model: {error}") from None
    if trees.sha256(params) != final["params"].hex():
        raise LogError("model: its parameters are not those of the final entry")
    return _announced(params, report.state.models[final["rounds"] - 1])


def _announced(params: Any, last: tuple[bytes, bytes]) -> str:
    """Whether the saved parameters are, byte for byte, the model that the last round ended with."""
    spec = wired.tree_spec(params)
    if codec.spec_digest(spec) != last[1]:
        return "as in the final entry"  # clients' own models, or more than parameters was sent
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    if codec.model_digest(codec.encode(spec, leaves)) != last[0]:
        raise LogError("model: its parameters are not those that the last round ended with")
    return "as in the final entry and after the last round"


def _same_history(report: Report, known: Policy, path: pathlib.Path) -> None:
    """A checkpoint from elsewhere, signed by this log, must be one that it passed through."""
    try:
        seen = note.parse(path.read_text())
        policy.check(known, seen)
    except (OSError, UnicodeDecodeError, LogError) as error:
        raise RunError(f"{path}: {error}; expected a checkpoint by this log") from None
    head, origin = seen.checkpoint, report.heads[-1].note.checkpoint.origin
    if head.origin != origin:
        raise RunError(f"{path}: a checkpoint of {head.origin!r}, this log is {origin!r}")
    if head.size > report.tree.size:
        raise SplitViewError(
            f"{path} counts {head.size} entries, this log has {report.tree.size}: entries were "
            "taken out"
        )
    if report.tree.root(head.size) != head.root:
        raise SplitViewError(
            f"{path}: another history of the first {head.size} entries than this log's"
        )


def receipt(workdir: pathlib.Path, index: int) -> proof.Receipt:
    """Proof that an entry is in a run's log, for someone who does not have the log.

    Raises:
      RunError: the log does not hold, or has no such entry.
    """
    try:
        report = audit_run(workdir)
        path = report.tree.inclusion(index)
    except LogError as error:
        raise RunError(str(error)) from None
    entry = store.read(workdir / "log").entries[index]
    return proof.Receipt(index, path, report.heads[-1].note, entry)


def check_receipt(path: pathlib.Path, trusted: pathlib.Path) -> dict[str, Any]:
    """Checks a receipt against a policy; needs neither the run nor its log."""
    known = read_policy(trusted)
    try:
        found = proof.parse(path.read_text())
        verdict = proof.verify(found, known)
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}, expected a receipt") from None
    except (LogError, UnicodeDecodeError) as error:
        return {"ok": False, "problem": "damaged", "entry": None, "reason": f"{path}: {error}"}
    return {
        "ok": True,
        "index": found.index,
        "size": found.note.checkpoint.size,
        "origin": found.note.checkpoint.origin,
        "witnesses": sorted(verdict.witnesses),
        "entry_sha256": hashlib.sha256(found.entry).hexdigest(),
    }


def _sha256(path: pathlib.Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
