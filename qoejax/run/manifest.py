"""manifest.json: what is needed to repeat a run, and to refuse the workdir of another."""

import datetime
import importlib.metadata
import logging
import pathlib
import platform
import subprocess
from typing import Any

from qoejax.run import files, runtime
from qoejax.run.errors import RunError

PACKAGES = (
    "array_record", "cryptography", "dp-accounting", "flax", "jax", "jax-privacy", "jaxlib",
    "ml-collections", "numpy", "optax", "orbax-checkpoint", "pqcrypto", "pyarrow", "qoejax",
    "scipy", "tensorflow-datasets",
)  # fmt: skip

GUARANTEES = {
    "strict": (
        "the same bits for any number of devices of this kind, any order of the clients and any "
        "slices of a cohort: with this code, these versions, instruction sets, flags, chunk and "
        "number of threads"
    ),
    "bits": (
        "the same bits when repeated or resumed: with this code, these versions, instruction sets, "
        "flags, devices, threads and config.perf; otherwise as 'tolerance'"
    ),
    "tolerance": "equal but for rounding: parameters within 1e-5 over a few rounds, then diverging",
}
"""What repeating a run promises; docs/reproducibility.md has the tests that hold it."""

DETERMINISTIC = "--xla_gpu_deterministic_ops=true"

LOG = logging.getLogger("qoejax")


def now() -> str:
    """UTC time, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def environment() -> dict[str, Any]:
    """Code, versions, processor, devices: what results may depend on in the last bit."""
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        **runtime.describe(),
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*args: str) -> str | None:
    folder = pathlib.Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", *args], cwd=folder, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def guarantee(config: dict[str, Any], where: dict[str, Any]) -> str:
    """Which of ``GUARANTEES`` a run of this config has where ``environment`` was taken.

    XLA's GPU code may add atomically, in any order, unless a flag forbids it.
    """
    if where["backend"] == "gpu" and DETERMINISTIC not in where["variables"].get("XLA_FLAGS", ""):
        return "tolerance"
    return "strict" if config["perf"]["client_axis"] == "strict" else "bits"


def changed(there: dict[str, Any], here: dict[str, Any], strict: bool = False) -> list[str]:
    """What differs between two places (manifests), as far as the last bits may depend on it.

    With ``strict``, devices may be more or fewer of the same kind.
    """
    keys = {
        "python", "packages", "machine", "instructions", "backend", "backend_version", "devices",
        "processes", "threads", "variables", "settings", "git_commit", "git_dirty",
    }  # fmt: skip

    def relevant(place: dict[str, Any]) -> dict[str, Any]:
        kept = {k: v for k, v in place.items() if k in keys}
        return kept | {"devices": sorted(set(kept.get("devices", [])))} if strict else kept

    return differences(relevant(there), relevant(here), "", ("there", "here"))


def differences(
    old: Any, new: Any, prefix: str = "config", names: tuple[str, str] = ("there", "asked for")
) -> list[str]:
    """Dotted keys whose values differ, with both values and whose they are."""
    if isinstance(old, dict) and isinstance(new, dict):
        out = []
        for key in sorted({*old, *new}):
            out += differences(old.get(key), new.get(key), f"{prefix}.{key}".lstrip("."), names)
        return out
    return [] if old == new else [f"{prefix} ({old!r} {names[0]}, {new!r} {names[1]})"]


def _other_run(old: Any, new: dict[str, Any]) -> list[str]:
    """How the configs differ, but for what the same run may change when it goes on.

    That is ``perf``, which changes no more than rounding, and a privacy budget that grew: what was
    spent stays spent.
    """
    if not isinstance(old, dict):
        return differences(old, new)
    same = {k: new[k] for k in ("perf",) if k in old and k in new}
    budget = [c.get("privacy", {}).get("epsilon", 0.0) for c in (old, new)]
    if budget[0] > 0 and (budget[1] == 0 or budget[1] > budget[0]):
        same["privacy"] = old["privacy"] | {"epsilon": budget[1]}
    return differences(old | same, new)


def check(workdir: pathlib.Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest that is there, or None; writes nothing.

    A privacy budget may have grown, and ``perf`` may be another.

    Raises:
      RunError: the workdir belongs to a run of another config, or holds something else.
    """
    path = workdir / "manifest.json"
    if not path.exists():
        # A run killed before its first write leaves only names that begin with a dot.
        foreign = [p.name for p in workdir.iterdir() if not p.name.startswith(".")]
        if foreign:
            raise RunError(
                f"workdir {workdir} has no manifest.json but holds {foreign[0]!r}: "
                "expected an empty folder or the workdir of an earlier run"
            )
        return None
    manifest = files.read_json(path, "the manifest of a run")
    if differing := _other_run(manifest.get("config"), files.plain(config)):
        raise RunError(
            f"workdir {workdir} belongs to a run of another config: "
            f"{'; '.join(differing[:5])}; expected the same config, or another workdir"
        )
    return manifest


def open_run(workdir: pathlib.Path, config: dict[str, Any]) -> dict[str, Any]:
    """Starts a manifest, or continues the one that is there; raises as ``check``.

    Warns where a run goes on under conditions that may change its last bits.
    """
    manifest, config, here = check(workdir, config), files.plain(config), environment()
    name = guarantee(config, here)
    if manifest is None:
        manifest = {"config": config, "started": now(), "resumed": [], **here}
    else:
        last = [manifest, *manifest["resumed"]][-1]
        moved = changed(last, here, name == "strict")
        moved += _perf(manifest["config"]["perf"], config["perf"], name == "strict")
        if moved:
            LOG.warning(
                "resuming elsewhere, so that the last bits may differ: %s", "; ".join(moved)
            )
        if moved or manifest.get("guarantee", {}).get("name") == "tolerance":
            name = "tolerance"
        manifest["resumed"].append({"at": now(), "changed": moved, **here})
        manifest["config"] = config
    manifest["guarantee"] = {"name": name, "means": GUARANTEES[name]}
    files.write_json(workdir / "manifest.json", manifest)
    return manifest


def _perf(old: dict[str, Any], new: dict[str, Any], strict: bool) -> list[str]:
    """Differences that may change the last bits."""
    free = {"rounds_per_dispatch", "state_memory_mb", "tune_seconds"}
    free |= {"devices"} if strict else set()
    before, after = ({k: v for k, v in p.items() if k not in free} for p in (old, new))
    return differences(before, after, "config.perf", ("there", "here"))


def pin_data(workdir: pathlib.Path, manifest: dict[str, Any], fingerprint: str) -> None:
    """Records the fingerprint of the staged rows, or refuses rows that are not those of the start.

    Raises:
      RunError: the rows differ.
    """
    known = manifest.setdefault("dataset_fingerprint", fingerprint)
    if known != fingerprint:
        raise RunError(
            f"the training rows are not those that the run in {workdir} began with (fingerprint "
            f"{fingerprint[:12]}, expected {known[:12]}): was the dataset prepared anew?"
        )
    files.write_json(workdir / "manifest.json", manifest)
