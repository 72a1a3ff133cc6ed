"""What JAX runs on, as far as the last bit of a result may depend on it. Host."""

import os
import pathlib
import platform
from typing import Any

import jax
import jax.extend.backend
import numpy as np

from qoejax.run.errors import RunError

VARIABLES = ("XLA_FLAGS", "PJRT_NPROC", "NPROC", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE")
"""Of the environment, read by XLA or by libraries below it."""

SETTINGS = (
    "jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl",
    "jax_threefry_partitionable",
)  # fmt: skip
"""Of JAX, whether set by code or by the environment."""

_POOL = "tf_XLAEigen"
_TASKS = pathlib.Path("/proc/self/task")


def describe() -> dict[str, Any]:
    """Processor, devices, threads, flags and settings; starts JAX."""
    backend = jax.extend.backend.get_backend()
    return {
        "machine": platform.machine(),
        "instructions": _instructions(),
        "cores": os.cpu_count(),
        "backend": jax.default_backend(),
        "backend_version": backend.platform_version,
        "devices": [d.device_kind for d in jax.devices()],
        "processes": jax.process_count(),
        "threads": pool_size(),
        "variables": {k: os.environ[k] for k in VARIABLES if k in os.environ},
        "settings": {k: _plain(getattr(jax.config, k)) for k in SETTINGS},
    }


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | str | None) else str(value)


def _instructions() -> list[str]:
    """The instruction sets that this CPU has, in NumPy's names."""
    found = np.show_config(mode="dicts") or {}
    sets = found.get("SIMD Extensions", {})
    return [*sets.get("baseline", []), *sets.get("found", [])]


def pool_size() -> int | None:
    """Threads of XLA's CPU pool: 0 before JAX starts, None where /proc does not tell."""
    try:
        return sum(
            (task / "comm").read_text().strip() == _POOL for task in _TASKS.iterdir()
        )  # fmt: skip
    except OSError:
        return None


def started() -> bool:
    """Whether JAX has devices already, so that settings of these come too late."""
    name = "jax_num_cpu_devices"
    now = getattr(jax.config, name)
    try:
        jax.config.update(name, now + 2)  # refused too late, whatever the number
    except RuntimeError:
        return True
    jax.config.update(name, now)
    return False


def fix_threads(wanted: int, devices: int) -> None:
    """Sets the size of XLA's CPU pool, which by default is the number of cores or of devices.

    How large operations are cut up, and hence their last bits, may depend on it. A later start of
    JAX reads the variable PJRT_NPROC.

    Raises:
      RunError: fewer threads than CPU devices, or JAX has started with another number of them.
    """
    if wanted < max(devices, 1):
        raise RunError(
            f"config.perf.threads is {wanted}: expected at least config.perf.devices ({devices}), "
            "for each of which XLA starts a thread"
        )
    if not started():
        os.environ["PJRT_NPROC"] = str(wanted)
        return
    there = pool_size()
    if there is None:
        there = int(os.environ.get("PJRT_NPROC") or os.environ.get("NPROC") or 0)
    if there != wanted:
        raise RunError(
            f"config.perf.threads is {wanted}, but JAX has started with {there}: train in a fresh "
            f"process, or set the environment variable PJRT_NPROC={wanted} before JAX starts"
        )
