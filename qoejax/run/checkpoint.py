"""Checkpoints of a run: orbax, verified by digest, newest that loads wins."""

import logging
import pathlib
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from qoejax import trees
from qoejax.run.errors import RunError

LOG = logging.getLogger("qoejax")
_policies = ocp.training.preservation_policies


class Checkpoints:
    """A folder of numbered states.

    A state is written with the SHA-256 of its leaves. Restoring walks from the newest to the
    oldest; one that fails to load, or whose digest differs, is moved to ``quarantine/`` (never
    deleted) and the next is tried.
    """

    def __init__(self, folder: pathlib.Path, keep: int):
        """Opens or creates the folder; leftovers of a killed save are removed."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._keep = keep
        self._open()

    def _open(self) -> None:
        keep: Any = _policies.LatestN(self._keep)  # orbax types its own policies too narrowly
        self._orbax = ocp.training.Checkpointer(
            str(self.folder),
            preservation_policy=keep,
            cleanup_tmp_directories=True,
        )

    def save(self, step: int, state: Any) -> None:
        """Writes the state of ``step``; returns when it is on disk."""
        host = jax.tree.map(np.asarray, jax.device_get(state))
        meta: Any = {"sha256": trees.sha256(host)}
        self._orbax.save(step, host, custom_metadata=meta, force=True, overwrite=True)

    def restore(self, like: Any) -> tuple[int, Any] | None:
        """The newest sound state as NumPy leaves and its step, or None when there is none.

        Raises:
          RunError: checkpoints exist but none of them is sound, or a sound one is of another
            model (it is then left where it is).
        """
        steps = [int(c.step) for c in self._orbax.checkpoints]
        bad = []
        for step in sorted(steps, reverse=True):
            try:
                state = self._load(step, like)
            except Exception as e:  # whatever a damaged file makes orbax raise
                bad.append(f"{step} ({type(e).__name__}: {str(e).splitlines()[0][:120]})")
                self._quarantine(step)
                LOG.warning("checkpoint %s was not sound and is quarantined", bad[-1])
            else:
                _check_shapes(self.folder / str(step), state, like)
                return step, state
        if bad:
            raise RunError(
                f"no checkpoint in {self.folder} is sound; moved to quarantine: {', '.join(bad)}; "
                "start again in another workdir, or put a sound copy back"
            )
        return None

    def _load(self, step: int, like: Any) -> Any:
        abstract = jax.tree.map(lambda a: np.zeros(np.shape(a), np.asarray(a).dtype), like)
        state = jax.tree.map(np.asarray, self._orbax.load(step, abstract))
        meta: Any = self._orbax.metadata(step).custom_metadata or {}
        if trees.sha256(state) != meta.get("sha256"):
            raise RunError("its digest differs from the one it was saved with")
        return state

    def _quarantine(self, step: int) -> None:
        self._orbax.close()
        target = self.folder / "quarantine"
        target.mkdir(exist_ok=True)
        n = sum(1 for _ in target.iterdir())
        (self.folder / str(step)).rename(target / f"{step}.{n}")
        self._open()

    def close(self) -> None:
        """Waits for what is being written."""
        self._orbax.close()


def _check_shapes(path: pathlib.Path, state: Any, like: Any) -> None:
    found = [(name, np.shape(a)) for name, a in trees.named_leaves(state)]
    expected = [(name, np.shape(a)) for name, a in trees.named_leaves(like)]
    for have, want in zip(found, expected, strict=True):
        if have != want:
            raise RunError(
                f"checkpoint {path} is of another model: it has {have[0]} of shape {have[1]}, "
                f"expected {want[0]} of shape {want[1]}"
            )
