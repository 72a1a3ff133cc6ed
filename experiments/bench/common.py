"""What every benchmark prints beside its own numbers."""

import platform
from typing import Any

import jax

from qoejax.run import files, manifest


def emit(row: dict[str, Any]) -> None:
    """Prints one JSON line: the row, the device and the versions it was measured with."""
    environment = manifest.environment()
    packages = ("jax", "flax", "numpy", "pqcrypto", "cryptography")
    row = row | {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cores": environment["cores"],
        "processor": platform.processor() or platform.machine(),
        "git_commit": environment["git_commit"],
        "versions": {k: environment["packages"][k] for k in packages},
    }
    print(files.dumps(row), flush=True)
