"""One package per TFDS dataset. Importing this one registers them all."""

from qoejax.data.packed import PackedBuilder

BUILDERS: dict[str, type[PackedBuilder]] = {}
