"""TFDS dataset simulated_iot."""
