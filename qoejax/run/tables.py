"""``config.data`` to tables: which rows are read, seen, cleaned, and on which side they are."""

from collections.abc import Callable
from typing import Any

import ml_collections
import numpy as np

from qoejax.data import load, preprocess, split, splits, table
from qoejax.data.errors import DataError
from qoejax.data.schema import shared_view
from qoejax.run.errors import RunError

VIEWS = ("", "shared")
WITHIN = ("all", "class", "group")

Tables = tuple[table.Spec, table.Table, table.Table, dict[str, Any]]


def seed(config: ml_collections.ConfigDict) -> int:
    """Of all that is drawn before training: rows, splits, clients, traces, who is malicious."""
    return config.seed if config.data.seed < 0 else config.data.seed


def dataset(config: ml_collections.ConfigDict) -> Any:
    """The prepared TFDS builder that ``config.data`` names."""
    return load.builder(config.data.name, config.data.dir or None, config.data.manual_dir or None)


def retained(config: ml_collections.ConfigDict, spec: table.Spec) -> list[int]:
    """Indices of the columns that the model may see."""
    return preprocess.retained(spec, tuple(config.data.keep), tuple(config.data.drop))


def clean(
    config: ml_collections.ConfigDict, spec: table.Spec, rows: table.Table
) -> tuple[np.ndarray, split.CleanReport]:
    """Indices of the rows that stay when duplicates and label conflicts go, and the report.

    Both are judged on the columns that the model sees. Where people rated, equal rows are different
    opinions: all stay.
    """
    keep, report = split.clean(_flat(config, spec, rows), rows.label)
    return (np.arange(len(rows.label)) if spec.human else keep), report


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses a way of parting rows that does not exist.

    Raises:
      RunError: names the key, its value and what was expected.
    """
    choices = {"split": ("prepared", *SPLITS), "view": VIEWS, "within": WITHIN}
    for key, known in choices.items():
        if config.data[key] not in known:
            wanted = ", ".join(map(repr, known))
            raise RunError(f"config.data.{key} is {config.data[key]!r}: expected one of {wanted}")
    if config.data.leave_out and config.data.split != "leave_out":
        raise RunError(
            f"config.data.leave_out is {tuple(config.data.leave_out)}, but config.data.split is "
            f"{config.data.split!r}: expected 'leave_out'"
        )
    if not 0 < config.data.test_fraction < 1:
        raise RunError(
            f"config.data.test_fraction is {config.data.test_fraction}: expected more than 0, less "
            "than 1"
        )


def tables(config: ml_collections.ConfigDict) -> Tables:
    """Description, training and test rows of a run, cleaned, and a report of how they came about.

    Raises:
      DataError: the dataset cannot be had, or cannot be parted so.
      RunError: the config names no way of parting.
    """
    check(config)
    prepared = dataset(config)
    (spec, train), (_, test) = (_read(config, prepared, side) for side in ("train", "test"))
    if config.data.split != "prepared":
        return _parted(config, prepared, spec, table.concatenate([train, test]), len(train.label))
    reports = {}
    sides = {"train": train, "test": test}
    for name, rows in sides.items():
        keep, report = clean(config, spec, rows)
        sides[name], reports[name] = table.take(rows, keep), report._asdict()
    if config.data.view:  # Rows that were parted by more columns may be equal in fewer.
        flat = [_flat(config, spec, sides[name]) for name in ("train", "test")]
        repeated = split.repeated(*flat)
        sides["test"] = table.take(sides["test"], np.flatnonzero(~repeated))
        reports["test"]["repeated_from_training"] = int(repeated.sum())
        if repeated.all():
            raise DataError(f"{spec.dataset}: every test row repeats a training row in this view.")
    return spec, sides["train"], sides["test"], reports


def set_aside(
    rows: table.Table, count: int, seed: tuple[int, int]
) -> tuple[table.Table, table.Table]:
    """The other rows, and ``count`` rows drawn by ``seed``; both in their order."""
    order = np.random.default_rng(seed).permutation(len(rows.label))
    return table.take(rows, np.sort(order[count:])), table.take(rows, np.sort(order[:count]))


def held_out(config: ml_collections.ConfigDict) -> table.Table:
    """The test rows of ``tables``; reads only them where the dataset is used as prepared."""
    if config.data.split != "prepared" or config.data.view:
        return tables(config)[2]
    spec, rows = _read(config, dataset(config), "test")
    return table.take(rows, clean(config, spec, rows)[0])


def other_rows(
    config: ml_collections.ConfigDict, model: table.Spec, name: str, data_dir: str
) -> table.Table:
    """Test rows of another dataset in the shared view, for a model of that view, cleaned.

    Raises:
      RunError: the model is not of the shared view.
      DataError: the other dataset is not prepared, or lacks a column of the model.
    """
    if config.data.view != "shared":
        raise RunError(
            f"--dataset={name} is not the model's {model.dataset}: only a model of the shared view "
            "(config.data.view='shared') can be tried on another"
        )
    spec, rows = load.table(load.builder(name, data_dir or config.data.dir or None), "test")
    needed = {model.columns[j].name for j in retained(config, model)}
    rows = shared_view.align(model, needed, *shared_view.apply(spec, rows))
    return table.take(rows, clean(config, model, rows)[0])


def _read(
    config: ml_collections.ConfigDict, prepared: Any, side: str
) -> tuple[table.Spec, table.Table]:
    spec, rows = load.table(prepared, side)
    return shared_view.apply(spec, rows) if config.data.view else (spec, rows)


def _flat(config: ml_collections.ConfigDict, spec: table.Spec, rows: table.Table) -> np.ndarray:
    """What the model sees of each row, as one vector."""
    return np.ascontiguousarray(rows.x[:, :, retained(config, spec)]).reshape(len(rows.label), -1)


def _parted(
    config: ml_collections.ConfigDict,
    prepared: Any,
    spec: table.Spec,
    rows: table.Table,
    train_rows: int,
) -> Tables:
    """The union of the prepared rows, cleaned as a whole and parted anew."""
    keep, report = clean(config, spec, rows)
    rows = table.take(rows, keep)
    made = SPLITS[config.data.split](config, prepared, spec, rows, keep >= train_rows)
    facts = made.report | {"split": config.data.split}
    reports = {name: report._asdict() | facts for name in ("train", "test")}
    return spec, table.take(rows, made.train), table.take(rows, made.test), reports


def _random(
    config: ml_collections.ConfigDict, prepared: Any, spec: table.Spec, rows: table.Table, test: Any
) -> splits.Split:
    del prepared, test
    return splits.random(_flat(config, spec, rows), config.data.test_fraction, seed(config) + 1)


def _by_group(
    config: ml_collections.ConfigDict, prepared: Any, spec: table.Spec, rows: table.Table, test: Any
) -> splits.Split:
    del prepared, spec, test
    return splits.by_group(rows.group, rows.label, config.data.test_fraction, seed(config))


def _blocked(
    config: ml_collections.ConfigDict, prepared: Any, spec: table.Spec, rows: table.Table, test: Any
) -> splits.Split:
    del test
    d = config.data
    names = [c.name for c in spec.columns]
    if not d.order and "hash_version" in prepared.info.metadata:
        raise RunError(
            f"config.data.order is empty, but {spec.dataset} was parted by content when it was "
            "prepared, so its rows have lost their order: expected a column that tells the time"
        )
    if d.order and d.order not in names:
        raise RunError(f"config.data.order is {d.order!r}: {spec.dataset} has no such column")
    number = np.arange(len(rows.label), dtype=np.float64)
    order = rows.x[:, -1, names.index(d.order)].astype(np.float64) if d.order else number
    within = {"all": np.zeros_like(rows.label), "class": rows.label, "group": rows.group}[d.within]
    return splits.blocked(
        within, order, rows.label, d.test_fraction, seed(config), blocks=d.blocks, gap=d.gap
    )


def _leave_out(
    config: ml_collections.ConfigDict, prepared: Any, spec: table.Spec, rows: table.Table, test: Any
) -> splits.Split:
    del prepared
    absent = tuple(config.data.leave_out)
    return splits.leave_out(rows.label, test, spec.label_names, absent, spec.benign)


SPLITS: dict[str, Callable[..., splits.Split]] = {
    "random": _random,
    "group": _by_group,
    "blocked": _blocked,
    "leave_out": _leave_out,
}
"""Ways to part all prepared rows: from (config, prepared, spec, rows, whether prepared as test)."""
