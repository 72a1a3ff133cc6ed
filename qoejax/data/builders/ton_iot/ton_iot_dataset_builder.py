"""TON_IoT network: connection records of the Zeek monitor, nine attack types."""

import tensorflow_datasets as tfds

from qoejax.data import schema
from qoejax.data.recorded import RecordedBuilder


class Builder(RecordedBuilder):
    """TON_IoT network: connection records of the Zeek monitor, nine attack types.

    The configs, their columns and labels are in ``qoejax.data.schema.ton_iot``.
    """

    BUILDER_CONFIGS = [  # noqa: RUF012 (as TFDS wants it)
        tfds.core.BuilderConfig(name=name, description=level.schema.title)
        for name, level in schema.CONFIGS["ton_iot"].items()
    ]
    DEFAULT_BUILDER_CONFIG_NAME = "10class"
    MANUAL_DOWNLOAD_INSTRUCTIONS = schema.find("ton_iot").schema.instructions
