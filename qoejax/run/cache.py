"""The user's cache folder: what has been compiled or measured once, for the next process."""

import logging
import os
import pathlib

import jax

LOG = logging.getLogger("qoejax")

VARIABLE = "QOEJAX_CACHE"
"""Environment variable that names the folder; set but empty, nothing is cached."""


def folder() -> pathlib.Path | None:
    """``$QOEJAX_CACHE``, else ``qoejax`` in ``$XDG_CACHE_HOME`` or ``~/.cache``; None for off."""
    chosen = os.environ.get(VARIABLE)
    if chosen is not None:
        return pathlib.Path(chosen).expanduser() if chosen else None
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(base).expanduser() / "qoejax"


def keep_compiled() -> None:
    """Lets JAX keep executables in the cache folder; call it before anything compiles.

    They are keyed by program, versions, flags and devices, and give the same bits as new ones.
    Whoever has chosen a folder for JAX (``JAX_COMPILATION_CACHE_DIR``) keeps it. Only the user may
    write to ours, since executables are run from it.
    """
    where = folder()
    if where is None or jax.config.values["jax_compilation_cache_dir"]:
        return
    try:
        (where / "compiled").mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as e:
        LOG.warning("nothing is cached: %s cannot be made (%s)", where, e.strerror or e)
        return
    jax.config.update("jax_compilation_cache_dir", str(where / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
