"""TFDS dataset human_qoe."""
