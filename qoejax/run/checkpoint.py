"""Checkpoints of a run: orbax, verified by digest, newest that loads wins."""

import logging
import pathlib
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from qoejax import trees
from qoejax.run.distributed import ALONE, Group
from qoejax.run.errors import RunError

LOG = logging.getLogger("qoejax")
_policies = ocp.training.preservation_policies


class Checkpoints:
    """A folder of numbered states, which all processes of a run share.

    A state is written with the SHA-256 of its leaves; of arrays that are shared out over a mesh,
    every process writes what it holds. Restoring walks from the newest to the oldest; one that
    fails to load in some process, or whose digest differs, is moved to ``quarantine/`` (never
    deleted) and the next is tried. All processes must make the same calls.
    """

    def __init__(self, folder: pathlib.Path, keep: int, group: Group = ALONE):
        """Opens or creates the folder; leftovers of a killed save are removed."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._keep = keep
        self._group = group
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
        state = jax.tree.map(lambda a: a if isinstance(a, jax.Array) else np.asarray(a), state)
        meta: Any = {"sha256": trees.sha256(state, self._group.host)}
        self._orbax.save(step, state, custom_metadata=meta, force=True, overwrite=True)

    def restore(self, like: Any) -> tuple[int, Any] | None:
        """The newest sound state and its step, or None when there is none.

        Leaves are as those of ``like``: NumPy, or on the same devices, whatever devices they were
        saved from.

        Raises:
          RunError: checkpoints exist but none of them is sound, or a sound one is of another
            model (it is then left where it is).
        """
        steps = sorted((int(c.step) for c in self._orbax.checkpoints), reverse=True)
        self._group.same("the checkpoints", str(steps), "expected a workdir that all share")
        bad = []
        for step in steps:
            state, fault = self._try(step, like)
            faults = [f for f in self._group.exchange(f"checkpoint {step}", fault) if f]
            if not faults:
                return step, state
            bad.append(f"{step} ({faults[0]})")
            self._quarantine(step)
            LOG.warning("checkpoint %s was not sound and is quarantined", bad[-1])
        if bad:
            raise RunError(
                f"no checkpoint in {self.folder} is sound; moved to quarantine: {', '.join(bad)}; "
                "start again in another workdir, or put a sound copy back"
            )
        return None

    def _try(self, step: int, like: Any) -> tuple[Any, str]:
        """The state, and what is wrong with it: "" if nothing is."""
        try:
            stored = {name: leaf.shape for name, leaf in self._stored(step)}
        except Exception as e:
            return None, _fault(e)
        _check_shapes(self.folder / str(step), stored, like)
        try:
            return self._load(step, like), ""
        except Exception as e:  # whatever a damaged file makes orbax raise
            return None, _fault(e)

    def params(self, step: int) -> Any:
        """Parameters of ``step`` as NumPy, unverified, on whatever devices they were saved from."""
        tree: Any = self._orbax.metadata(step).metadata
        state: Any = self._orbax.load(step, jax.tree.map(_on_host, tree))
        return state["params"]

    def _stored(self, step: int) -> list[tuple[str, Any]]:
        tree: Any = self._orbax.metadata(step).metadata
        return trees.named_leaves(tree)

    def _load(self, step: int, like: Any) -> Any:
        state = self._orbax.load(step, jax.tree.map(_abstract, like))
        meta: Any = self._orbax.metadata(step).custom_metadata or {}
        if trees.sha256(state, self._group.host) != meta.get("sha256"):
            raise RunError("its digest differs from the one it was saved with")
        return state

    def _quarantine(self, step: int) -> None:
        self._orbax.close()
        self._group.first(_set_aside, self.folder, step)
        self._group.meet(f"quarantined {step}")
        self._open()

    def close(self) -> None:
        """Waits for what is being written."""
        self._orbax.close()


def _abstract(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    return np.zeros(np.shape(leaf), np.asarray(leaf).dtype)


def _on_host(stored: Any) -> np.ndarray:
    return np.zeros(stored.shape, stored.dtype)


def _set_aside(folder: pathlib.Path, step: int) -> None:
    target = folder / "quarantine"
    target.mkdir(exist_ok=True)
    n = sum(1 for _ in target.iterdir())
    (folder / str(step)).rename(target / f"{step}.{n}")


def _fault(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"


def _check_shapes(path: pathlib.Path, stored: dict[str, Any], like: Any) -> None:
    for name, leaf in trees.named_leaves(like):
        have, want = stored.get(name), np.shape(leaf)
        if have is None or tuple(have) != want:
            raise RunError(
                f"checkpoint {path} is of another model, or of another number of devices: it has "
                f"{name} of shape {have}, expected {want}"
            )
