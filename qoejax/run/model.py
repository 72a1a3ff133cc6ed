"""The ``model/`` folder: all that evaluation and prediction need, nothing of the training run."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qoejax import trees
from qoejax.data import preprocess, table
from qoejax.fed.evaluate import make_evaluator
from qoejax.run import build, files
from qoejax.run import calibration as calibrations
from qoejax.run.errors import RunError

FORMAT = 1


class Model(NamedTuple):
    """A trained model and how rows become its inputs.

    ``stacked`` models (local-only training) hold one set of parameters per client: every leaf of
    ``params`` then has a leading axis P.
    """

    spec: table.Spec
    stats: preprocess.Stats
    config: dict[str, Any]
    label_counts: np.ndarray
    mos_mean: np.ndarray  # [Q], of the training rows: the constant to beat
    params: Any
    stacked: bool
    calibration: calibrations.Calibration | None = None

    def predictor(self) -> Callable[[Any, Any], dict[str, Any]]:
        """``(params, x[N,T,F]) -> {"logits": [N,C], "mos": [N,Q,M]}``, compiled on first use."""
        config = build.from_plain(self.config)
        objective = build.objective(config, self.spec, self.label_counts)
        return make_evaluator(objective.predict, config.evaluation.batch)


def save(folder: pathlib.Path, model: Model) -> None:
    """Writes the folder as a whole: it is either the old one or the new one."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    with open(temporary / "params.npz", "wb") as f:
        leaves: dict[str, Any] = dict(trees.named_leaves(model.params))
        np.savez(f, **leaves)
    preprocess.save(model.stats, temporary / "preprocess.npz")
    files.write_json(
        temporary / "model.json",
        {
            "format": FORMAT,
            "stacked": model.stacked,
            "spec": table.spec_to_json(model.spec),
            "label_counts": model.label_counts,
            "mos_mean": model.mos_mean,
            "config": model.config,
            "calibration": model.calibration and model.calibration._asdict(),
            "params_sha256": trees.sha256(model.params),
        },
    )
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        folder.rename(old)
    temporary.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load(workdir: pathlib.Path) -> Model:
    """Reads ``workdir/model``.

    Raises:
      RunError: it is missing, damaged, or of another format.
    """
    folder = workdir / "model"
    meta = files.read_json(folder / "model.json", "a trained model (has training finished?)")
    if meta.get("format") != FORMAT:
        raise RunError(f"{folder} has format {meta.get('format')}: this version reads {FORMAT}")
    try:
        spec = table.spec_from_json(meta["spec"])
        stats = preprocess.load(folder / "preprocess.npz")
        model = Model(
            spec,
            stats,
            meta["config"],
            np.asarray(meta["label_counts"]),
            np.asarray(meta["mos_mean"], float),
            None,
            meta["stacked"],
            calibrations.from_json(meta.get("calibration")),
        )
        params = _load_params(folder / "params.npz", model)
    except RunError:
        raise
    except Exception as e:  # a damaged archive raises whatever its parser raises
        raise RunError(f"{folder} cannot be read as a trained model: {e}") from e
    if trees.sha256(params) != meta["params_sha256"]:
        raise RunError(f"{folder / 'params.npz'} is damaged: its digest differs from model.json's")
    return model._replace(params=params)


def _load_params(path: pathlib.Path, model: Model) -> Any:
    config = build.from_plain(model.config)
    objective = build.objective(config, model.spec, model.label_counts)
    x = jnp.zeros((1, model.spec.window, model.stats.features))
    like = jax.eval_shape(objective.init, jax.random.key(0), x)
    with np.load(path, allow_pickle=False) as archive:
        found = {name: archive[name] for name in archive.files}
    names = [name for name, _ in trees.named_leaves(like)]
    if set(names) != set(found):
        odd = sorted(set(names) ^ set(found))
        raise RunError(f"{path} does not fit its config: parameter {odd[0]} is on one side only")
    return jax.tree.unflatten(jax.tree.structure(like), [found[name] for name in names])
