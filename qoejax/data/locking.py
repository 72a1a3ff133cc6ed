"""One preparation at a time, and nothing half-written left behind. Standard library only."""

import contextlib
import fcntl
import os
import pathlib
import shutil
from collections.abc import Iterator

from qoejax.data.errors import DataError


@contextlib.contextmanager
def prepare_lock(target: str | os.PathLike[str]) -> Iterator[None]:
    """Holds the lock of the dataset folder ``target``; waits while another process holds it.

    The folder above ``target`` is what is locked (``flock``), so no lock file stays behind. Under
    the lock, unfinished siblings of ``target`` can only come from a killed process: they are
    removed. On the way out, folders that have stayed empty are removed too, up to and including the
    data folder if this call made it.

    Raises:
      DataError: the folder cannot be created or written.
    """
    target = pathlib.Path(target)
    folder = target.parent
    made = [p for p in (folder, *folder.parents) if not p.exists()]
    fd = _lock(folder)
    try:
        for stale in folder.glob(f"incomplete.*_{target.name}"):
            shutil.rmtree(stale)
        yield
    finally:
        if not target.exists():
            _tidy(made, folder)
        os.close(fd)


def _lock(folder: pathlib.Path) -> int:
    """A descriptor that holds the lock of ``folder``, as the path stands once it is ours."""
    reason = "it keeps disappearing"
    for _ in range(100):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied")
            fd = os.open(folder, os.O_RDONLY)
        except FileNotFoundError as e:  # Another process tidied up between the two calls.
            reason = e.strerror
            continue
        except OSError as e:
            raise DataError(f"Cannot write to the data folder {folder}: {e.strerror}.") from e
        fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            if os.path.samestat(os.fstat(fd), os.stat(folder)):
                return fd
        except FileNotFoundError:
            pass  # The holder failed and removed the folder: start over.
        os.close(fd)
    raise DataError(f"Cannot write to the data folder {folder}: {reason}.")


def _tidy(made: list[pathlib.Path], folder: pathlib.Path) -> None:
    """Removes what TFDS and we created and nobody filled; rmdir never takes a full folder."""
    for parent in dict.fromkeys((folder, *made)):
        with contextlib.suppress(OSError):
            if {p.name for p in parent.iterdir()} == {".config"}:
                shutil.rmtree(parent / ".config")
            parent.rmdir()
