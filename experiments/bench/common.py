"""What every benchmark prints beside its own numbers."""

import platform
import time
from collections.abc import Callable, Mapping
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


def turns(calls: Mapping[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Seconds of every call after a first one; the calls take turns."""
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return seconds
