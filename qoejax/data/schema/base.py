"""What a schema says, and how names are compared. Standard library only."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from qoejax.data.table import CATEGORICAL, NUMERIC, Column


class Taxonomy(NamedTuple):
    """Label names in order, and which of them each fine label belongs to."""

    names: tuple[str, ...]
    of: Mapping[str, str]
    benign: str


class Rating(NamedTuple):
    """What ``Schema.label_column`` holds where people's own scores are to be forecast.

    Attributes:
      service: what was rated.
      low: worst score of the scale in the file, which becomes MOS 1.
      high: best score of that scale, which becomes MOS 5; in between the map is linear.
      subject: columns whose texts together name the subject, who is never on both sides of a split.
      salt: of the split's hash: the smallest for which 17 to 23 of 100 rows, and 15 to 25 of 100
        subjects, are on the test side (subjects have from one to a thousand rows).
      pattern: a regular expression for the part of that text which is the name, "" for all of it.
      interval: column with the half width of a score's 95 % confidence interval, on the file's
        scale, or "".
    """

    service: str
    low: float
    high: float
    subject: tuple[str, ...]
    salt: int = 0
    pattern: str = ""
    interval: str = ""


class Schema(NamedTuple):
    """The files of one release of a dataset.

    Attributes:
      title: the release, for messages.
      columns: all feature columns, in the order of the arrays.
      label_column: name of the column with the fine label, or with the score where there is a
        ``rating``.
      taxonomies: label sets by the name of their config; the first is the default.
      aliases: other spellings of fine labels that the authors' files use.
      group: the column that names the natural client, or "".
      absent_is_zero: whether an empty cell or "-" in a numeric column means "not seen", that is 0,
        rather than a damaged row.
      clocks: numeric columns written as a time of day; they hold seconds since midnight.
      patterns: where files of these names exist, all others are passed over; first match wins.
      foreign: columns that tell another release, and its default config.
      instructions: what to put into manual_dir.
      rating: how people scored, None where the dataset has labels instead.
    """

    title: str
    columns: tuple[Column, ...]
    label_column: str
    taxonomies: Mapping[str, Taxonomy]
    aliases: Mapping[str, str]
    group: str
    absent_is_zero: bool
    clocks: frozenset[str]
    patterns: tuple[str, ...]
    foreign: Mapping[str, str]
    instructions: str
    rating: Rating | None = None


class Level(NamedTuple):
    """One config: a release, a label set, and whether columns may be missing.

    ``partial`` names the config that accepts missing columns, or is "" where there is none;
    ``is_partial`` says that this is one.
    """

    dataset: str
    schema: Schema
    taxonomy: Taxonomy
    partial: str
    is_partial: bool


def number(name: str, unit: str = "", why: str = "", leaky: bool = False) -> Column:
    """A numeric column."""
    return Column(name, unit, NUMERIC, leaky, why)


def category(name: str, why: str = "", leaky: bool = False) -> Column:
    """A categorical column."""
    return Column(name, "", CATEGORICAL, leaky, why)


def plain(name: str) -> str:
    """A column or label name without case, spaces and punctuation: how names are compared."""
    return re.sub(r"[^0-9a-z]", "", name.casefold())


def taxonomy(families: Mapping[str, Iterable[str]], benign: str) -> Taxonomy:
    """Each key of ``families`` is a label name; its fine labels become that name."""
    of = {fine: name for name, fines in families.items() for fine in fines}
    return Taxonomy(tuple(families), of, benign)


def fine_and_binary(fine: Iterable[str], benign: str) -> tuple[Taxonomy, Taxonomy]:
    """The taxonomy of the fine labels themselves, and benign against all others."""
    fine = tuple(fine)
    attacks = tuple(name for name in fine if name != benign)
    return (
        taxonomy({name: (name,) for name in fine}, benign),
        taxonomy({"Benign": (benign,), "Attack": attacks}, "Benign"),
    )


def levels(
    dataset: str, schema: Schema, prefix: str = "", partial: bool = False
) -> dict[str, Level]:
    """One config per label set of a release, and one ``_partial`` config each where offered."""
    made = {}
    for name, labels in schema.taxonomies.items():
        config, loose = f"{prefix}{name}", f"{prefix}{name}_partial" if partial else ""
        made[config] = Level(f"{dataset}/{config}", schema, labels, loose, False)
        if partial:
            made[loose] = Level(f"{dataset}/{loose}", schema, labels, loose, True)
    return made
