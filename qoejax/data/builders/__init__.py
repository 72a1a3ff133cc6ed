"""One package per TFDS dataset."""
