"""People's own quality scores: cloud gaming, mobile and desktop video, adaptive streaming."""

import tensorflow_datasets as tfds

from qoejax.data import schema
from qoejax.data.rated import RatedBuilder


class Builder(RatedBuilder):
    """People's own quality scores: cloud gaming, mobile and desktop video, adaptive streaming.

    The configs, their columns and scales are in ``qoejax.data.schema.human_qoe``.
    """

    BUILDER_CONFIGS = [  # noqa: RUF012 (as TFDS wants it)
        tfds.core.BuilderConfig(name=name, description=level.schema.title)
        for name, level in schema.CONFIGS["human_qoe"].items()
    ]
    DEFAULT_BUILDER_CONFIG_NAME = "cloud_gaming"
    MANUAL_DOWNLOAD_INSTRUCTIONS = "put the files of the config (see README.md) into manual_dir"
