"""The calibration of a finished run's model, from the rows that its clients kept back."""

from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np

from qoejax.data.aside import Aside
from qoejax.fed.engine import Engine
from qoejax.run import build, calibration
from qoejax.run.errors import RunError
from qoejax.run.model import Model


def check_engine(config: ml_collections.ConfigDict, engine: Engine) -> None:
    """Refuses runs that end in a model for each client.

    Raises:
      RunError: names the key.
    """
    if config.calibration.share and engine.models is not None:
        raise RunError(
            f"config.calibration.share is {config.calibration.share}, but {config.fed.algorithm} "
            "gives every client a model of its own, and what is calibrated is one model of all: "
            "expected 0"
        )


def of_run(
    model: Model, population: build.Population, data: build.Data, predict: Callable[..., Any]
) -> Model:
    """The model with its calibration, or as it is where clients kept nothing back.

    Args:
      model: One for all clients.
      population: Of the run.
      data: Of the run.
      predict: A predictor of the model, compiled already.

    Raises:
      RunError: too few rows were kept back.
    """
    if not population.asides:
        return model
    config = build.from_plain(model.config)
    index, clients = _gathered(population.asides)
    rows = jax.tree.map(lambda leaf: leaf[index], data.train)
    c = config.calibration
    try:
        fitted = calibration.fit(
            jax.device_get(predict(model.params, rows.x)), rows, clients,
            alpha=c.alpha, method=c.method, per_class=c.per_class, together=c.together,
        )  # fmt: skip
    except ValueError as e:
        raise RunError(f"config.calibration.share is {c.share}: {e}") from e
    if config.clients.partition == "natural":
        groups = tuple(tuple(np.unique(data.group[p]).tolist()) for p in population.parts)
        fitted = fitted._replace(clients=groups)
    return model._replace(calibration=fitted)


def _gathered(asides: list[Aside]) -> tuple[np.ndarray, list[Aside]]:
    """Numbers of all kept-back rows, and where among these each client's are."""
    index = np.concatenate([part for aside in asides for part in aside])
    ends = np.cumsum([len(part) for aside in asides for part in aside])
    places = np.split(np.arange(len(index)), ends[:-1])
    return index, [Aside(a, b) for a, b in zip(places[::2], places[1::2], strict=True)]
