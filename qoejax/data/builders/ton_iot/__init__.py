"""TFDS dataset ton_iot."""
