"""manifest.json: what is needed to repeat a run, and to refuse the workdir of another."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import subprocess
from typing import Any

import jax

from qoejax.run import files
from qoejax.run.errors import RunError

PACKAGES = (
    "array_record", "cryptography", "dp-accounting", "flax", "jax", "jax-privacy", "jaxlib",
    "ml-collections", "numpy", "optax", "orbax-checkpoint", "pqcrypto", "pyarrow", "qoejax",
    "scipy", "tensorflow-datasets",
)  # fmt: skip


def now() -> str:
    """UTC time, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def environment() -> dict[str, Any]:
    """Versions, devices and processor: what results may depend on in the last bit."""
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "backend": jax.default_backend(),
        "devices": [d.device_kind for d in jax.devices()],
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


def differences(old: Any, new: Any, prefix: str = "config") -> list[str]:
    """Dotted keys whose values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        out = []
        for key in sorted({*old, *new}):
            out += differences(old.get(key), new.get(key), f"{prefix}.{key}")
        return out
    return [] if old == new else [f"{prefix} ({old!r} there, {new!r} asked for)"]


def _larger_budget(old: Any, new: dict[str, Any]) -> bool:
    """Whether the two configs differ in a privacy budget that grew, and in nothing else.

    Going on under it is the same run, longer: what was spent stays spent.
    """
    try:
        before, after = old["privacy"]["epsilon"], new["privacy"]["epsilon"]
    except (KeyError, TypeError):
        return False
    grew = before > 0 and (after == 0 or after > before)
    return grew and differences(old | {"privacy": old["privacy"] | {"epsilon": after}}, new) == []


def check(workdir: pathlib.Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest that is there, or None; writes nothing. A privacy budget may have grown.

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
    differing = differences(manifest.get("config"), files.plain(config))
    if differing and not _larger_budget(manifest["config"], files.plain(config)):
        raise RunError(
            f"workdir {workdir} belongs to a run of another config: "
            f"{'; '.join(differing[:5])}; expected the same config, or another workdir"
        )
    return manifest


def open_run(workdir: pathlib.Path, config: dict[str, Any]) -> dict[str, Any]:
    """Starts a manifest, or continues the one that is there; raises as ``check``."""
    manifest = check(workdir, config)
    if manifest is None:
        manifest = {
            "config": files.plain(config), "started": now(), "resumed": [], **environment()
        }  # fmt: skip
    else:
        manifest["config"] = files.plain(config)
        manifest["resumed"].append({"at": now(), **environment()})
    files.write_json(workdir / "manifest.json", manifest)
    return manifest


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
