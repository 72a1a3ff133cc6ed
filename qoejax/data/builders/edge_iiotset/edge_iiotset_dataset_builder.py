"""Edge-IIoTset: packet records of tshark from an industrial testbed, 14 attacks."""

import tensorflow_datasets as tfds

from qoejax.data import schema
from qoejax.data.recorded import RecordedBuilder


class Builder(RecordedBuilder):
    """Edge-IIoTset: packet records of tshark from an industrial testbed, 14 attacks.

    The configs, their columns and labels are in ``qoejax.data.schema.edge_iiotset``.
    """

    BUILDER_CONFIGS = [  # noqa: RUF012 (as TFDS wants it)
        tfds.core.BuilderConfig(name=name, description=level.schema.title)
        for name, level in schema.CONFIGS["edge_iiotset"].items()
    ]
    DEFAULT_BUILDER_CONFIG_NAME = "15class"
    MANUAL_DOWNLOAD_INSTRUCTIONS = schema.find("edge_iiotset").schema.instructions
