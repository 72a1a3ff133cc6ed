"""TON_IoT network: connection records of the Zeek monitor, nine attack types."""

import pathlib

import tensorflow_datasets as tfds

from qoejax.data import schema, windowed
from qoejax.data.errors import DataError
from qoejax.data.packed import Plan
from qoejax.data.recorded import RecordedBuilder
from qoejax.data.schema import ton_iot_windows
from qoejax.data.table import Spec


class Builder(RecordedBuilder):
    """TON_IoT network: connection records of the Zeek monitor, nine attack types.

    The configs of single records, their columns and labels are in ``qoejax.data.schema.ton_iot``;
    those of windows of time in ``qoejax.data.schema.ton_iot_windows``.
    """

    BUILDER_CONFIGS = [  # noqa: RUF012 (as TFDS wants it)
        *(
            tfds.core.BuilderConfig(name=name, description=level.schema.title)
            for name, level in schema.CONFIGS["ton_iot"].items()
        ),
        *(
            tfds.core.BuilderConfig(
                name=name, description=f"{w.length} bins of {w.bin_s} s, {w.horizon_s} s ahead"
            )
            for name, w in ton_iot_windows.CONFIGS.items()
        ),
    ]
    DEFAULT_BUILDER_CONFIG_NAME = "10class"
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"{schema.find('ton_iot').schema.instructions}; for the configs of windows, "
        f"{ton_iot_windows.RECORDS.instructions}"
    )

    def _spec(self) -> Spec:
        if self.builder_config.name in ton_iot_windows.CONFIGS:
            return ton_iot_windows.spec(self.builder_config.name)
        return super()._spec()

    def _feature_count(self) -> int | None:
        return len(self._spec().columns)

    def _plan(self, manual_dir: pathlib.Path | None, scratch: pathlib.Path) -> Plan:
        if self.builder_config.name not in ton_iot_windows.CONFIGS:
            return super()._plan(manual_dir, scratch)
        if manual_dir is None:
            raise DataError(
                f"{self.name} needs a manual_dir: {ton_iot_windows.RECORDS.instructions}."
            )
        return windowed.plan(self.builder_config.name, manual_dir, self.progress)
