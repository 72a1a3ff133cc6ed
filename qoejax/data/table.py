"""Tables of records on the host, and the description of their columns. NumPy only.

A ``Table`` holds every column of a dataset, the leaky ones too, in raw units; a ``Spec`` says what
the columns are. What a model sees is chosen later, by name.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from qoejax.data.errors import DataError

NUMERIC = "numeric"
CATEGORICAL = "categorical"

MOS = "mos"
QOME = "qome"


class Column(NamedTuple):
    """One feature column.

    ``unit`` is "" for counts, ratios and codes. ``leaky`` marks a column that tells the label by
    way of how the data was collected; ``why`` says how, or what the column means.
    """

    name: str
    unit: str
    kind: str
    leaky: bool
    why: str


class Service(NamedTuple):
    """One experience score of an example.

    ``horizon_s`` is the time from the last record to the score: 0 is now, None where a score
    belongs to the example as a whole. ``scale`` is ``MOS``, a mean opinion score in [1, 5], or
    ``QOME``, the quality of a machine's experience in [0, 1], which is never called MOS.
    """

    name: str
    horizon_s: int | None = None
    scale: str = MOS

    @property
    def key(self) -> str:
        """Unique among a dataset's services of one scale, such as "voice_3s"."""
        return self.name if self.horizon_s is None else f"{self.name}_{self.horizon_s}s"

    @property
    def label(self) -> str:
        """Unique among a dataset's services, such as "mos_voice_3s" or "qome_telemetry"."""
        return f"{self.scale}_{self.key}"


class Spec(NamedTuple):
    """What the arrays of a ``Table`` mean.

    ``vocab`` maps each categorical column to its values; the value at index 0 is always "" and
    stands for absent, for "-" and for every value outside the vocabulary. ``window`` is T.
    ``benign`` is the label name of harmless rows. ``human`` says that scores are people's own
    ratings: equal rows are then different opinions, not duplicates. ``interval`` names the (leaky)
    column with the half width of a score's 95 % confidence interval, "" where there is none.
    """

    dataset: str
    columns: tuple[Column, ...]
    label_names: tuple[str, ...]
    services: tuple[Service, ...]
    vocab: dict[str, tuple[str, ...]]
    benign: str
    window: int
    human: bool = False
    interval: str = ""


class Table(NamedTuple):
    """N rows; T consecutive records each, F columns, Q services.

    ``x`` is always finite; a categorical cell is an index into the column's vocabulary. ``label``
    is -1 where unknown, ``group`` (the natural client, such as a source host) is -1 where none.
    ``mos`` holds the scores of the services, each on its own scale.
    """

    x: Float[np.ndarray, "N T F"]
    label: Int[np.ndarray, " N"]
    group: Int[np.ndarray, " N"]
    mos: Float[np.ndarray, "N Q"]
    mos_mask: Bool[np.ndarray, "N Q"]


def make_table(
    x: Float[np.ndarray, "N T F"],
    label: Int[np.ndarray, " N"],
    group: Int[np.ndarray, " N"] | None = None,
    mos: Float[np.ndarray, "N Q"] | None = None,
    mos_mask: Bool[np.ndarray, "N Q"] | None = None,
) -> Table:
    """A table with the contract's dtypes: no group means -1, no MOS means Q = 0."""
    rows = len(x)
    group = np.full(rows, -1) if group is None else group
    mos = np.zeros((rows, 0)) if mos is None else mos
    mos_mask = np.ones(mos.shape, bool) if mos_mask is None else mos_mask
    return Table(
        x=np.ascontiguousarray(x, np.float32),
        label=np.asarray(label, np.int32),
        group=np.asarray(group, np.int32),
        mos=np.asarray(mos, np.float32),
        mos_mask=np.asarray(mos_mask, bool),
    )


def take(table: Table, index: Any) -> Table:
    """The rows that ``index`` (a slice, a mask or row numbers) selects."""
    return Table(*(array[index] for array in table))


def concatenate(tables: Collection[Table]) -> Table:
    """All rows, in order; at least one table."""
    return Table(*(np.concatenate(arrays) for arrays in zip(*tables, strict=True)))


def retained(spec: Spec, keep: Collection[str] = ()) -> tuple[str, ...]:
    """Names of the columns a model sees: those not leaky, and the leaky ones kept by name.

    Raises:
      DataError: a name in ``keep`` is no column of the dataset.
    """
    unknown = sorted(set(keep) - {c.name for c in spec.columns})
    if unknown:
        raise DataError(f"{spec.dataset} has no column {', '.join(map(repr, unknown))} to keep.")
    return tuple(c.name for c in spec.columns if not c.leaky or c.name in keep)


def narrow(spec: Spec, names: Collection[str]) -> Spec:
    """The same dataset with only the columns in ``names``, in the dataset's order.

    Raises:
      DataError: a name is no column of the dataset.
    """
    unknown = sorted(set(names) - {c.name for c in spec.columns})
    if unknown:
        raise DataError(f"{spec.dataset} has no column {', '.join(map(repr, unknown))}.")
    columns = tuple(c for c in spec.columns if c.name in names)
    vocab = {name: values for name, values in spec.vocab.items() if name in names}
    return spec._replace(columns=columns, vocab=vocab)


def persistence(spec: Spec) -> tuple[int | None, ...]:
    """For each service, the index of the same service's score now, None where there is none."""
    now = {s.name: q for q, s in enumerate(spec.services) if s.horizon_s == 0}
    return tuple(now.get(s.name) if s.horizon_s else None for s in spec.services)


def spec_to_json(spec: Spec) -> dict[str, Any]:
    """Plain dicts, lists and scalars that ``spec_from_json`` turns back into the same spec."""
    return {
        **spec._asdict(),
        "columns": [c._asdict() for c in spec.columns],
        "label_names": list(spec.label_names),
        "services": [s._asdict() for s in spec.services],
        "vocab": {name: list(values) for name, values in spec.vocab.items()},
    }


def spec_from_json(data: Any) -> Spec:
    """The inverse of ``spec_to_json``.

    Raises:
      DataError: a field is missing or has another form.
    """
    try:
        return Spec(
            dataset=data["dataset"],
            columns=tuple(Column(**column) for column in data["columns"]),
            label_names=tuple(data["label_names"]),
            services=tuple(Service(**service) for service in data["services"]),
            vocab={name: tuple(values) for name, values in data["vocab"].items()},
            benign=data["benign"],
            window=int(data["window"]),
            human=bool(data["human"]),
            interval=data["interval"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise DataError(f"This is not a saved dataset description ({e!r}).") from e
