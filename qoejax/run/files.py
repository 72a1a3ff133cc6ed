"""Files that are either wholly there or not there at all."""

import contextlib
import fcntl
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from qoejax.run.errors import RunError


def write_bytes(path: pathlib.Path, data: bytes) -> None:
    """Writes by rename, after fsync: a reader, or a run killed midway, never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def plain(value: Any) -> Any:
    """JSON-ready copy: arrays to lists, NumPy scalars to Python's, NaN and infinity to null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if hasattr(value, "tolist") and not isinstance(value, str):
        return plain(np.asarray(value).tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, pathlib.Path):
        return str(value)
    return value


def dumps(value: Any, *, indent: int | None = None, sort: bool = False) -> str:
    """Strict JSON text."""
    return json.dumps(plain(value), indent=indent, allow_nan=False, sort_keys=sort)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes ``value`` as indented JSON, atomically."""
    write_bytes(path, (dumps(value, indent=1) + "\n").encode())


def read_json(path: pathlib.Path, what: str) -> Any:
    """Reads JSON.

    Raises:
      RunError: the file is missing or is not JSON; the message says what it should have been.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise RunError(f"{path} is missing: expected {what}") from None
    except (ValueError, OSError) as e:
        raise RunError(f"{path} cannot be read as {what}: {e}") from None


def writable_folder(path: pathlib.Path, what: str) -> pathlib.Path:
    """Creates the folder and proves that it can be written to.

    Raises:
      RunError: it cannot.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as e:
        raise RunError(f"{what} {path} cannot be written to: {e.strerror or e}") from None
    return path.resolve()


@contextlib.contextmanager
def locked(path: pathlib.Path, what: str) -> Iterator[None]:
    """Holds an exclusive lock, so that two processes never write one workdir.

    Raises:
      RunError: another process holds it.
    """
    with open(path, "a") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(f"{what} is in use by another process (lock {path})") from None
        yield
