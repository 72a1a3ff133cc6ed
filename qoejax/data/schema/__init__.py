"""Columns, units, leaks and labels of the recorded datasets, each in one place.

Standard library only. Builders, raw-file reading and documentation all look here.
"""

from qoejax.data.errors import DataError
from qoejax.data.schema import ciciot2023, edge_iiotset, human_qoe, ton_iot
from qoejax.data.schema.base import Level, Rating, Schema, Taxonomy, plain
from qoejax.data.table import Service, Spec

CONFIGS: dict[str, dict[str, Level]] = {
    "ciciot2023": ciciot2023.CONFIGS,
    "edge_iiotset": edge_iiotset.CONFIGS,
    "human_qoe": human_qoe.CONFIGS,
    "ton_iot": ton_iot.CONFIGS,
}

__all__ = [
    "CONFIGS",
    "Level",
    "Rating",
    "Schema",
    "Taxonomy",
    "find",
    "label_table",
    "plain",
    "spec_of",
]


def find(dataset: str) -> Level:
    """The level of "NAME/CONFIG"; "NAME" alone means the default (first) config.

    Raises:
      DataError: there is no such dataset or config.
    """
    name, _, config = dataset.partition("/")
    configs = CONFIGS.get(name)
    if configs is None:
        known = ", ".join(sorted(CONFIGS))
        raise DataError(f"{name!r} has no raw files that can be read; {known} have.")
    if not config:
        return next(iter(configs.values()))
    if config not in configs:
        raise DataError(f"{name} has no config {config!r}; it has {', '.join(configs)}.")
    return configs[config]


def spec_of(level: Level) -> Spec:
    """The description of all columns of a config, without vocabularies."""
    rating = level.schema.rating
    return Spec(
        dataset=level.dataset,
        columns=level.schema.columns,
        label_names=level.taxonomy.names,
        services=(Service(rating.service),) if rating else (),
        vocab={},
        benign=level.taxonomy.benign,
        window=1,
        human=rating is not None,
        interval=rating.interval if rating else "",
    )


def label_table(level: Level) -> dict[str, int]:
    """Label index by spelling, compared through ``plain``: fine labels and their aliases."""
    of = level.taxonomy.of
    index = {plain(fine): level.taxonomy.names.index(name) for fine, name in of.items()}
    return index | {plain(alias): index[plain(f)] for alias, f in level.schema.aliases.items()}
