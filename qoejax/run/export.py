"""A trained model as one folder that runs anywhere JAX does: no network code, no statistics file.

``model.stablehlo`` is the whole path from raw columns to outputs, with weights and preprocessing as
its constants, for any number of rows; ``artefact.json`` says what goes in and what comes out. It is
read by ``qoejax.run.artefact``.
"""

import hashlib
import pathlib
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from qoejax.data import features, table
from qoejax.run import artefact, build, files, manifest, model
from qoejax.run.errors import RunError

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def _keep(leaf: np.ndarray) -> np.ndarray:
    return leaf


def _bfloat16(leaf: np.ndarray) -> np.ndarray:
    return leaf.astype(jnp.bfloat16) if leaf.ndim > 1 else leaf


def _int8(leaf: np.ndarray) -> Any:
    """Codes and scales of a matrix: symmetric, a scale for each column (output), round to even."""
    if leaf.ndim < 2:
        return leaf
    largest = np.abs(leaf).max(tuple(range(leaf.ndim - 1)))
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(leaf / scale).astype(np.int8), scale


WEIGHTS: dict[str, Callable[[np.ndarray], Any]] = {
    "float32": _keep,
    "bfloat16": _bfloat16,
    "int8": _int8,
}
"""How matrices are stored; what is computed with them is float32 in all cases. Vectors stay."""


def restore(stored: Any) -> Array:
    """The float32 leaf that a stored one stands for."""
    if isinstance(stored, tuple):
        codes, scale = stored
        return jnp.asarray(codes).astype(jnp.float32) * jnp.broadcast_to(scale, codes.shape)
    return jnp.asarray(stored).astype(jnp.float32)


def forward(
    trained: model.Model, weights: str = "float32"
) -> Callable[[Float[Array, "N T D"]], dict[str, Array]]:
    """Raw columns to ``{"logits": [N,C], "mos": [N,Q,M]}``, all else being constant."""
    config = build.from_plain(trained.config)
    predict = build.objective(config, trained.spec, trained.label_counts).predict
    see = features.make(trained.stats)
    leaves, structure = jax.tree.flatten(trained.params)
    stored = [WEIGHTS[weights](np.asarray(leaf)) for leaf in leaves]

    def run(x: Float[Array, "N T D"]) -> dict[str, Array]:
        return predict(jax.tree.unflatten(structure, [restore(s) for s in stored]), see(x))

    return run


def size(trained: model.Model, weights: str) -> int:
    """Bytes of the stored weights."""
    leaves = [WEIGHTS[weights](np.asarray(leaf)) for leaf in jax.tree.leaves(trained.params)]
    return sum(leaf.nbytes for leaf in jax.tree.leaves(leaves))


def write(
    trained: model.Model,
    folder: pathlib.Path,
    weights: str = "float32",
    platforms: Collection[str] = ("cpu",),
) -> dict[str, Any]:
    """Writes the artefact; each of its two files is the old one or the new one.

    Returns:
      What ``artefact.json`` holds, but for the description of the dataset.

    Raises:
      RunError: a model per client, an unknown name, or a folder that cannot be written to.
    """
    if trained.stacked:
        raise RunError(
            "this run has one model per client (local-only or personal); export needs a shared one"
        )
    for what, name, options in (
        ("weights", weights, WEIGHTS), *(("platform", p, PLATFORMS) for p in platforms)
    ):  # fmt: skip
        if name not in options:
            raise RunError(f"{what} {name!r}: expected one of {', '.join(options)}")
    rows = jax.export.symbolic_shape("rows")
    shape = (*rows, trained.spec.window, len(trained.spec.columns))
    exported = jax.export.export(jax.jit(forward(trained, weights)), platforms=tuple(platforms))(
        jax.ShapeDtypeStruct(shape, jnp.float32)
    )
    program = bytes(exported.serialize())
    facts = {
        "format": artefact.FORMAT,
        "sha256": hashlib.sha256(program).hexdigest(),
        "weights": weights,
        "weight_bytes": size(trained, weights),
        "platforms": list(platforms),
        "calling_convention": exported.calling_convention_version,
        "features": list(trained.stats.names),
        "mos_mean": trained.mos_mean,
        "calibration": trained.calibration and trained.calibration._asdict(),
        "versions": manifest.environment()["packages"],
    }
    files.writable_folder(folder, "artefact")
    files.write_bytes(folder / artefact.PROGRAM, program)
    files.write_json(folder / artefact.FACTS, facts | {"spec": table.spec_to_json(trained.spec)})
    return facts | {"program_bytes": len(program)}
