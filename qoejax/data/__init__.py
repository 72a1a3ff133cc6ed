"""Records: TFDS builders, splits, preprocessing, partitions and cohorts."""
