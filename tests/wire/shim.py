"""Runs Python with randomness of our choice: a preloaded getrandom(2) (Linux, a C compiler)."""

import ctypes
import os
import pathlib
import shutil
import subprocess
import sys

_ALIVE: list[bytes] = []  # what was fed must outlive its use


def available() -> bool:
    """Whether this machine can build and preload the shim."""
    return sys.platform == "linux" and shutil.which("cc") is not None


def run(module: str, folder: pathlib.Path, *arguments: str) -> str:
    """Standard output of ``python -m module`` under the shim, which is built in ``folder``."""
    library = folder / "shim.so"
    source = pathlib.Path(__file__).with_name("shim.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
    environment = os.environ | {"LD_PRELOAD": str(library), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def feed(data: bytes) -> None:
    """From now on randomness is ``data``, in order; running out is an error."""
    _ALIVE.append(data)
    ctypes.CDLL(None).shim_feed(data, ctypes.c_size_t(len(data)))


def left() -> int:
    """Bytes that were fed and not drawn."""
    function = ctypes.CDLL(None).shim_left
    function.restype = ctypes.c_size_t
    return function()
