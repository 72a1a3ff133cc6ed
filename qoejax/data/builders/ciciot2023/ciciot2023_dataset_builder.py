"""CICIoT2023: windows of packets from 105 IoT devices, 33 attacks, in two releases."""

import tensorflow_datasets as tfds

from qoejax.data import schema
from qoejax.data.recorded import RecordedBuilder


class Builder(RecordedBuilder):
    """CICIoT2023: windows of packets from 105 IoT devices, 33 attacks, in two releases.

    The configs, their columns and labels are in ``qoejax.data.schema.ciciot2023``.
    """

    BUILDER_CONFIGS = [  # noqa: RUF012 (as TFDS wants it)
        tfds.core.BuilderConfig(name=name, description=level.schema.title)
        for name, level in schema.CONFIGS["ciciot2023"].items()
    ]
    DEFAULT_BUILDER_CONFIG_NAME = "34class"
    MANUAL_DOWNLOAD_INSTRUCTIONS = schema.find("ciciot2023").schema.instructions
