"""Strict by default: four CPU devices, no silent promotion, no reused key, shapes checked."""

import atexit
import os
import pathlib
import shutil
import tempfile

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the commands have it
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # What one process of a run has compiled, its other workers and commands need not.
    _compiled = tempfile.mkdtemp(prefix="qoejax-compiled-")
    atexit.register(shutil.rmtree, _compiled, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
os.environ["QOEJAX_CACHE"] = ""  # tests, and the commands they run, leave the user's cache alone

import hypothesis
import jax
import jaxtyping
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_debug_key_reuse", True)

# Shapes of every public boundary are checked while testing, and only then.
_hook = jaxtyping.install_import_hook("qoejax", "beartype.beartype")

hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, max_examples=25)
hypothesis.settings.load_profile("ci")


@pytest.fixture(scope="session", autouse=True)
def _temporary_files(tmp_path_factory) -> None:
    """In pytest's own folder, which it clears: tfds leaves one behind for every new builder."""
    tempfile.tempdir = str(tmp_path_factory.mktemp("temporary"))


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """Folder of real rows, or a skip that says where it was looked for."""
    default = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = pathlib.Path(os.environ.get("QOEJAX_REAL_DATA", default))
    if not folder.is_dir():
        pytest.skip("no real rows: neither ../shared/data nor QOEJAX_REAL_DATA is a folder")
    return folder
