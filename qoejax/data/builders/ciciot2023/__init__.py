"""TFDS dataset ciciot2023."""
