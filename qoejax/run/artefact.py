"""An exported model: loaded, checked and run without the network's code (imports no flax).

See ``qoejax.run.export`` for what the folder holds.
"""

import hashlib
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from qoejax.data import candidates, table
from qoejax.data.errors import DataError
from qoejax.run import calibration as calibrations
from qoejax.run import files
from qoejax.run.errors import RunError

FORMAT = 1
PROGRAM, FACTS = "model.stablehlo", "artefact.json"

SIZES = (1, 8, 64, 256)
"""Rows of a call; each is compiled once, and what is left of a call is zeros."""

Compiled = Callable[[np.ndarray], dict[str, Any]]


class Artefact(NamedTuple):
    """An exported model.

    ``program`` is what was exported; ``seen`` are the columns that its features look at, by number;
    ``mos_mean`` [Q] is above 0 for services that training rows were rated on; ``calibration`` is
    what ``outputs.columns`` makes class sets and intervals of, where the model has one.
    """

    spec: table.Spec
    seen: tuple[int, ...]
    mos_mean: np.ndarray
    facts: dict[str, Any]
    program: jax.export.Exported
    calibration: calibrations.Calibration | None = None


def load(folder: pathlib.Path) -> Artefact:
    """Reads an artefact.

    Raises:
      RunError: it is missing, damaged, of another format, or for other devices than those here.
    """
    facts = files.read_json(folder / FACTS, "an exported model (see experiments.export)")
    if facts.get("format") != FORMAT:
        raise RunError(f"{folder} has format {facts.get('format')}: this version reads {FORMAT}")
    try:
        data = (folder / PROGRAM).read_bytes()
    except OSError as e:
        raise RunError(f"{folder / PROGRAM} cannot be read: {e.strerror or e}") from None
    try:
        spec = table.spec_from_json(facts["spec"])
        names = [column.name for column in spec.columns]
        # A feature is named by its column, or COLUMN|VIEW, or COLUMN=VALUE.
        seen = {_column_of(name, names) for name in facts["features"]}
        mos_mean, digest = np.asarray(facts["mos_mean"], float), facts["sha256"]
        platforms = facts["platforms"]
        fitted = calibrations.from_json(facts.get("calibration"))
    except (DataError, KeyError, ValueError, TypeError) as e:
        raise RunError(f"{folder / FACTS} cannot be read as an exported model: {e}") from e
    if hashlib.sha256(data).hexdigest() != digest:
        raise RunError(f"{folder / PROGRAM} is damaged: its digest differs from {FACTS}'s")
    here = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    if here not in platforms:
        raise RunError(
            f"{folder} was exported for {', '.join(platforms)}, not for {here}: export it with "
            f"--platforms={here}"
        )
    program = jax.export.deserialize(bytearray(data))
    return Artefact(spec, tuple(sorted(seen)), mos_mean, facts, program, fitted)


def _column_of(feature: str, names: list[str]) -> int:
    fits = [n for n in names if feature == n or feature.startswith((f"{n}|", f"{n}="))]
    if not fits:
        raise ValueError(f"feature {feature!r} is of no column")
    return names.index(max(fits, key=len))


def compile_for(artefact: Artefact, rows: int) -> Compiled:
    """``x[rows,T,D] -> outputs``, compiled before its first call."""
    shape = (rows, artefact.spec.window, len(artefact.spec.columns))
    lowered = jax.jit(artefact.program.call).lower(jax.ShapeDtypeStruct(shape, jnp.float32))
    return lowered.compile()


def check(artefact: Artefact, x: Float32[np.ndarray, "N T D"]) -> None:
    """Refuses cells that the program would turn into nonsense.

    Raises:
      DataError: a value that is not finite, or a category that is no code of its vocabulary.
    """
    for j in artefact.seen:
        column = artefact.spec.columns[j]
        cells = x[..., j].ravel()
        if column.kind == table.CATEGORICAL:
            candidates.checked_codes(cells, column.name, len(artefact.spec.vocab[column.name]))
        else:
            candidates.finite(cells, column.name)


class Runner:
    """Outputs for any number of rows by programs of a few sizes, compiled on first use."""

    def __init__(self, artefact: Artefact):
        """Compiles nothing yet."""
        self.artefact = artefact
        self._compiled: dict[int, Compiled] = {}

    def warm(self) -> None:
        """Compiles all sizes, so that no verdict waits for a compiler."""
        for rows in SIZES:
            shape = (rows, self.artefact.spec.window, len(self.artefact.spec.columns))
            jax.block_until_ready(self._of(rows)(np.zeros(shape, np.float32)))

    def __call__(self, x: Float32[np.ndarray, "N T D"]) -> dict[str, np.ndarray]:
        """``{"logits": [N,C], "mos": [N,Q,M]}`` of raw rows.

        Raises:
          DataError: see ``check``.
        """
        check(self.artefact, x)
        parts = []
        for start in range(0, max(1, len(x)), SIZES[-1]):
            part = x[start : start + SIZES[-1]]
            rows = next(size for size in SIZES if size >= len(part))
            padded = np.zeros((rows, *x.shape[1:]), np.float32)
            padded[: len(part)] = part
            out = jax.device_get(self._of(rows)(padded))
            parts.append({k: v[: len(part)] for k, v in out.items()})
        return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}

    def _of(self, rows: int) -> Compiled:
        if rows not in self._compiled:
            self._compiled[rows] = compile_for(self.artefact, rows)
        return self._compiled[rows]
